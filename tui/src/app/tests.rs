//! Events and what they change.
//!
//! Owns examples of use. Must not know drawing.

use super::*;
use crate::fixture;

fn press(app: &mut App, c: char) -> Vec<Effect> {
    update(app, Event::Key(KeyCode::Char(c), KeyModifiers::NONE))
}

fn requested(effects: &[Effect]) -> &Request {
    match effects {
        [Effect::Fetch(request)] => request,
        other => panic!("no fetch in {other:?}"),
    }
}

#[test]
fn retries_back_off_to_five_seconds_and_recover() {
    let mut app = App::new(TuiOptions::default());
    let mut now = 1_000_000;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let number = requested(&update(&mut app, Event::Tick(now))).number;
        assert!(
            update(&mut app, Event::Tick(now)).is_empty(),
            "one at a time"
        );
        update(
            &mut app,
            Event::Answer {
                number,
                now_ms: now,
                result: Err("no".into()),
            },
        );
        let Link::Down { retry_ms, .. } = app.link else {
            panic!("up")
        };
        waits.push(retry_ms - now);
        assert!(update(&mut app, Event::Tick(retry_ms - 1)).is_empty());
        now = retry_ms;
    }
    let longest = [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000];
    for (wait, longest) in waits.iter().zip(longest) {
        assert!((longest / 2..=longest).contains(wait), "{waits:?}");
    }
    let number = requested(&update(&mut app, Event::Tick(now))).number;
    let result = Ok(Box::new(fixture::data()));
    update(
        &mut app,
        Event::Answer {
            number,
            now_ms: now,
            result,
        },
    );
    assert_eq!(app.link, Link::Up);
}

#[test]
fn time_can_be_paused_scrubbed_and_left() {
    let mut app = fixture::app(TuiOptions::default());
    let now = app.now_ms;
    press(&mut app, ' ');
    assert_eq!(app.mode, Mode::Paused(now));
    assert!(
        update(&mut app, Event::Tick(now + 60_000)).is_empty(),
        "paused data stays"
    );
    let effects = press(&mut app, 'h');
    assert_eq!(requested(&effects).at_ms, Some(now - 45_000));
    press(&mut app, ']');
    assert_eq!(app.range_ms, 3_600_000);
    assert_eq!(requested(&press(&mut app, '.')).at_ms, None);
    assert_eq!(app.mode, Mode::Live);
}

#[test]
fn a_filter_takes_letters_that_are_keys_elsewhere() {
    let mut app = fixture::app(TuiOptions::default());
    for c in "/q1".chars() {
        assert!(press(&mut app, c).is_empty());
    }
    assert_eq!(app.filter, "q1");
    update(&mut app, Event::Key(KeyCode::Esc, KeyModifiers::NONE));
    assert!(app.filter.is_empty() && !app.typing);
    assert_eq!(press(&mut app, 'q'), [Effect::Quit]);
}

#[test]
fn old_answers_are_not_shown() {
    let mut app = App::new(TuiOptions::default());
    let old = requested(&update(&mut app, Event::Tick(1_000))).number;
    let new = requested(&press(&mut app, '2')).number;
    let data = || Ok(Box::new(fixture::data()));
    update(
        &mut app,
        Event::Answer {
            number: old,
            now_ms: 1_001,
            result: data(),
        },
    );
    assert!(app.data.is_none());
    update(
        &mut app,
        Event::Answer {
            number: new,
            now_ms: 1_002,
            result: data(),
        },
    );
    assert!(app.data.is_some());
    assert!(app.exit_status().pages && app.exit_status().code() == 3);
}

#[test]
fn a_trace_opens_and_closes() {
    let mut app = fixture::app(TuiOptions::default());
    press(&mut app, '5');
    update(&mut app, Event::Key(KeyCode::Down, KeyModifiers::NONE));
    let effects = update(&mut app, Event::Key(KeyCode::Enter, KeyModifiers::NONE));
    assert_eq!(
        requested(&effects).trace,
        Some(fixture::data().traces[1].trace_id)
    );
    update(&mut app, Event::Key(KeyCode::Esc, KeyModifiers::NONE));
    assert_eq!(app.trace, None);
}

#[test]
fn an_exemplar_and_a_record_lead_to_their_trace_and_back_to_its_records() {
    let mut app = fixture::app(TuiOptions {
        screen: Screen::Latency,
        ..TuiOptions::default()
    });
    update(&mut app, Event::Key(KeyCode::Down, KeyModifiers::NONE));
    let enter = Event::Key(KeyCode::Enter, KeyModifiers::NONE);
    let effects = update(&mut app, enter.clone());
    assert_eq!(app.screen, Screen::Traces);
    let opened = app.trace.unwrap();
    assert_eq!(opened, fixture::data().exemplars[1].trace_id);
    assert_eq!(requested(&effects[..1]).trace, Some(opened));
    press(&mut app, 'L');
    assert_eq!(
        (app.screen, app.pick.log_trace),
        (Screen::Logs, Some(opened))
    );
    update(&mut app, Event::Key(KeyCode::Esc, KeyModifiers::NONE));
    assert_eq!(app.pick.log_trace, None);
    let effects = press(&mut app, 'v');
    assert_eq!(requested(&effects).pick.severity, Some(Severity::Info));
    answer(&mut app, requested(&effects).number, fixture::data());
    // The sixth record has no trace.
    app.row = 5;
    assert!(update(&mut app, enter).is_empty());
}

#[test]
fn routes_and_dashboards_are_chosen_around_the_end() {
    let mut app = fixture::app(TuiOptions {
        screen: Screen::Latency,
        ..TuiOptions::default()
    });
    let routes = fixture::data().routes;
    for r in &routes {
        let effects = press(&mut app, 'n');
        let wanted = Some((r.service.clone(), r.route.clone()));
        assert_eq!(requested(&effects).pick.route, wanted);
        assert_eq!(requested(&effects).heat, None, "another map");
    }
    press(&mut app, 'n');
    assert_eq!(app.pick.route, None);
    press(&mut app, 'N');
    assert_eq!(app.pick.route.unwrap().1, routes[2].route);
    let mut app = fixture::app(TuiOptions {
        screen: Screen::Dashboards,
        ..TuiOptions::default()
    });
    press(&mut app, 'N');
    assert_eq!(app.pick.board, 3);
    assert_eq!(requested(&press(&mut app, 'n')).pick.board, 0);
}

#[test]
fn the_selection_stays_on_its_record_while_newer_ones_come() {
    let mut app = fixture::app(TuiOptions {
        screen: Screen::Logs,
        ..TuiOptions::default()
    });
    app.row = 3;
    let newer = |app: &mut App| {
        let mut data = fixture::data();
        data.logs.drain(7..);
        for i in 0..2u64 {
            let mut record = data.logs[0].clone();
            record.time_ns += 1_000_000 * (2 - i);
            data.logs.insert(usize::try_from(i).unwrap(), record);
        }
        let number = requested(&press(app, '.')).number;
        answer(app, number, data);
    };
    newer(&mut app);
    assert_eq!(app.row, 5);
    app.row = 0;
    newer(&mut app);
    assert_eq!(app.row, 0, "the newest stays selected");
}

fn answer(app: &mut App, number: u64, data: Data) {
    let (now_ms, result) = (app.now_ms, Ok(Box::new(data)));
    let event = Event::Answer {
        number,
        now_ms,
        result,
    };
    update(app, event);
}

fn at(screen: Screen) -> App {
    fixture::app(TuiOptions {
        screen,
        author: "kim".into(),
        ..TuiOptions::default()
    })
}

fn hit(app: &mut App, code: KeyCode) -> Vec<Effect> {
    update(app, Event::Key(code, KeyModifiers::NONE))
}

#[test]
fn an_alert_is_acknowledged_after_a_yes_and_not_before() {
    let mut app = at(Screen::Alerts);
    assert!(press(&mut app, 'a').is_empty());
    assert!(app.dialog.is_some());
    // Keys of the screen are letters now.
    assert!(press(&mut app, 'q').is_empty());
    hit(&mut app, KeyCode::Backspace);
    assert!(hit(&mut app, KeyCode::Enter).is_empty());
    assert!(app.dialog.as_ref().unwrap().confirm);
    let effects = press(&mut app, 'y');
    let [Effect::Silence(new)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(new.created_by, "kim");
    assert_eq!(new.ends_ms - new.starts_ms, 3_600_000);
    assert!(app.dialog.is_none());
    let effects = update(&mut app, Event::Done(Ok("silenced".into())));
    assert_eq!(
        requested(&effects).screen,
        Screen::Alerts,
        "it shows at once"
    );
    press(&mut app, 'j');
    assert_eq!(app.said, None, "a key takes the message away");
}

#[test]
fn no_is_no() {
    let mut app = at(Screen::Alerts);
    press(&mut app, 'z');
    hit(&mut app, KeyCode::Enter);
    assert!(press(&mut app, 'n').is_empty());
    assert!(app.dialog.is_none());
    // The second alert of the dataset is silenced already.
    press(&mut app, 'u');
    assert!(matches!(app.said, Some(Err(_))) && app.dialog.is_none());
    press(&mut app, 'j');
    press(&mut app, 'u');
    assert_eq!(press(&mut app, 'y'), [Effect::EndSilence("5c0f".into())]);
    app.options.read_only = true;
    press(&mut app, 'a');
    assert!(app.dialog.is_none() && app.said.is_some());
}

#[test]
fn a_screen_becomes_a_file_with_its_name_and_time() {
    for (key, ending, within) in [
        ('x', "json", "\"screen\": \"alerts\""),
        ('X', "md", "# Alerts"),
    ] {
        let mut app = at(Screen::Alerts);
        let effects = press(&mut app, key);
        let [Effect::Write { name, text }] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!(name, &format!("nines-alerts-20261120T203626Z.{ending}"));
        assert!(text.contains(within), "{text}");
    }
    let mut app = App::new(TuiOptions::default());
    assert!(press(&mut app, 'x').is_empty() && app.said.is_some());
}

#[test]
fn rows_are_ordered_by_each_column_in_turn() {
    let mut app = at(Screen::Services);
    let first = |app: &App| {
        let data = app.data.as_ref().unwrap();
        view::identity(app, 0)
            .map(|i| (i, data.routes.len()))
            .unwrap()
            .0
    };
    let natural = first(&app);
    for _ in 0..5 {
        press(&mut app, 's');
    }
    assert_eq!(app.sort.map(|s| s.column), Some(4));
    assert_eq!(first(&app), "payment POST /charges", "the highest median");
    press(&mut app, 'S');
    assert_eq!(first(&app), "gateway GET /api/v1/products/{id}");
    press(&mut app, '2');
    assert_eq!(app.sort, None);
    assert_eq!(first(&app), natural);
}

#[test]
fn a_range_is_typed_and_zoomed() {
    let mut app = at(Screen::Overview);
    press(&mut app, 'w');
    "2h".chars().for_each(|c| {
        press(&mut app, c);
    });
    let effects = hit(&mut app, KeyCode::Enter);
    assert_eq!(requested(&effects).range_ms, 7_200_000);
    assert_eq!(requested(&press(&mut app, '+')).range_ms, 3_600_000);
    assert_eq!(requested(&press(&mut app, '-')).range_ms, 10_800_000);
}

#[test]
fn nothing_is_lost_when_the_terminal_changes_its_size() {
    let mut app = at(Screen::Alerts);
    press(&mut app, '/');
    press(&mut app, 'd');
    hit(&mut app, KeyCode::Enter);
    press(&mut app, 'a');
    press(&mut app, '!');
    let before = (app.filter.clone(), app.row, app.dialog.clone());
    for (w, h) in [(20, 5), (300, 100), (80, 24)] {
        update(&mut app, Event::Resize(w, h));
    }
    assert_eq!((app.filter, app.row, app.dialog), before);
}

#[test]
fn programs_that_lost_one_agent_come_back_apart() {
    let waits: std::collections::BTreeSet<i64> =
        (0..50).map(|seed| jittered(5_000, seed)).collect();
    assert!(waits.len() > 45, "{waits:?}");
    assert!(waits.iter().all(|w| (2_500..=5_000).contains(w)));
}

#[test]
fn lines_are_asked_for_once_a_step_and_kept_in_between() {
    let mut app = App::new(TuiOptions::default());
    let number = requested(&update(&mut app, Event::Tick(fixture::NOW_MS))).number;
    let mut first = fixture::data();
    first.lines_end_ms = fixture::NOW_MS;
    answer(&mut app, number, first.clone());
    let effects = press(&mut app, '.');
    assert_eq!(
        requested(&effects).lines,
        Some((first.range_ms, fixture::NOW_MS))
    );
    let bare = Data {
        range_ms: first.range_ms,
        lines_end_ms: first.lines_end_ms,
        ..Data::default()
    };
    answer(&mut app, requested(&effects).number, bare.clone());
    let shown = app.data.as_ref().unwrap();
    assert_eq!(shown.p99_line, first.p99_line);
    assert_eq!(shown.service_lines, first.service_lines);
    let effects = press(&mut app, '.');
    let newer = Data {
        lines_end_ms: first.lines_end_ms + 7_500,
        ..bare
    };
    answer(&mut app, requested(&effects).number, newer);
    assert!(app.data.as_ref().unwrap().p99_line.is_empty());
    let effects = press(&mut app, '8');
    assert_eq!(requested(&effects).lines, None, "another screen");
}
