//! What a dashboard is made of.
//!
//! Owns the types. Must not know which dashboards there are, nor Grafana.

/// Grafana's variable for a window that holds enough scrapes; [`Query::promql`] puts a real one in its place.
pub const RATE_INTERVAL: &str = "$__rate_interval";

/// How a panel shows its queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One big number.
    Stat,
    /// Lines over time.
    TimeSeries,
    /// Rows of the present.
    Table,
    /// A number between bounds.
    Gauge,
    /// Counts by bucket over time.
    Heatmap,
}

/// What the numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nothing but a number.
    None,
    /// 0 to 1, shown as percent.
    Ratio,
    /// Seconds.
    Seconds,
    /// Per second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
}

/// How bad a value is from a threshold on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

/// From `from` upwards the value is `level`. The first one of a panel has no lower bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Inclusive lower bound; `None` for everything below the next one.
    pub from: Option<f64>,
    /// What it says.
    pub level: Level,
}

/// One query of a panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The legend, with `{{label}}` in it.
    pub legend: String,
    /// PromQL, in which [`RATE_INTERVAL`] may stand for a window.
    pub expr: String,
}

// === impl Query ===

impl Query {
    /// The query as plain PromQL, with `window` (such as `1m`) for Grafana's variable.
    #[must_use]
    pub fn promql(&self, window: &str) -> String {
        self.expr.replace(RATE_INTERVAL, window)
    }
}

/// One panel.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Its title, unique in its dashboard.
    pub title: &'static str,
    /// What to do with what it shows.
    pub help: &'static str,
    /// How it is shown.
    pub kind: Kind,
    /// What its numbers mean.
    pub unit: Unit,
    /// Its queries, at least one.
    pub queries: Vec<Query>,
    /// Thresholds, ascending; empty for none.
    pub thresholds: Vec<Threshold>,
    /// Width in columns of 24.
    pub width: u32,
    /// Height in Grafana's rows of 30 pixels.
    pub height: u32,
}

/// One dashboard; panels flow from left to right, and wrap.
#[derive(Debug, Clone, PartialEq)]
pub struct Dashboard {
    /// Its name in files and URLs.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Who reads it, and to decide what.
    pub help: &'static str,
    /// How far back it looks at first, as in Grafana (`now-1h`).
    pub from: &'static str,
    /// Its panels.
    pub panels: Vec<Panel>,
}

// === impl Panel ===

impl Panel {
    pub(crate) fn new(title: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Self {
        let (width, height) = match kind {
            Kind::Stat | Kind::Gauge => (6, 5),
            Kind::TimeSeries | Kind::Heatmap | Kind::Table => (12, 8),
        };
        Panel {
            title,
            help,
            kind,
            unit,
            queries: Vec::new(),
            thresholds: Vec::new(),
            width,
            height,
        }
    }

    pub(crate) fn query(mut self, legend: &str, expr: String) -> Self {
        self.queries.push(Query {
            legend: legend.to_owned(),
            expr,
        });
        self
    }

    pub(crate) fn wide(mut self) -> Self {
        self.width = 24;
        self
    }

    /// More is worse: warning and critical from these values on.
    pub(crate) fn worse_above(mut self, warning: f64, critical: f64) -> Self {
        let at = |from, level| Threshold { from, level };
        self.thresholds = vec![
            at(None, Level::Good),
            at(Some(warning), Level::Warning),
            at(Some(critical), Level::Critical),
        ];
        self
    }

    /// Less is worse: critical below the first value, warning below the second.
    pub(crate) fn worse_below(mut self, critical: f64, warning: f64) -> Self {
        let at = |from, level| Threshold { from, level };
        self.thresholds = vec![
            at(None, Level::Critical),
            at(Some(critical), Level::Warning),
            at(Some(warning), Level::Good),
        ];
        self
    }
}
