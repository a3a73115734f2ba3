//! Owns one chart: lines, areas or stacks over the common axis, as SVG that stretches, with labels beside it. Pure.

use std::fmt::Write;

use serde_json::{Value, json};

use super::axis::Axis;
use super::esc;

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Draw {
    Line,
    Dashed,
    Area,
    /// On top of the series before it.
    Stack,
}

/// One series; NaN where nothing was measured.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) draw: Draw,
    /// Number of its colour.
    pub(super) colour: usize,
    pub(super) values: Vec<f64>,
}

/// One chart.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) note: String,
    /// `ms`, `%` (of 0 to 1), or what is counted.
    pub(super) unit: &'static str,
    pub(super) series: Vec<Series>,
    pub(super) low: bool,
    /// The top of the axis, when it is given by the unit.
    pub(super) top: Option<f64>,
}

/// The vertical axis.
enum Scale {
    Linear(f64),
    Log(f64, f64),
}

impl Scale {
    fn of(chart: &Chart, stacked: &[Vec<f64>]) -> Scale {
        let all = || stacked.iter().flatten().copied().filter(|v| v.is_finite());
        let most = all().fold(0.0, f64::max);
        let least = all().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        if chart.unit == "ms" && most > 20.0 * least {
            return Scale::Log(
                10_f64.powf(least.log10().floor()),
                10_f64.powf(most.log10().ceil()),
            );
        }
        Scale::Linear(chart.top.unwrap_or_else(|| nice(most)))
    }

    /// From 0 at the bottom to 1 at the top.
    fn place(&self, v: f64) -> f64 {
        let at = match self {
            Scale::Linear(top) => v / top,
            Scale::Log(low, high) => (v.max(*low) / low).ln() / (high / low).ln(),
        };
        at.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self {
            Scale::Linear(top) => (0..=4).map(|i| top * f64::from(i) / 4.0).collect(),
            Scale::Log(low, high) => {
                let decades = (high / low).log10().round() as i32;
                (0..=decades).map(|i| low * 10_f64.powi(i)).collect()
            }
        }
    }
}

/// A round number at or above this.
fn nice(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps
        .into_iter()
        .map(|s| s * power)
        .find(|s| *s >= most * 0.999)
        .unwrap_or(most)
}

fn tick(v: f64, unit: &str) -> String {
    let plain = |v: f64| match v {
        v if v >= 1e6 => format!("{}M", trim(v / 1e6)),
        v if v >= 10e3 => format!("{}k", trim(v / 1e3)),
        v => trim(v),
    };
    match unit {
        "ms" if v >= 1000.0 => format!("{} s", trim(v / 1e3)),
        "ms" => format!("{} ms", trim(v)),
        "%" => format!("{} %", trim(v * 100.0)),
        _ => plain(v),
    }
}

fn trim(v: f64) -> String {
    let text = format!("{v:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Chart {
    /// The chart's HTML and the data of its read-outs.
    pub(super) fn render(&self, axis: &Axis, number: usize) -> (String, Value) {
        let n = axis.points;
        let stacked = self.stacked(n);
        let scale = Scale::of(self, &stacked);
        let y = |v: f64| 100.0 - scale.place(v) * 100.0;
        let mut svg = String::new();
        if let Some((a, b)) = axis.stretch {
            let _ = write!(
                svg,
                "<rect class=\"stretch\" x=\"{:.2}\" y=\"0\" width=\"{:.2}\" height=\"100\"/>",
                a * n as f64,
                (b - a) * n as f64
            );
        }
        let mut labels = String::new();
        for t in scale.ticks() {
            let at = y(t);
            let _ = write!(svg, "<path class=\"gl\" d=\"M0 {at:.1}H{n}\"/>");
            let _ = write!(
                labels,
                "<span class=\"y\" style=\"top:{at:.1}%\">{}</span>",
                tick(t, self.unit)
            );
        }
        for (at, text) in axis.ticks() {
            let _ = write!(
                labels,
                "<span class=\"x\" style=\"left:{:.2}%\">{text}</span>",
                at * 100.0
            );
        }
        for (i, series) in self.series.iter().enumerate() {
            let k = series.colour % 8;
            match series.draw {
                Draw::Stack => {
                    let below = |at: usize| i.checked_sub(1).map_or(0.0, |b| stacked[b][at]);
                    let mut path = String::new();
                    for (at, high) in stacked[i].iter().enumerate() {
                        let low = below(at);
                        if *high > low {
                            let _ = write!(path, "M{at} {:.1}h.9V{:.1}h-.9z", y(low), y(*high));
                        }
                    }
                    let _ = write!(svg, "<path class=\"st k{k}\" d=\"{path}\"/>");
                }
                draw => {
                    let path = path(&series.values, &y);
                    if draw == Draw::Area {
                        let _ = write!(
                            svg,
                            "<path class=\"ar k{k}\" d=\"{}\"/>",
                            area(&series.values, &y)
                        );
                    }
                    let dash = if draw == Draw::Dashed { " dash" } else { "" };
                    let _ = write!(svg, "<path class=\"ln{dash} k{k}\" d=\"{path}\"/>");
                }
            }
        }
        let mut legend = String::new();
        for series in &self.series {
            let dash = if series.draw == Draw::Dashed {
                " dash"
            } else {
                ""
            };
            let _ = write!(
                legend,
                "<span class=\"k{}{dash}\">{}</span>",
                series.colour % 8,
                esc(&series.name)
            );
        }
        let log = if matches!(scale, Scale::Log(..)) {
            " · log scale"
        } else {
            ""
        };
        let html = format!(
            "<div class=\"card\"><h3>{title}</h3><div class=\"soft small\">{note}{log}</div><div class=\"legend\">{legend}</div>\
             <div class=\"plot{low}\" data-c=\"{number}\" role=\"group\" aria-label=\"{title}: {summary}\"><svg viewBox=\"0 0 {n} 100\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{svg}</svg>{labels}<div class=\"cur\"></div><div class=\"tip\"></div></div></div>\n",
            title = esc(&self.title),
            note = esc(&self.note),
            low = if self.low { " low" } else { "" },
            summary = esc(&self.summary()),
        );
        let series = self.series.iter().map(
            |s| json!({"n": s.name.chars().map(super::visible).collect::<String>(), "v": s.values.iter().map(|v| rounded(*v)).collect::<Vec<_>>()}),
        );
        let stack = self.series.iter().any(|s| s.draw == Draw::Stack);
        (
            html,
            json!({"u": self.unit, "stack": stack, "s": series.collect::<Vec<_>>()}),
        )
    }

    /// The values as drawn: stacks added up.
    fn stacked(&self, n: usize) -> Vec<Vec<f64>> {
        let mut out: Vec<Vec<f64>> = Vec::new();
        for series in &self.series {
            let mut values = series.values.clone();
            values.resize(n, f64::NAN);
            if series.draw == Draw::Stack {
                let below = out.last();
                for (i, v) in values.iter_mut().enumerate() {
                    let v_or_zero = if v.is_finite() { *v } else { 0.0 };
                    *v = below.map_or(0.0, |b| b[i]) + v_or_zero;
                }
            }
            out.push(values);
        }
        out
    }

    /// Least and most of each series, for those who do not see it.
    fn summary(&self) -> String {
        let each = self.series.iter().map(|s| {
            let finite = || s.values.iter().copied().filter(|v| v.is_finite());
            let (low, high) = (
                finite().fold(f64::INFINITY, f64::min),
                finite().fold(f64::NEG_INFINITY, f64::max),
            );
            if low > high {
                return format!("{} not measured", s.name);
            }
            format!(
                "{} {} to {}",
                s.name,
                tick(low, self.unit),
                tick(high, self.unit)
            )
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

fn rounded(v: f64) -> Value {
    if !v.is_finite() {
        return Value::Null;
    }
    let digits = if v.abs() >= 100.0 { 1.0 } else { 1000.0 };
    json!((v * digits).round() / digits)
}

/// A line with gaps where there is nothing.
fn path(values: &[f64], y: &impl Fn(f64) -> f64) -> String {
    let mut out = String::new();
    let mut pen = 'M';
    for (i, v) in values.iter().enumerate() {
        if v.is_finite() {
            let alone = pen == 'M' && !values.get(i + 1).is_some_and(|v| v.is_finite());
            let _ = write!(out, "{pen}{i}.5 {:.1}", y(*v));
            if alone {
                out += "h.01";
            }
            pen = 'L';
        } else {
            pen = 'M';
        }
    }
    out
}

fn area(values: &[f64], y: &impl Fn(f64) -> f64) -> String {
    let mut out = String::new();
    let mut i = 0;
    while i < values.len() {
        let run = values[i..].iter().take_while(|v| v.is_finite()).count();
        if run > 1 {
            let _ = write!(out, "M{i}.5 100");
            for (j, v) in values[i..i + run].iter().enumerate() {
                let _ = write!(out, "L{}.5 {:.1}", i + j, y(*v));
            }
            let _ = write!(out, "V100z");
        }
        i += run.max(1);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, top) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (99.0, 100.0),
            (101.0, 120.0),
            (0.033, 0.04),
            (7.0, 8.0),
        ] {
            assert!((nice(most) - top).abs() < 1e-9, "{most}: {}", nice(most));
        }
        assert_eq!(
            [tick(1500.0, "ms"), tick(0.25, "%"), tick(12_500.0, "")],
            ["1.5 s", "25 %", "12.5k"]
        );
    }

    #[test]
    fn a_line_has_gaps_where_nothing_was_measured() {
        let y = |v: f64| v;
        assert_eq!(
            path(&[1.0, 2.0, f64::NAN, 3.0], &y),
            "M0.5 1.0L1.5 2.0M3.5 3.0h.01"
        );
        assert_eq!(
            area(&[1.0, 2.0, f64::NAN, 3.0], &y),
            "M0.5 100L0.5 1.0L1.5 2.0V100z"
        );
    }
}
