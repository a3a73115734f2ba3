//! What a dashboard needs: each panel's queries, in the form its kind wants.
//!
//! Owns that choice and legends. Must not know how panels are drawn.

use dashboards::{Dashboard, Kind, Panel, Query};
use futures_util::future::join_all;
use model::labels::Labels;

use super::Asker;
use crate::data::{Board, Line, PanelData};
use crate::heat::Heat;

/// Series and rows of one panel at most.
const MOST: usize = 40;

/// The dashboards, made once.
pub(crate) fn all() -> &'static [Dashboard] {
    static ALL: std::sync::OnceLock<Vec<Dashboard>> = std::sync::OnceLock::new();
    ALL.get_or_init(dashboards::all)
}

/// The dashboard of a number, which wraps.
pub(crate) fn numbered(number: usize) -> Option<&'static Dashboard> {
    all().get(number % all().len().max(1))
}

pub(super) async fn fetch(ask: &Asker<'_>, number: usize) -> Option<Board> {
    let board = numbered(number)?;
    let panels = join_all(board.panels.iter().map(|p| panel(ask, p))).await;
    Some(Board {
        name: board.name.to_owned(),
        panels,
    })
}

async fn panel(ask: &Asker<'_>, panel: &Panel) -> PanelData {
    let mut out = PanelData {
        title: panel.title.to_owned(),
        ..PanelData::default()
    };
    match panel.kind {
        Kind::Heatmap => out.heat = heat(ask, panel).await,
        Kind::TimeSeries => {
            let asked = panel.queries.iter().map(|q| lines(ask, q));
            out.series = join_all(asked).await.into_iter().flatten().collect();
            out.series.truncate(MOST);
        }
        Kind::Stat | Kind::Gauge | Kind::Table => {
            let asked = panel.queries.iter().map(|q| values(ask, q));
            out.values = join_all(asked).await.into_iter().flatten().collect();
            if panel.kind == Kind::Table {
                out.values.sort_by(|a, b| b.1.total_cmp(&a.1));
            }
            out.values.truncate(MOST);
        }
    }
    out
}

async fn lines(ask: &Asker<'_>, query: &Query) -> Vec<(String, Line)> {
    let found = ask.lines(query.promql(ask.window)).await;
    let named = found.into_iter();
    named
        .map(|(l, line)| (legend(&query.legend, &l), line))
        .collect()
}

async fn values(ask: &Asker<'_>, query: &Query) -> Vec<(String, f64)> {
    let found = ask.rows(&query.promql(ask.window)).await;
    let named = found.into_iter();
    let all = named.map(|(l, v)| (legend(&query.legend, &l), v));
    without_filler(all.collect())
}

/// Without the nameless 0 that a query gives so that a panel is not empty, unless it is all there is.
fn without_filler<T>(mut all: Vec<(String, T)>) -> Vec<(String, T)> {
    if all.iter().any(|(name, _)| !name.is_empty()) {
        all.retain(|(name, _)| !name.is_empty());
    }
    all
}

async fn heat(ask: &Asker<'_>, panel: &Panel) -> Option<Heat> {
    let query = panel.queries.first()?;
    let step_ms = crate::heat::step_ms(ask.range_ms);
    let end_ms = ask.t_ms.div_euclid(step_ms) * step_ms;
    let start_ms = end_ms - (crate::heat::COLUMNS - 1) * step_ms;
    let text = query.promql(ask.window);
    let rows = ask.matrix(&text, start_ms, end_ms, step_ms).await;
    let mut out = Heat {
        name: panel.title.to_owned(),
        from: "classic".into(),
        end_ms,
        step_ms,
        columns: vec![None; crate::heat::COLUMNS as usize],
    };
    super::by_column(rows, &mut out, start_ms).then_some(out)
}

/// `{{label}}` replaced by values; without any text, all labels.
fn legend(text: &str, labels: &Labels) -> String {
    if text.is_empty() {
        let all: Vec<String> = labels
            .iter()
            .filter(|(n, _)| *n != "__name__")
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        return all.join(" ");
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        match after.split_once("}}") {
            Some((name, after)) => {
                out.push_str(labels.get(name.trim()).unwrap_or_default());
                rest = after;
            }
            None => {
                out.push_str("{{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legends_take_values_of_labels() {
        let labels = Labels::from_pairs([("__name__", "x"), ("a", "1"), ("b", "2")]);
        assert_eq!(legend("{{a}} > {{b}}", &labels), "1 > 2");
        assert_eq!(legend("{{none}} {{b}}", &labels), "2");
        assert_eq!(legend("", &labels), "a=1 b=2");
        assert_eq!(legend("p99 {{", &labels), "p99 {{");
        let named = |all: &[&str]| all.iter().map(|n| ((*n).to_owned(), 0)).collect();
        assert_eq!(without_filler(named(&["", "a"])).len(), 1);
        assert_eq!(without_filler(named(&[""])).len(), 1);
    }

    #[test]
    fn there_are_four_dashboards_and_numbers_wrap() {
        assert_eq!(all().len(), 4);
        assert_eq!(numbered(5).map(|b| b.name), numbered(1).map(|b| b.name));
    }
}
