//! The loop: terminal and clock in, effects out.
//!
//! Owns the terminal's state (raw mode, screen, mouse), which it restores also on a panic, and the fetching task. Must not
//! know what is shown.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::Client;
use crossterm::event::{
    self, DisableMouseCapture, EnableMouseCapture, EventStream, KeyEventKind, MouseButton,
    MouseEventKind,
};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use futures_util::StreamExt;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio::sync::mpsc;

use crate::app::{App, Effect, Event, update};
use crate::fetch::fetch;
use crate::options::{ExitStatus, TuiError, TuiOptions};
use crate::view::view;

/// How often the clock moves when nothing else happens.
const TICK: Duration = Duration::from_millis(250);
/// How long one call of a fetch may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that wait to be shown.
const QUEUE: usize = 8;

/// The clock, Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A client with the options' address and token.
pub(crate) fn connect(options: &TuiOptions) -> Client {
    Client::new(&options.base_url)
        .with_token(options.token.clone())
        .with_timeout(CALL_TIMEOUT)
}

/// Whether standard input and output are a terminal that can be drawn on.
#[must_use]
pub fn is_terminal() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    stdout().is_terminal() && std::io::stdin().is_terminal() && !dumb
}

/// Shows the screens until the user leaves. The first frame does not wait for the agent. Errors when there is no
/// terminal, or it breaks; an agent that is down is shown, and tried again.
pub async fn run(options: TuiOptions) -> Result<ExitStatus, TuiError> {
    if !is_terminal() {
        return Err(TuiError::NotATerminal);
    }
    let mouse = !options.no_mouse;
    let previous = std::sync::Arc::new(std::panic::take_hook());
    let kept = std::sync::Arc::clone(&previous);
    std::panic::set_hook(Box::new(move |info| {
        restore();
        kept(info);
    }));
    let result = match prepare(mouse) {
        Ok(()) => drive(options).await,
        Err(e) => Err(e.into()),
    };
    restore();
    std::panic::set_hook(Box::new(move |info| previous(info)));
    result
}

fn prepare(mouse: bool) -> std::io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, cursor::Hide)?;
    if mouse {
        execute!(stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// Puts the terminal back; what fails cannot be helped.
fn restore() {
    let _ignored = execute!(
        stdout(),
        EndSynchronizedUpdate,
        DisableMouseCapture,
        LeaveAlternateScreen,
        cursor::Show
    );
    let _ignored = disable_raw_mode();
}

async fn drive(options: TuiOptions) -> Result<ExitStatus, TuiError> {
    let client = connect(&options);
    let mut terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
    let mut app = App::new(options);
    let (answers, mut answered) = mpsc::channel(QUEUE);
    let mut keys = EventStream::new();
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut tasks = tokio::task::JoinSet::new();
    let mut jobs = tokio::task::JoinSet::new();
    let size = terminal.size()?;
    let mut next = Some(Event::Resize(size.width, size.height));
    loop {
        if let Some(event) = next.take() {
            for effect in update(&mut app, event) {
                match effect {
                    Effect::Quit => return Ok(app.exit_status()),
                    Effect::Write { name, text } => {
                        let dir = app.options.export_dir.clone();
                        let answers = answers.clone();
                        jobs.spawn(async move {
                            let wrote =
                                tokio::task::spawn_blocking(move || write(&dir, &name, &text));
                            let said = wrote.await.unwrap_or_else(|e| Err(e.to_string()));
                            let _left = answers.send(Event::Done(said)).await;
                        });
                    }
                    Effect::Silence(new) => {
                        let (client, answers) = (client.clone(), answers.clone());
                        jobs.spawn(async move {
                            let made = client.silence(&new).await;
                            let said = made
                                .map(|id| {
                                    format!("silenced by {} (id {id}); u ends it", new.created_by)
                                })
                                .map_err(|e| e.to_string());
                            let _left = answers.send(Event::Done(said)).await;
                        });
                    }
                    Effect::EndSilence(id) => {
                        let (client, answers) = (client.clone(), answers.clone());
                        jobs.spawn(async move {
                            let ended = client.end_silence(&id).await;
                            let said = ended
                                .map(|()| "the silence has ended".to_owned())
                                .map_err(|e| e.to_string());
                            let _left = answers.send(Event::Done(said)).await;
                        });
                    }
                    Effect::Fetch(request) => {
                        // Nobody waits for an older answer.
                        tasks.abort_all();
                        let (client, answers) = (client.clone(), answers.clone());
                        tasks.spawn(async move {
                            let result = fetch(&client, &request, now_ms()).await;
                            let result = result.map(Box::new).map_err(|e| e.to_string());
                            let event = Event::Answer {
                                number: request.number,
                                now_ms: now_ms(),
                                result,
                            };
                            // Nobody listens any more when the program leaves.
                            let _left = answers.send(event).await;
                        });
                    }
                }
            }
            queue!(stdout(), BeginSynchronizedUpdate)?;
            terminal.draw(|frame| view(&app, frame))?;
            execute!(stdout(), EndSynchronizedUpdate)?;
            stdout().flush()?;
        }
        next = tokio::select! {
            _ = clock.tick() => Some(Event::Tick(now_ms())),
            Some(event) = answered.recv() => Some(event),
            Some(_) = tasks.join_next(), if !tasks.is_empty() => None,
            Some(_) = jobs.join_next(), if !jobs.is_empty() => None,
            event = keys.next() => match event {
                Some(event) => translate(event?),
                None => return Ok(app.exit_status()),
            },
        };
    }
}

/// Writes a new file; what is there is never overwritten. Says its name, or what went wrong.
fn write(dir: &std::path::Path, name: &str, text: &str) -> Result<String, String> {
    let path = dir.join(name);
    let shown = path.display().to_string();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|e| format!("cannot write {shown}: {e}"))?;
    file.write_all(text.as_bytes())
        .map_err(|e| format!("cannot write {shown}: {e}"))?;
    Ok(format!("wrote {shown} ({} bytes)", text.len()))
}

fn translate(event: event::Event) -> Option<Event> {
    match event {
        event::Event::Key(key) if key.kind != KeyEventKind::Release => {
            Some(Event::Key(key.code, key.modifiers))
        }
        event::Event::Mouse(mouse) if mouse.kind == MouseEventKind::Down(MouseButton::Left) => {
            Some(Event::Click(mouse.column, mouse.row))
        }
        event::Event::Resize(width, height) => Some(Event::Resize(width, height)),
        _ => None,
    }
}
