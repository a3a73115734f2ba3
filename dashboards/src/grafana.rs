//! Dashboards as Grafana JSON, with provisioning files.
//!
//! Owns Grafana's form (schema version 41, Grafana 12; older ones migrate what they read). Ids and uids are derived
//! from names, so that files do not change without cause. Must not know which dashboards there are.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::panel::{Dashboard, Kind, Level, Panel, Unit};

const SCHEMA_VERSION: u32 = 41;
const COLUMNS: u32 = 24;

/// The dashboard as Grafana imports or provisions it.
#[must_use]
pub fn render(dashboard: &Dashboard) -> Json {
    json!({
        "uid": format!("nines-{}", dashboard.name),
        "title": dashboard.title,
        "description": dashboard.help,
        "tags": ["nines"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "10s",
        "timezone": "utc",
        "time": {"from": dashboard.from, "to": "now"},
        "templating": {"list": [{
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
            "hide": 0,
            "refresh": 1,
        }]},
        "annotations": {"list": []},
        "links": [],
        "panels": panels(&dashboard.panels),
    })
}

/// Files that make a Grafana show all this on its own: (path below the provisioning directory, text).
#[must_use]
pub fn provisioning() -> Vec<(PathBuf, String)> {
    let datasource = "apiVersion: 1\ndatasources:\n  - name: nines\n    uid: nines\n    type: prometheus\n    \
        access: proxy\n    url: http://127.0.0.1:9909\n    isDefault: true\n    jsonData:\n      \
        httpMethod: POST\n      prometheusType: Prometheus\n      timeInterval: 5s\n";
    let provider = "apiVersion: 1\nproviders:\n  - name: nines\n    folder: nines\n    type: file\n    \
        updateIntervalSeconds: 30\n    allowUiUpdates: false\n    options:\n      \
        path: /var/lib/grafana/dashboards/nines\n";
    vec![
        ("datasources/nines.yaml".into(), datasource.into()),
        ("dashboards/nines.yaml".into(), provider.into()),
    ]
}

/// Every file that is kept in the repository below `dashboards/grafana`: (path, text).
#[must_use]
pub fn files() -> Vec<(PathBuf, String)> {
    let boards = crate::all().into_iter().map(|d| {
        let text = format!("{:#}\n", render(&d));
        (PathBuf::from(format!("{}.json", d.name)), text)
    });
    let provisioned = provisioning().into_iter();
    let below = |(path, text): (PathBuf, String)| (PathBuf::from("provisioning").join(path), text);
    boards.chain(provisioned.map(below)).collect()
}

fn panels(all: &[Panel]) -> Vec<Json> {
    let (mut x, mut y, mut row_height) = (0, 0, 0);
    let mut out = Vec::new();
    for (index, panel) in all.iter().enumerate() {
        if x + panel.width > COLUMNS {
            (x, y, row_height) = (0, y + row_height, 0);
        }
        let place = json!({"h": panel.height, "w": panel.width, "x": x, "y": y});
        out.push(render_panel(panel, index + 1, &place));
        x += panel.width;
        row_height = row_height.max(panel.height);
    }
    out
}

fn render_panel(panel: &Panel, id: usize, place: &Json) -> Json {
    let (kind, options) = match panel.kind {
        Kind::Stat => (
            "stat",
            json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area", "colorMode": "value"}),
        ),
        Kind::TimeSeries => (
            "timeseries",
            json!({"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}),
        ),
        Kind::Table => ("table", json!({"showHeader": true, "cellHeight": "sm"})),
        Kind::Gauge => (
            "gauge",
            json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "showThresholdMarkers": true}),
        ),
        Kind::Heatmap => (
            "heatmap",
            json!({"calculate": false, "color": {"mode": "scheme", "scheme": "Oranges"}, "yAxis": {"unit": unit(panel.unit)}}),
        ),
    };
    let instant = matches!(panel.kind, Kind::Table);
    let targets: Vec<Json> = panel.queries.iter().zip('A'..='Z').map(|(q, letter)| json!({
        "refId": letter.to_string(),
        "datasource": source(),
        "expr": q.expr,
        "legendFormat": if q.legend.is_empty() { "__auto" } else { q.legend.as_str() },
        "format": match panel.kind { Kind::Table => "table", Kind::Heatmap => "heatmap", _ => "time_series" },
        "instant": instant,
        "range": !instant,
    })).collect();
    let mut defaults = json!({"unit": unit(panel.unit), "thresholds": {"mode": "absolute", "steps": steps(panel)}});
    if matches!(panel.kind, Kind::Gauge) && matches!(panel.unit, Unit::Ratio) {
        defaults["min"] = json!(0);
        defaults["max"] = json!(1);
    }
    json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": source(),
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets,
    })
}

fn source() -> Json {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn steps(panel: &Panel) -> Vec<Json> {
    if panel.thresholds.is_empty() {
        return vec![json!({"color": "blue", "value": null})];
    }
    let colour = |level| match level {
        Level::Good => "green",
        Level::Warning => "orange",
        Level::Critical => "red",
    };
    let step = |t: &crate::panel::Threshold| json!({"color": colour(t.level), "value": t.from});
    panel.thresholds.iter().map(step).collect()
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::None => "short",
        Unit::Ratio => "percentunit",
        Unit::Seconds => "s",
        Unit::PerSecond => "reqps",
        Unit::Bytes => "bytes",
        Unit::BytesPerSecond => "Bps",
    }
}
