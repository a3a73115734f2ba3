//! Owns the thread of a processor: its engine, what it is given and when it is stopped; calls in, timers, promises,
//! answers out, errors with their place. Must not know what calls are for.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rquickjs::function::Func;
use rquickjs::{
    CatchResultExt, CaughtError, Context, Ctx, Function, Module, Object, Persistent, Runtime, Value,
};
use serde_json::Value as Json;

use super::host::{Desk, Imports, WRAPPER, evaluate, host};
use super::modules::{self, Found};
use super::{MAX_COMPUTE, MAX_MEMORY, Message, Returned, Sink, TIMED_OUT, Unusable};

/// What a realm is made of.
pub(super) struct Setting {
    pub(super) file: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) sink: Arc<Sink>,
}

/// A call that the script says is done.
pub(super) struct Finished {
    /// JSON of label, text and stack; empty when it went well.
    pub(super) error: String,
    /// JSON of the variables set, and the names of those gone.
    pub(super) changes: String,
    /// JSON, or empty.
    pub(super) value: String,
}

/// Functions of the prelude.
struct Prelude {
    enter: Persistent<Function<'static>>,
    tick: Persistent<Function<'static>>,
    begin: Persistent<Function<'static>>,
    forget: Persistent<Function<'static>>,
}

/// Names of the project's own JavaScript in stacks.
const OWN: &str = "nines:";

/// Runs until nobody can call any more. Tells once whether the processor could be read, with its functions.
pub(super) fn live(
    setting: Setting,
    inbox: &Receiver<Message>,
    told: &Sender<Result<Vec<String>, Unusable>>,
) {
    let file = setting.file.clone();
    let engine = |why: rquickjs::Error| Unusable {
        file: file.clone(),
        at: None,
        why: format!("the JavaScript engine did not start: {why}"),
        hint: None,
    };
    let desk = Rc::new(Desk {
        setting,
        began: Instant::now(),
        pending: RefCell::new(HashMap::new()),
        missing: RefCell::new(None),
    });
    let deadline = Rc::new(Cell::new(spent() + MAX_COMPUTE));
    let made = Runtime::new().and_then(|runtime| {
        runtime.set_memory_limit(MAX_MEMORY);
        runtime.set_max_stack_size(2 << 20);
        let limit = Rc::clone(&deadline);
        runtime.set_interrupt_handler(Some(Box::new(move || spent() > limit.get())));
        runtime.set_loader(Imports(Rc::clone(&desk)), Imports(Rc::clone(&desk)));
        let context = Context::full(&runtime)?;
        Ok((runtime, context))
    });
    let (runtime, context) = match made {
        Ok(made) => made,
        Err(error) => {
            let _ = told.send(Err(engine(error)));
            return;
        }
    };
    let realm = Realm {
        runtime,
        context,
        desk,
        deadline,
    };
    match realm.read() {
        Ok((prelude, functions)) => {
            if told.send(Ok(functions)).is_ok() {
                realm.serve(&prelude, inbox);
            }
            // The functions belong to the runtime and go before it.
            drop(prelude);
        }
        Err(unusable) => {
            let _ = told.send(Err(*unusable));
        }
    }
}

/// CPU time this thread has taken: a machine that is busy elsewhere does not count.
#[cfg(target_os = "linux")]
fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

#[cfg(not(target_os = "linux"))]
fn spent() -> Duration {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

struct Realm {
    runtime: Runtime,
    context: Context,
    desk: Rc<Desk>,
    /// In CPU time of this thread.
    deadline: Rc<Cell<Duration>>,
}

impl Realm {
    fn read(&self) -> Result<(Prelude, Vec<String>), Box<Unusable>> {
        let plain = |why: String| {
            Box::new(Unusable {
                file: self.desk.setting.file.clone(),
                at: None,
                why,
                hint: None,
            })
        };
        let found = modules::kind(&self.desk.setting.file).map_err(plain)?;
        let (kind, path) = found.parts();
        let mut stated = Ok(());
        let made = self.context.with(|ctx| {
            let result = (|| {
                let prelude = self.prelude(&ctx)?;
                let exports: Value<'_> = match &found {
                    Found::Module(_) => {
                        let promise = Module::import(&ctx, path.as_str())?;
                        self.settle(&ctx, &prelude, &promise)?
                    }
                    _ => {
                        let load: Function<'_> = prelude.get("load")?;
                        load.call((kind, path.as_str()))?
                    }
                };
                let names: String = prelude.get::<_, Function<'_>>("use")?.call((exports,))?;
                let keep = |name: &str| -> rquickjs::Result<_> {
                    let function: Function<'_> = prelude.get(name)?;
                    Ok(Persistent::save(&ctx, function))
                };
                let kept = Prelude {
                    enter: keep("enter")?,
                    tick: keep("tick")?,
                    begin: keep("begin")?,
                    forget: keep("forget")?,
                };
                Ok((kept, names))
            })();
            match result.catch(&ctx) {
                Ok(made) => Some(made),
                Err(error) => {
                    stated = Err(self.unusable(&error));
                    None
                }
            }
        });
        stated?;
        let (prelude, names) = made.ok_or_else(|| plain("it cannot be read".to_owned()))?;
        let names = serde_json::from_str(&names).unwrap_or_default();
        Ok((prelude, names))
    }

    fn prelude<'js>(&self, ctx: &Ctx<'js>) -> rquickjs::Result<Object<'js>> {
        let host = host(ctx, &self.desk)?;
        let node = evaluate(ctx, "nines:node", include_str!("node.js").to_owned())?;
        host.set("builtins", node)?;
        // A mark so that the prelude's own natives are told from a script's.
        host.set("version", Func::from(|| env!("CARGO_PKG_VERSION")))?;
        let prelude = evaluate(ctx, "nines:prelude", include_str!("prelude.js").to_owned())?;
        let prelude = prelude.into_function();
        prelude.map_or_else(|| Err(rquickjs::Error::Unknown), |make| make.call((host,)))
    }

    /// Runs jobs and timers until a promise is settled.
    fn settle<'js>(
        &self,
        ctx: &Ctx<'js>,
        prelude: &Object<'js>,
        promise: &rquickjs::Promise<'js>,
    ) -> rquickjs::Result<Value<'js>> {
        let tick: Function<'js> = prelude.get("tick")?;
        let until = Instant::now() + 6 * MAX_COMPUTE;
        loop {
            if let Some(result) = promise.result::<Value<'js>>() {
                return result;
            }
            if Instant::now() > until {
                let text = "the module has not finished loading within 30 s";
                return Err(rquickjs::Exception::throw_message(ctx, text));
            }
            self.deadline.set(spent() + MAX_COMPUTE);
            if !ctx.execute_pending_job() {
                let wait: f64 = tick.call(())?;
                std::thread::sleep(Duration::from_secs_f64(wait.clamp(0.1, 50.0) / 1e3));
            }
        }
    }

    fn unusable(&self, error: &CaughtError<'_>) -> Box<Unusable> {
        if let Some((base, name, why)) = self.desk.missing.borrow_mut().take() {
            let file = PathBuf::from(base);
            let text = modules::text(&file).unwrap_or_default();
            let quoted = [format!("'{name}'"), format!("\"{name}\"")];
            let at = text.lines().enumerate().find_map(|(i, line)| {
                let column = quoted.iter().find_map(|q| line.find(q.as_str()))?;
                Some((i + 1, line[..column].chars().count() + 1))
            });
            let hint = None;
            return Box::new(Unusable {
                file,
                at,
                why,
                hint,
            });
        }
        let (shown, stack) = described(error);
        let place = first_place(&stack);
        let file = place.as_ref().map(|(file, ..)| PathBuf::from(file));
        Box::new(Unusable {
            file: file.unwrap_or_else(|| self.desk.setting.file.clone()),
            at: place.map(|(_, line, column)| (line, column)),
            why: shown,
            hint: None,
        })
    }

    fn serve(&self, prelude: &Prelude, inbox: &Receiver<Message>) {
        let mut wait = None;
        loop {
            let message = match wait {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => inbox.recv_timeout(wait),
            };
            match message {
                Ok(message) => {
                    self.take(prelude, message);
                    // Calls that came meanwhile go before timers, so many of them.
                    for message in inbox.try_iter().take(64) {
                        self.take(prelude, message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.drain();
            wait = self.tick(prelude);
        }
    }

    fn take(&self, prelude: &Prelude, message: Message) {
        match message {
            Message::Begin { run_id, shared } => {
                self.enter(&prelude.begin, (run_id, shared));
            }
            Message::Forget(user) => {
                self.enter(&prelude.forget, (user as f64,));
            }
            Message::Call { id, json, reply } => {
                self.desk.pending.borrow_mut().insert(id, reply);
                if let Some(error) = self.enter(&prelude.enter, (id as f64, json)) {
                    let failed = Finished {
                        error,
                        changes: String::new(),
                        value: String::new(),
                    };
                    self.desk.finish(id, &failed);
                }
                self.drain();
            }
        }
    }

    /// Calls a function of the prelude; gives the error as JSON when it throws.
    fn enter<A>(&self, function: &Persistent<Function<'static>>, args: A) -> Option<String>
    where
        A: for<'js> rquickjs::function::IntoArgs<'js>,
    {
        self.deadline.set(spent() + MAX_COMPUTE);
        self.context.with(|ctx| {
            let function = function.clone().restore(&ctx);
            let called = function.and_then(|f| f.call::<_, Value<'_>>(args).map(|_| ()));
            let error = called.catch(&ctx).err()?;
            let (shown, stack) = described(&error);
            let label = match shown.contains("interrupted") {
                true => TIMED_OUT.to_owned(),
                false => shown.clone(),
            };
            Some(serde_json::json!([label, shown, stack]).to_string())
        })
    }

    /// Runs what promises have queued, for as long as one call may compute.
    fn drain(&self) {
        let until = spent() + MAX_COMPUTE;
        self.deadline.set(until);
        loop {
            match self.runtime.execute_pending_job() {
                Ok(true) if spent() < until => {}
                Ok(_) => return,
                Err(error) => {
                    error.0.with(|ctx| {
                        let thrown = ctx.catch();
                        let (shown, stack) =
                            described(&CaughtError::from_error(&ctx, ctx.throw(thrown)));
                        self.desk.setting.sink.complain(placed(&shown, &stack));
                    });
                }
            }
        }
    }

    /// Runs timers that are due; gives the time until the next, none when there is none.
    fn tick(&self, prelude: &Prelude) -> Option<Duration> {
        for _ in 0..64 {
            self.deadline.set(spent() + MAX_COMPUTE);
            let next = self.context.with(|ctx| {
                let tick = prelude.tick.clone().restore(&ctx);
                let ticked = tick.and_then(|f| f.call::<_, f64>(()));
                ticked.catch(&ctx).unwrap_or_else(|error| {
                    let (shown, stack) = described(&error);
                    self.desk.setting.sink.complain(placed(&shown, &stack));
                    0.0
                })
            });
            self.drain();
            if next < 0.0 {
                // A job may have set a timer after the count was taken.
                return self.runtime.is_job_pending().then_some(Duration::ZERO);
            }
            if next > 0.0 {
                return Some(Duration::from_secs_f64(next.min(3_600_000.0) / 1e3));
            }
        }
        Some(Duration::ZERO)
    }
}

impl Desk {
    /// Answers a call.
    pub(super) fn finish(&self, id: u64, finished: &Finished) {
        let Some(reply) = self.pending.borrow_mut().remove(&id) else {
            return;
        };
        let mut returned = Returned {
            set: serde_json::Map::new(),
            gone: Vec::new(),
            value: serde_json::from_str(&finished.value).unwrap_or(Json::Null),
            failed: None,
        };
        if let Ok((set, gone)) = serde_json::from_str(&finished.changes) {
            (returned.set, returned.gone) = (set, gone);
        }
        if let Ok((label, shown, stack)) =
            serde_json::from_str::<(String, String, String)>(&finished.error)
        {
            self.setting.sink.complain(placed(&shown, &stack));
            returned.failed = Some(label);
        }
        let _ = reply.send(returned);
    }
}

/// Text and stack of what was thrown.
fn described(error: &CaughtError<'_>) -> (String, String) {
    match error {
        CaughtError::Exception(exception) => {
            let name: String = exception.as_object().get("name").unwrap_or_default();
            let message = exception.message().unwrap_or_default();
            let shown = match message.as_str() {
                "interrupted" => format!(
                    "interrupted: it took more than {} s of CPU time",
                    MAX_COMPUTE.as_secs()
                ),
                message => format!("{name}: {message}"),
            };
            (shown, exception.stack().unwrap_or_default())
        }
        CaughtError::Value(value) => {
            let text = value.as_string().and_then(|s| s.to_string().ok());
            (text.unwrap_or_else(|| format!("{value:?}")), String::new())
        }
        CaughtError::Error(error) => (error.to_string(), String::new()),
    }
}

/// The first place of a stack that is not in the project's own JavaScript: file, line, column.
fn first_place(stack: &str) -> Option<(String, usize, usize)> {
    stack.lines().find_map(|line| {
        let place = match line.rsplit_once('(') {
            Some((_, rest)) => rest.trim_end().trim_end_matches(')'),
            None => line.trim().strip_prefix("at ")?,
        };
        let mut parts = place.rsplitn(3, ':');
        let column: usize = parts.next()?.parse().ok()?;
        let number: usize = parts.next()?.parse().ok()?;
        let file = parts.next()?;
        if file.starts_with(OWN) || !Path::new(file).is_absolute() {
            return None;
        }
        let wrapped = number == 1 && matches!(modules::kind(Path::new(file)), Ok(Found::Common(_)));
        let column = if wrapped {
            column.saturating_sub(WRAPPER.len())
        } else {
            column
        };
        Some((file.to_owned(), number, column.max(1)))
    })
}

/// An error with its place, the line and a caret.
fn placed(shown: &str, stack: &str) -> String {
    let Some((file, line, column)) = first_place(stack) else {
        return shown.to_owned();
    };
    let text = modules::text(Path::new(&file)).unwrap_or_default();
    let source = text
        .lines()
        .nth(line - 1)
        .unwrap_or_default()
        .replace('\t', " ");
    let source: String = source.chars().take(200).collect();
    let indent = " ".repeat(column.saturating_sub(1).min(source.chars().count()));
    format!("{file}:{line}:{column}: {shown}\n  {source}\n  {indent}^")
}

/// What Node says of a call of something that is no function: its name, from the text at the place of the error.
pub(super) fn called(stack: &str) -> Option<String> {
    let (file, line, column) = first_place(stack)?;
    let text = modules::text(Path::new(&file)).ok()?;
    let source: Vec<char> = text.lines().nth(line - 1)?.chars().collect();
    let part = |c: &char| c.is_alphanumeric() || "_$.".contains(*c);
    // The place is the call's parenthesis, or somewhere in what is called.
    let open = (column - 1..source.len()).find(|at| source[*at] == '(')?;
    let begin = source[..open]
        .iter()
        .rposition(|c| !part(c))
        .map_or(0, |at| at + 1);
    let name: String = source[begin..open].iter().collect();
    (!name.is_empty()).then(|| format!("{name} is not a function"))
}
