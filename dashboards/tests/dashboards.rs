//! Every query parses; ids are unique and the grid has no overlap; the files in the repository are what is rendered.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use std::collections::BTreeSet;
use std::path::Path;

use dashboards::queries::{self, load, red, usage};

#[test]
fn every_query_parses() {
    let mut texts: Vec<String> = dashboards::all()
        .iter()
        .flat_map(|d| &d.panels)
        .flat_map(|p| &p.queries)
        .map(|q| q.promql("1m"))
        .collect();
    texts.extend([
        queries::traffic("5s"),
        queries::errors("5s"),
        queries::error_ratio("5s"),
        queries::availability("5s"),
        queries::burn_rate(0.999, "5s"),
        queries::latency(0.99, "5s"),
        queries::within("0.3", "5s"),
        queries::cache_hit_ratio("5s"),
        queries::pool_utilization(),
        queries::utilization_of("cpu"),
        red::error_ratio(red::By::Route, "5s"),
        red::latency(red::By::Service, 0.5, "5s"),
        usage::utilization(),
        usage::saturation(),
        usage::errors("5s"),
        load::offered(),
        load::achieved(),
        load::in_flight(),
        load::latency(0.5, "5s"),
        load::service_time(0.5, "5s"),
        load::by_status("5s"),
        load::errors("5s"),
        load::late(),
    ]);
    for text in texts {
        if let Err(error) = promql::parse(&text) {
            panic!("{text}\n{error}");
        }
    }
}

#[test]
fn panels_have_titles_of_their_own_and_do_not_overlap() {
    for board in dashboards::all() {
        let titles: BTreeSet<_> = board.panels.iter().map(|p| p.title).collect();
        assert_eq!(titles.len(), board.panels.len(), "{}", board.name);
        assert!(
            board
                .panels
                .iter()
                .all(|p| !p.queries.is_empty() && !p.help.is_empty())
        );
        let json = dashboards::grafana::render(&board);
        let mut cells = BTreeSet::new();
        for panel in json["panels"].as_array().unwrap() {
            let at = |k: &str| panel["gridPos"][k].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(x < 24 && cells.insert((x, y)), "{} {panel}", board.name);
                }
            }
        }
    }
}

/// Set `UPDATE_FILES=1` to write them.
#[test]
fn files_in_the_repository_are_what_is_rendered() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    for (path, text) in dashboards::grafana::files() {
        let path = root.join(path);
        if std::env::var_os("UPDATE_FILES").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "{} has drifted: run the test with UPDATE_FILES=1",
            path.display()
        );
    }
}
