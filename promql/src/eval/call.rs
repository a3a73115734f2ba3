//! Function calls: which arguments a function wants, and which module computes it.
//!
//! Owns the dispatch by name and the sweep over windows. Must not know any function's arithmetic.

use super::block::{ABSENT, Block, Cell, Meta};
use super::dates;
use super::engine::QueryError;
use super::extended;
use super::histfn;
use super::info;
use super::labelfn::{self, absent_labels, label_join, label_replace, reorder};
use super::math;
use super::notes::Note;
use super::over_time;
use super::rate::{self, Kind, Scope};
use super::row::{Row, Sink};
use super::run::{Evaluated, Evaluator, Grid, Out, reference};
use super::sweep::{self, Edges};
use super::version2;
use super::window::{Cursor, Samples, Window, count_drops};
use crate::syntax::ast::{Call, Expr, ExprKind, Extension, Modifiers, Span, ValueType};

/// Evaluates a call over the grid.
pub(crate) fn call(ev: &Evaluator<'_>, call: &Call, span: Span, grid: Grid) -> Evaluated<Out> {
    let name = call.function.name;
    if let Some(at) = call
        .args
        .iter()
        .position(|a| a.value_type() == ValueType::Matrix)
    {
        return over_ranges(ev, call, at, grid).map(Out::Vector);
    }
    match name {
        "label_replace" => label_replace(ev, call, grid),
        "label_join" => label_join(ev, call, grid),
        "info" => info::info(ev, call, grid).map(Out::Vector),
        "time" => Ok(Out::Scalar(
            grid.times().map(|t| t as f64 / 1000.0).collect(),
        )),
        "pi" => Ok(Out::Scalar(vec![std::f64::consts::PI; grid.steps])),
        "max_of" | "min_of" => {
            let (a, b) = (
                ev.scalar(&call.args[0], grid)?,
                ev.scalar(&call.args[1], grid)?,
            );
            let pick = if name == "max_of" {
                math::max
            } else {
                math::min
            };
            Ok(Out::Scalar(
                a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect(),
            ))
        }
        "scalar" => {
            let block = ev.vector(&call.args[0], grid)?;
            Ok(Out::Scalar(
                (0..grid.steps).map(|s| only_float(&block, s)).collect(),
            ))
        }
        "vector" => {
            let values = ev.scalar(&call.args[0], grid)?;
            Ok(Out::Vector(nameless(values, grid)))
        }
        "timestamp" | "start_timestamp" => timestamps(ev, call, grid).map(Out::Vector),
        _ if dates::is_date_function(name) => date(ev, call, grid).map(Out::Vector),
        _ => over_vector(ev, call, span, grid).map(Out::Vector),
    }
}

fn nameless(values: Vec<f64>, grid: Grid) -> Block {
    let mut block = Block::new(grid.steps);
    block.push_series(Meta {
        labels: model::Labels::empty(),
        drop_name: false,
    });
    block.floats = values;
    block
}

/// The one float of a step, NaN when there is none or more than one.
fn only_float(block: &Block, step: usize) -> f64 {
    let mut floats = (0..block.len())
        .map(|s| block.row(s)[step])
        .filter(|v| !super::block::is_absent(*v));
    match (floats.next(), floats.next()) {
        (Some(v), None) => v,
        _ => f64::NAN,
    }
}

fn date(ev: &Evaluator<'_>, call: &Call, grid: Grid) -> Evaluated<Block> {
    let name = call.function.name;
    match call.args.first() {
        None => {
            let values = grid
                .times()
                .map(|t| dates::part(name, t.div_euclid(1000) as f64))
                .collect();
            Ok(nameless(values, grid))
        }
        Some(arg) => Ok(math::map(ev.vector(arg, grid)?, |_, v| {
            dates::part(name, v)
        })),
    }
}

/// Functions from a vector, and scalars, to a vector.
fn over_vector(ev: &Evaluator<'_>, call: &Call, span: Span, grid: Grid) -> Evaluated<Block> {
    let name = call.function.name;
    if name.starts_with("histogram_") {
        return histfn::call(ev, call, grid);
    }
    let mut block = ev.vector(&call.args[0], grid)?;
    if let Some(f) = math::unary(name) {
        return Ok(math::map(block, |_, v| f(v)));
    }
    if name.starts_with("sort") && grid.steps > 1 {
        ev.notes.add(Note::SortInRange, span);
    }
    match name {
        "round" => {
            let to = match call.args.get(1) {
                Some(to) => ev.scalar(to, grid)?,
                None => vec![1.0; grid.steps],
            };
            Ok(math::map(block, |step, v| math::round(v, to[step])))
        }
        "clamp" | "clamp_min" | "clamp_max" => clamp(ev, call, block, grid),
        "absent" => Ok(absent(&block, call, grid)),
        "sort" | "sort_desc" => {
            math::drop_hists(&mut block);
            if grid.steps > 1 {
                return Ok(block);
            }
            let descending = name == "sort_desc";
            Ok(reorder(&block, |a, b| {
                let (a, b) = (block.row(a)[0], block.row(b)[0]);
                match (a.is_nan(), b.is_nan()) {
                    (false, false) if descending => b.total_cmp(&a),
                    (false, false) => a.total_cmp(&b),
                    (x, y) => x.cmp(&y),
                }
            }))
        }
        "sort_by_label" | "sort_by_label_desc" if grid.steps == 1 => Ok(labelfn::sort_by_label(
            &block,
            call,
            name == "sort_by_label_desc",
        )),
        "sort_by_label" | "sort_by_label_desc" => Ok(block),
        _ => Err(QueryError::Execution(format!(
            "function {name:?} is not implemented"
        ))),
    }
}

fn clamp(ev: &Evaluator<'_>, call: &Call, block: Block, grid: Grid) -> Evaluated<Block> {
    let name = call.function.name;
    let bound = |i: usize| ev.scalar(&call.args[i], grid);
    let (low, high) = match name {
        "clamp" => (bound(1)?, bound(2)?),
        "clamp_min" => (bound(1)?, vec![f64::INFINITY; grid.steps]),
        _ => (vec![f64::NEG_INFINITY; grid.steps], bound(1)?),
    };
    let mut out = math::map(block, |step, v| {
        if high[step] < low[step] {
            ABSENT
        } else {
            math::max(low[step], math::min(high[step], v))
        }
    });
    out.drop_empty();
    Ok(out)
}

fn absent(block: &Block, call: &Call, grid: Grid) -> Block {
    let values = (0..grid.steps)
        .map(|step| {
            let any = (0..block.len()).any(|s| block.present(s, step));
            if any { ABSENT } else { 1.0 }
        })
        .collect();
    let mut out = nameless(values, grid);
    out.series[0].labels = absent_labels(&call.args[0]);
    out.drop_empty();
    out
}

/// timestamp and start_timestamp: of the sample itself when the argument is a selector.
fn timestamps(ev: &Evaluator<'_>, call: &Call, grid: Grid) -> Evaluated<Block> {
    let start = call.function.name == "start_timestamp";
    let ExprKind::Selector(s) = &call.args[0].unparen().kind else {
        let mut block = ev.vector(&call.args[0], grid)?;
        if start {
            return Ok(Block::new(grid.steps));
        }
        for series in 0..block.len() {
            for (step, t) in grid.times().enumerate() {
                if block.present(series, step) {
                    block.set(series, step, Cell::Float(t as f64 / 1000.0));
                }
            }
        }
        block.hists.clear();
        block.series.iter_mut().for_each(|m| m.drop_name = true);
        return Ok(block);
    };
    let series = ev.read_instants(&s.all_matchers(), &s.modifiers, false, grid)?;
    ev.check_size(series.len().saturating_mul(grid.steps))?;
    let mut block = Block::new(grid.steps);
    for data in series {
        ev.tick(grid.steps + data.points.len())?;
        let at = block.push_series(Meta {
            labels: data.labels.clone(),
            drop_name: true,
        });
        ev.look_back(&data.points, &s.modifiers, grid, |step, i| {
            let t = if start {
                data.points.start(i)
            } else {
                data.points.t_ms[i]
            };
            block.set_float(at, step, t as f64 / 1000.0);
        });
        block.pop_if_empty();
    }
    Ok(block)
}

/// The windows that a function sweeps over.
struct Windows<'e> {
    modifiers: &'e Modifiers,
    range_ms: i64,
    extension: Extension,
}

/// Whether a call computes each series of its result from the windows of one series.
pub(crate) fn is_sweep(call: &Call) -> bool {
    call.function.name != "absent_over_time"
        && (call.args.iter()).any(|a| a.value_type() == ValueType::Matrix)
}

/// Functions over windows.
fn over_ranges(ev: &Evaluator<'_>, call: &Call, arg_at: usize, grid: Grid) -> Evaluated<Block> {
    let mut block = Block::new(grid.steps);
    sweep_rows(ev, call, grid, &mut |labels, drop_name, row| {
        ev.check_size((block.len() + 1).saturating_mul(grid.steps))?;
        block.push_row(labels, drop_name, row);
        Ok(())
    })?;
    if call.function.name == "absent_over_time" {
        let mut out = absent(&block, call, grid);
        if let Some(meta) = out.series.first_mut() {
            meta.labels = absent_labels(&call.args[arg_at]);
        }
        return Ok(out);
    }
    Ok(block)
}

/// The same, row by row.
pub(crate) fn sweep_rows(
    ev: &Evaluator<'_>,
    call: &Call,
    grid: Grid,
    sink: &mut Sink<'_>,
) -> Evaluated<()> {
    let name = call.function.name;
    let is_range = |a: &&Expr| a.value_type() == ValueType::Matrix;
    let Some(arg) = call.args.iter().find(is_range) else {
        return Err(QueryError::execution("expected a range vector"));
    };
    let mut scalars: Vec<Vec<f64>> = Vec::new();
    for other in call.args.iter().filter(|a| !is_range(a)) {
        scalars.push(ev.scalar(other, grid)?);
    }
    let (modifiers, range, extension) = match &arg.unparen().kind {
        ExprKind::Matrix(m) => (&m.selector.modifiers, &m.range, m.selector.extension),
        ExprKind::Subquery(s) => (&s.modifiers, &s.range, Extension::None),
        _ => return Err(QueryError::execution("expected a range vector")),
    };
    extended::check_function(extension, name)?;
    let sweep = Sweep::new(
        ev,
        name,
        grid,
        arg.span,
        Windows {
            modifiers,
            range_ms: range.literal_ms().unwrap_or(0),
            extension,
        },
        &scalars,
    );
    let keeps_name = matches!(name, "last_over_time" | "first_over_time");
    let counts = matches!(name, "rate" | "increase");
    let mut row = Row::new(grid.steps);
    let mut noted = String::new();
    let mut each = |samples: &mut Samples| {
        ev.tick(grid.steps)?;
        let scope = Scope {
            notes: ev.notes,
            span: arg.span,
            name: samples.labels.name(),
            range_s: sweep.windows.range_ms as f64 / 1000.0,
        };
        row.clear();
        let floats = sweep.run(samples, &scope, &mut row)?;
        // What there is to say of a name is said once.
        if floats && counts && (ev.options.experimental || noted != scope.name) {
            counter_note(ev, samples, &scope);
            noted.clear();
            noted.push_str(scope.name);
        }
        if row.is_empty() {
            return Ok(());
        }
        sink(&samples.labels, samples.drop_name || !keeps_name, &mut row)
    };
    match &arg.unparen().kind {
        ExprKind::Matrix(m) => ev.each_range(m, grid, each),
        ExprKind::Subquery(s) => (ev.subquery(s, grid)?.0.iter_mut()).try_for_each(&mut each),
        _ => Ok(()),
    }
}

/// Tells when a metric does not look like a counter.
fn counter_note(ev: &Evaluator<'_>, samples: &Samples, scope: &Scope<'_>) {
    let name = scope.name;
    if name.is_empty() {
        return;
    }
    if ev.options.experimental
        && let Some(kind) = samples.labels.get("__type__")
    {
        if kind != "counter" && kind != "histogram" {
            ev.notes.add(
                Note::MaybeNotCounterType(name.to_owned(), kind.to_owned()),
                scope.span,
            );
        }
        return;
    }
    let suffixes = ["_total", "_sum", "_count", "_bucket"];
    if !suffixes.iter().any(|s| name.ends_with(s)) {
        scope.note(Note::MaybeNotCounter);
    }
}

/// One function's way over the windows of any series.
struct Sweep<'a> {
    ev: &'a Evaluator<'a>,
    name: &'static str,
    windows: Windows<'a>,
    grid: Grid,
    /// How far beyond the window samples are handed out, before and after.
    reach: (i64, i64),
    starts: bool,
    scalars: &'a [Vec<f64>],
    /// Whether drops are counted beforehand.
    drops: bool,
    /// The quick way for series of floats without start times, where there is one.
    quick: Option<(Kind, Edges)>,
    call_span: Span,
}

// === impl Sweep ===

impl<'a> Sweep<'a> {
    fn new(
        ev: &'a Evaluator<'a>,
        name: &'static str,
        grid: Grid,
        call_span: Span,
        windows: Windows<'a>,
        scalars: &'a [Vec<f64>],
    ) -> Self {
        let kind = match name {
            "rate" => Some((true, true)),
            "increase" => Some((true, false)),
            "delta" => Some((false, false)),
            _ => None,
        };
        let kind = kind.filter(|_| windows.extension == Extension::None);
        let quick = kind.and_then(|(counter, per_second)| {
            let edges = Edges::new(windows.modifiers, grid, windows.range_ms)?;
            let kind = Kind {
                counter,
                per_second,
            };
            Some((kind, edges))
        });
        Sweep {
            ev,
            name,
            grid,
            reach: ev.reach(windows.extension),
            starts: ev.options.experimental
                && matches!(name, "rate" | "irate" | "increase" | "resets"),
            scalars,
            drops: matches!(name, "rate" | "increase") && grid.steps > 4,
            quick,
            call_span,
            windows,
        }
    }

    /// Fills a row; whether any value was a float.
    fn run(&self, samples: &Samples, scope: &Scope<'_>, row: &mut Row) -> Evaluated<bool> {
        let without_starts = !self.starts || samples.float_start.is_empty();
        if let Some((kind, edges)) = self.quick
            && samples.hist_t.is_empty()
            && without_starts
        {
            let (times, values) = (&samples.float_t, &samples.floats);
            return Ok(sweep::rates(times, values, edges, kind, &mut row.floats));
        }
        let drops = if self.drops {
            count_drops(&samples.floats)
        } else {
            Vec::new()
        };
        let (mut floats, mut hists) = (Cursor::default(), Cursor::default());
        let mut any_float = false;
        let column = |c: &[i64], r: &std::ops::Range<usize>| -> std::ops::Range<usize> {
            if self.starts && !c.is_empty() {
                r.clone()
            } else {
                0..0
            }
        };
        for step in 0..self.grid.steps {
            let t_ms = self.grid.at(step);
            let to = reference(self.windows.modifiers, t_ms);
            let from = to.saturating_sub(self.windows.range_ms);
            let (low, high) = (
                from.saturating_sub(self.reach.0 + version2::earlier_ms()),
                to.saturating_add(self.reach.1),
            );
            let f = floats.seek(&samples.float_t, low, high);
            let h = hists.seek(&samples.hist_t, low, high);
            if f.is_empty() && h.is_empty() {
                continue;
            }
            self.ev.tick(f.len() + h.len())?;
            let has_drop = (self.drops && !f.is_empty()).then(|| drops[f.end - 1] > drops[f.start]);
            let window = Window {
                float_t: &samples.float_t[f.clone()],
                floats: &samples.floats[f.clone()],
                float_start: &samples.float_start[column(&samples.float_start, &f)],
                hist_t: &samples.hist_t[h.clone()],
                hists: &samples.hists[h.clone()],
                hist_start: &samples.hist_start[column(&samples.hist_start, &h)],
                from,
                to,
                t_ms,
                has_drop,
            };
            let cell = self.apply(&window, scope, step)?;
            any_float |= matches!(cell, Cell::Float(_));
            row.set(step, cell);
        }
        Ok(any_float)
    }

    fn scalar(&self, index: usize, step: usize) -> f64 {
        self.scalars
            .get(index)
            .and_then(|s| s.get(step))
            .copied()
            .unwrap_or(f64::NAN)
    }

    fn apply(&self, w: &Window<'_>, scope: &Scope<'_>, step: usize) -> Evaluated<Cell> {
        let kind = |counter, per_second| Kind {
            counter,
            per_second,
        };
        let extended = self.windows.extension != Extension::None;
        let extrapolate = |k: Kind| {
            if extended {
                extended::rate(w, scope, k, self.windows.extension == Extension::Smoothed)
            } else {
                rate::extrapolated(w, scope, k)
            }
        };
        Ok(match self.name {
            "rate" => extrapolate(kind(true, true)),
            "increase" => extrapolate(kind(true, false)),
            "delta" => extrapolate(kind(false, false)),
            "irate" => rate::instant(w, scope, true),
            "idelta" => rate::instant(w, scope, false),
            "sum_over_time" => over_time::sum_or_avg(w, scope, false),
            "avg_over_time" => over_time::sum_or_avg(w, scope, true),
            "count_over_time" => Cell::Float((w.floats.len() + w.hists.len()) as f64),
            "min_over_time" => over_time::extreme(w, scope, |a, b| a < b, false),
            "max_over_time" => over_time::extreme(w, scope, |a, b| a > b, false),
            "ts_of_min_over_time" => over_time::extreme(w, scope, |a, b| a <= b, true),
            "ts_of_max_over_time" => over_time::extreme(w, scope, |a, b| a >= b, true),
            "first_over_time" => over_time::edge(w, false),
            "last_over_time" => over_time::edge(w, true),
            "ts_of_first_over_time" => over_time::edge_time(w, false),
            "ts_of_last_over_time" => over_time::edge_time(w, true),
            "present_over_time" | "absent_over_time" => Cell::Float(1.0),
            "stddev_over_time" => over_time::variance(w, scope, true),
            "stdvar_over_time" => over_time::variance(w, scope, false),
            "mad_over_time" => over_time::mad(w, scope),
            "deriv" => over_time::trend(w, scope, None),
            "predict_linear" => over_time::trend(w, scope, Some(self.scalar(0, step))),
            "resets" => over_time::count_pairs(w, self.windows.extension, false),
            "changes" => over_time::count_pairs(w, self.windows.extension, true),
            "quantile_over_time" => {
                let q = self.scalar(0, step);
                if !w.floats.is_empty() && !(0.0..=1.0).contains(&q) {
                    scope
                        .notes
                        .add(Note::InvalidQuantile(q), self.quantile_span());
                }
                over_time::quantile_of(w, scope, q)
            }
            "double_exponential_smoothing" => {
                let (level, trend) = (self.scalar(0, step), self.scalar(1, step));
                for (what, v) in [("smoothing", level), ("trend", trend)] {
                    if v <= 0.0 || v >= 1.0 {
                        let short = if what == "smoothing" { "sf" } else { "tf" };
                        return Err(QueryError::Execution(format!(
                            "invalid {what} factor. Expected: 0 < {short} < 1, got: {v:.6}"
                        )));
                    }
                }
                over_time::double_exponential(w, scope, level, trend)
            }
            name => {
                return Err(QueryError::Execution(format!(
                    "function {name:?} is not implemented"
                )));
            }
        })
    }

    fn quantile_span(&self) -> Span {
        self.call_span
    }
}
