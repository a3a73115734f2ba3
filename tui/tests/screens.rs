//! Every screen at three sizes in three styles, and random use at random sizes.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]

use crossterm::event::{KeyCode, KeyModifiers};
use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use tui::{App, Event, KEYMAP, Screen, Theme, TuiOptions, draw, fixture, update};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 36), (200, 60)];

fn app(screen: Screen, theme: Theme, ascii: bool) -> App {
    let mut app = fixture::app(TuiOptions {
        screen,
        theme,
        ascii,
        ..TuiOptions::default()
    });
    if screen == Screen::Traces {
        update(&mut app, Event::Key(KeyCode::Enter, KeyModifiers::NONE));
    }
    app
}

fn paint(app: &App, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(app, area, &mut buffer);
    buffer
}

/// The frame as text; with `styled`, a line of style letters below each line that has any.
fn text(buffer: &Buffer, styled: bool) -> String {
    let mut out = String::new();
    for y in 0..buffer.area.height {
        let row: String = (0..buffer.area.width)
            .map(|x| buffer[(x, y)].symbol())
            .collect();
        out.push_str(row.trim_end());
        out.push('\n');
        if !styled {
            continue;
        }
        let letter = |x| {
            let cell = &buffer[(x, y)];
            let letter = match cell.fg {
                Color::Reset => ' ',
                Color::Red => 'r',
                Color::Green => 'g',
                Color::Yellow => 'y',
                Color::Blue => 'b',
                Color::Magenta => 'm',
                Color::Cyan => 'c',
                _ => '.',
            };
            match cell.modifier.contains(Modifier::BOLD) {
                true if letter == ' ' => 'B',
                true => letter.to_ascii_uppercase(),
                false => letter,
            }
        };
        let styles: String = (0..buffer.area.width).map(letter).collect();
        out.push_str(&format!("~{}\n", styles.trim_end()));
    }
    out
}

#[test]
fn every_screen_looks_as_it_did() {
    for screen in Screen::ALL {
        for (w, h) in SIZES {
            for (style, theme, ascii) in [
                ("mono", Theme::Mono, false),
                ("ascii", Theme::Mono, true),
                ("dark", Theme::Dark, false),
            ] {
                let frame = text(&paint(&app(screen, theme, ascii), w, h), style == "dark");
                assert!(style != "ascii" || frame.is_ascii(), "{screen:?}");
                insta::assert_snapshot!(
                    format!("{}-{w}x{h}-{style}", screen.title().to_lowercase()),
                    frame
                );
            }
        }
    }
}

/// Keys pressed one after the other on a screen.
fn after(screen: Screen, keys: &str) -> App {
    let mut app = app(screen, Theme::Mono, false);
    app.options.author = "kim".into();
    for c in keys.chars() {
        let code = if c == '\n' {
            KeyCode::Enter
        } else {
            KeyCode::Char(c)
        };
        update(&mut app, Event::Key(code, KeyModifiers::NONE));
    }
    app
}

#[test]
fn boxes_help_order_and_enlarged_panels_look_as_they_did() {
    for (name, screen, keys) in [
        ("ack", Screen::Alerts, "a"),
        ("ack-confirm", Screen::Alerts, "a\n"),
        ("end-silence", Screen::Alerts, "ju"),
        ("range-wrong", Screen::Overview, "w5\n"),
        ("help", Screen::Overview, "?"),
        ("sorted", Screen::Services, "sssS"),
        ("enlarged", Screen::Dashboards, "jjjj\n"),
        ("route", Screen::Latency, "j"),
    ] {
        for (w, h) in SIZES {
            let frame = text(&paint(&after(screen, keys), w, h), false);
            insta::assert_snapshot!(format!("{name}-{w}x{h}"), frame);
        }
    }
}

#[test]
fn what_was_done_is_said_in_the_footer() {
    let mut app = app(Screen::Alerts, Theme::Mono, false);
    update(&mut app, Event::Done(Ok("wrote ./x.json (3 bytes)".into())));
    let frame = text(&paint(&app, 80, 24), false);
    assert!(frame.ends_with(" ● wrote ./x.json (3 bytes)\n"), "{frame}");
    app.options.read_only = true;
    update(&mut app, Event::Key(KeyCode::Down, KeyModifiers::NONE));
    let frame = text(&paint(&app, 120, 36), false);
    assert!(!frame.lines().last().unwrap().contains("ack"), "{frame}");
}

#[test]
fn nothing_known_and_too_small_are_said() {
    let mut app = App::new(TuiOptions::default());
    update(&mut app, Event::Tick(1_000));
    assert!(text(&paint(&app, 80, 24), false).contains("CONNECTING"));
    let error = "cannot reach http://127.0.0.1:9909: is `nines agent` running?".to_owned();
    update(
        &mut app,
        Event::Answer {
            number: 1,
            now_ms: 1_000,
            result: Err(error),
        },
    );
    let frame = text(&paint(&app, 80, 24), false);
    assert!(
        frame.contains("DOWN try 1 in 0.1s") || frame.contains("DOWN try 1 in 0.2s"),
        "{frame}"
    );
    assert!(frame.contains("is `nines agent` running?"));
    assert_eq!(
        text(&paint(&app, 79, 3), false).trim_end(),
        "79x3 is too small: 80x24 is needed"
    );
}

#[test]
fn old_data_is_dimmed_and_says_its_age() {
    let mut app = app(Screen::Overview, Theme::Dark, false);
    update(&mut app, Event::Tick(fixture::NOW_MS + 12_000));
    let buffer = paint(&app, 120, 36);
    assert!(text(&buffer, false).contains("data 00m12s old"));
    assert!(buffer[(5, 5)].modifier.contains(Modifier::DIM));
}

#[test]
fn mono_has_no_colour() {
    for screen in Screen::ALL {
        let buffer = paint(&app(screen, Theme::Mono, false), 120, 36);
        assert!(
            buffer
                .content
                .iter()
                .all(|c| c.fg == Color::Reset && c.bg == Color::Reset)
        );
    }
}

/// A server of one line of HTTP: the agent's answers as far as a fetch needs them.
async fn serve(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut request, mut part) = (String::new(), [0u8; 4096]);
            let complete = |r: &str| {
                let (head, body) = r.split_once("\r\n\r\n")?;
                let length = head
                    .lines()
                    .find_map(|l| l.strip_prefix("content-length: "));
                (body.len() >= length.map_or(0, |n| n.parse().unwrap())).then_some(())
            };
            while complete(&request).is_none() {
                match stream.read(&mut part).await {
                    Ok(n) if n > 0 => request.push_str(&String::from_utf8_lossy(&part[..n])),
                    _ => return,
                }
            }
            let vector = |labels: &str| {
                format!(
                    r#"{{"resultType":"vector","result":[{{"metric":{{{labels}}},"value":[1,"0.25"]}}]}}"#
                )
            };
            let data = match request.lines().next().unwrap() {
                l if l.contains("query_exemplars") => {
                    r#"[{"seriesLabels":{"service_name":"cart","http_route":"/x"},"exemplars":[{"labels":{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"},"value":"0.5","timestamp":1}]}]"#.to_owned()
                }
                l if l.contains("query_range") => {
                    r#"{"resultType":"matrix","result":[]}"#.to_owned()
                }
                l if l.contains("/query") => vector(
                    r#""service_name":"cart","http_route":"/x","kind":"cpu","resource":"all","instance":"i","unit":"u","run_id":"r1""#,
                ),
                l if l.contains("/logs") => serde_json::to_string(&fixture::data().logs).unwrap(),
                l if l.contains("/self") => {
                    serde_json::to_string(&fixture::data().own.unwrap()).unwrap()
                }
                l if l.contains("/rules") => r#"{"groups":[]}"#.to_owned(),
                l if l.contains("/alerts") => r#"{"alerts":[]}"#.to_owned(),
                _ => "[]".to_owned(),
            };
            let body = format!(r#"{{"status":"success","data":{data}}}"#);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _gone = stream.write_all(answer.as_bytes()).await;
        });
    }
}

#[tokio::test]
async fn answers_of_a_server_become_screens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener));
    for (screen, wanted) in [
        (Screen::Overview, "0.25 req/s"),
        (Screen::Services, "cart     /x"),
        (Screen::Resources, "u 0.25"),
        (Screen::Latency, "4bf9…4736"),
        (Screen::Logs, "upstream answered 503"),
        (Screen::Dashboards, "Error budget left"),
        (Screen::Traces, "no trace in this range"),
        (Screen::Alerts, "no alerting rule is loaded"),
        (Screen::Load, "r1"),
        (Screen::Own, "4,321"),
    ] {
        let options = TuiOptions {
            base_url: base_url.clone(),
            ..TuiOptions::default()
        };
        let frame = tui::snapshot(options, screen).await.unwrap().text(120, 36);
        assert!(frame.contains(wanted), "{screen:?}\n{frame}");
    }
}

#[tokio::test]
async fn an_agent_that_is_down_is_an_error_with_advice() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let options = TuiOptions {
        base_url: format!("http://{free}"),
        ..TuiOptions::default()
    };
    let error = tui::snapshot(options, Screen::Overview)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("is `nines agent` running?"), "{error}");
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let keys: Vec<_> = KEYMAP.iter().flat_map(|b| b.keys.iter().copied()).collect();
    let one = prop_oneof![
        8 => proptest::sample::select(keys).prop_map(|(code, modifiers)| Event::Key(code, modifiers)),
        1 => any::<char>().prop_map(|c| Event::Key(KeyCode::Char(c), KeyModifiers::NONE)),
        1 => (0u16..300, 0u16..4).prop_map(|(x, y)| Event::Click(x, y)),
        1 => (0i64..10_000_000).prop_map(|ms| Event::Tick(fixture::NOW_MS + ms)),
        1 => (1u64..40, any::<bool>()).prop_map(|(number, good)| Event::Answer {
            number,
            now_ms: fixture::NOW_MS,
            result: if good { Ok(Box::new(fixture::data())) } else { Err("x\u{1b}[2J".into()) },
        }),
    ];
    proptest::collection::vec(one, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn random_use_at_random_sizes_stays_inside(all in events(), w in 0u16..230, h in 0u16..70, ascii in any::<bool>()) {
        let mut app = fixture::app(TuiOptions { ascii, ..TuiOptions::default() });
        // A margin around the area shows what would be drawn outside.
        let whole = Rect::new(0, 0, w + 4, h + 4);
        let area = Rect::new(2, 2, w, h);
        for event in all {
            update(&mut app, event);
        }
        let mut buffer = Buffer::empty(whole);
        draw(&app, area, &mut buffer);
        for y in 0..whole.height {
            for x in 0..whole.width {
                let cell = &buffer[(x, y)];
                let inside = x >= 2 && x < 2 + w && y >= 2 && y < 2 + h;
                prop_assert!(inside || cell.symbol() == " ", "{x},{y} {:?}", cell.symbol());
                prop_assert!(!cell.symbol().chars().any(char::is_control));
            }
        }
    }
}
