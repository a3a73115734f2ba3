//! The loop: terminal and clock in, effects out.
//!
//! Owns the terminal's state (raw mode, screen, mouse), which it restores also on a panic, and the fetching task. Must not
//! know what is shown.

use std::io::{IsTerminal, Stdout, Write, stdout};
use std::sync::atomic::Ordering::Relaxed;
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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::{App, Effect, Event, Link, update};
use crate::fetch::fetch;
use crate::options::{ExitStatus, TuiError, TuiOptions};
use crate::output::Output;
use crate::palette::{Palette, locale_is_ascii};
use crate::theme::Theme;
use crate::view::view;

/// How often the clock moves when nothing else happens.
const TICK: Duration = Duration::from_millis(250);
/// The mean time between two frames at least: 20 a second at most.
const FRAME: Duration = Duration::from_millis(50);
/// Frames that may follow each other at once after a pause, so that a key is not behind an answer.
const AT_ONCE: u32 = 3;
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
pub async fn run(mut options: TuiOptions) -> Result<ExitStatus, TuiError> {
    if !is_terminal() {
        return Err(TuiError::NotATerminal);
    }
    options.palette = options.palette.resolved();
    if options.palette == Palette::Off {
        options.theme = Theme::Mono;
    }
    options.ascii |= options.locale && locale_is_ascii();
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

/// What runs beside the loop.
struct Work {
    client: Client,
    answers: mpsc::Sender<Event>,
    fetches: JoinSet<()>,
    jobs: JoinSet<()>,
}

// === impl Work ===

impl Work {
    /// Carries out an effect, off the loop; `false` to leave.
    fn carry_out(&mut self, app: &App, effect: Effect) -> bool {
        let (client, answers) = (self.client.clone(), self.answers.clone());
        match effect {
            Effect::Quit => return false,
            Effect::Fetch(request) => {
                // Nobody waits for an older answer.
                self.fetches.abort_all();
                self.fetches.spawn(async move {
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
            Effect::Write { name, text } => {
                let dir = app.options.export_dir.clone();
                self.job(async move {
                    let wrote = tokio::task::spawn_blocking(move || write(&dir, &name, &text));
                    wrote.await.unwrap_or_else(|e| Err(e.to_string()))
                });
            }
            Effect::Silence(new) => self.job(async move {
                let made = client.silence(&new).await;
                made.map(|id| format!("silenced by {} (id {id}); u ends it", new.created_by))
                    .map_err(|e| e.to_string())
            }),
            Effect::EndSilence(id) => self.job(async move {
                let ended = client.end_silence(&id).await;
                ended
                    .map(|()| "the silence has ended".to_owned())
                    .map_err(|e| e.to_string())
            }),
        }
        true
    }

    /// Runs what says at its end what it did.
    fn job(&mut self, work: impl Future<Output = Result<String, String>> + Send + 'static) {
        let answers = self.answers.clone();
        self.jobs.spawn(async move {
            let _left = answers.send(Event::Done(work.await)).await;
        });
    }
}

/// When frames may be drawn.
struct Pace {
    /// When all that was drawn would have been drawn at the mean distance.
    due: Instant,
}

// === impl Pace ===

impl Pace {
    /// The earliest instant of the next frame.
    fn next(&self) -> Instant {
        self.due - FRAME * (AT_ONCE - 1)
    }

    fn drawn(&mut self, now: Instant) {
        self.due = self.due.max(now) + FRAME;
    }
}

/// Draws one frame, which the terminal shows at once where it can.
fn draw(
    terminal: &mut Terminal<CrosstermBackend<Output<Stdout>>>,
    app: &App,
) -> std::io::Result<()> {
    queue!(terminal.backend_mut(), BeginSynchronizedUpdate)?;
    terminal.draw(|frame| view(app, frame))?;
    execute!(terminal.backend_mut(), EndSynchronizedUpdate)
}

/// Whether the passing of time alone changes what is shown: the clock's second, or the wait for the next attempt.
fn ticked(app: &App, before_ms: i64) -> bool {
    let waits = matches!(app.link, Link::Down { .. });
    waits || app.now_ms / 1_000 != before_ms / 1_000
}

async fn drive(options: TuiOptions) -> Result<ExitStatus, TuiError> {
    let output = Output::new(stdout(), options.palette == Palette::Classic);
    let written = output.written();
    let mut terminal = Terminal::new(CrosstermBackend::new(output))?;
    let (answers, mut answered) = mpsc::channel(QUEUE);
    let mut work = Work {
        client: connect(&options),
        answers,
        fetches: JoinSet::new(),
        jobs: JoinSet::new(),
    };
    let mut app = App::new(options);
    let mut keys = EventStream::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let size = terminal.size()?;
    let mut next = Some(Event::Resize(size.width, size.height));
    let mut pace = Pace {
        due: Instant::now(),
    };
    let mut stale = true;
    loop {
        if let Some(event) = next.take() {
            let (tick, before_ms) = (matches!(event, Event::Tick(_)), app.now_ms);
            for effect in update(&mut app, event) {
                if !work.carry_out(&app, effect) {
                    return Ok(app.exit_status());
                }
            }
            stale |= !tick || ticked(&app, before_ms);
        }
        let begin = Instant::now();
        if stale && begin >= pace.next() {
            let before = written.load(Relaxed);
            draw(&mut terminal, &app)?;
            stale = false;
            pace.drawn(begin);
            let us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            update(&mut app, Event::Painted(us, written.load(Relaxed) - before));
        }
        next = tokio::select! {
            _ = clock.tick() => Some(Event::Tick(now_ms())),
            () = tokio::time::sleep_until(pace.next()), if stale => None,
            Some(event) = answered.recv() => Some(event),
            Some(_) = work.fetches.join_next(), if !work.fetches.is_empty() => None,
            Some(_) = work.jobs.join_next(), if !work.jobs.is_empty() => None,
            _ = terminate.recv() => return Ok(app.exit_status()),
            _ = hangup.recv() => return Ok(app.exit_status()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_frames_a_second_and_a_key_after_a_pause_at_once() {
        let begin = Instant::now();
        let mut pace = Pace { due: begin };
        let (mut now, mut frames) = (begin, 0);
        while now < begin + Duration::from_secs(10) {
            now = now.max(pace.next());
            pace.drawn(now);
            frames += 1;
        }
        assert!((200..=204).contains(&frames), "{frames}");
        let later = now + Duration::from_millis(200);
        for _ in 0..AT_ONCE {
            assert!(pace.next() <= later);
            pace.drawn(later);
        }
        assert!(pace.next() > later);
    }
}
