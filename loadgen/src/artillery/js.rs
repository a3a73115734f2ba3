//! Owns the JavaScript of a script: its `processor`, read once, on one thread of its own with limits of time and
//! memory, called by the virtual users. Must not know steps, requests or reports.
//!
//! One thread, as in Artillery: what a module keeps in its variables is seen by all users. A call that computes for too
//! long delays other calls, never the requests of users who make none.

mod digest;
mod host;
mod modules;
mod realm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use super::run::Event;
use super::vu::{Shared, lock};

/// The most CPU time a function may take before control comes back, whatever called it.
const MAX_COMPUTE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 10_000 });
/// The longest a function may take until it says that it is done.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The most memory of all JavaScript of a run, in bytes.
const MAX_MEMORY: usize = 512 << 20;
/// The most different errors shown in a run.
const MAX_SHOWN: usize = 20;
/// What is counted for a call that took too long.
const TIMED_OUT: &str = "ERR_SCRIPT_TIMEOUT";

/// A processor that has been read: its functions, and the thread they run on.
pub(crate) struct Processor {
    calls: Sender<Message>,
    functions: Vec<String>,
    sink: Arc<Sink>,
    next: AtomicU64,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.functions).finish()
    }
}

/// Why a processor cannot be used: where it stands, when that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub(crate) file: PathBuf,
    /// Line and column from 1.
    pub(crate) at: Option<(usize, usize)>,
    pub(crate) why: String,
    /// Hint for the reader.
    pub(crate) hint: Option<String>,
}

/// What a call gave.
#[derive(Debug)]
pub(crate) struct Returned {
    /// Variables that the script set, and those it deleted.
    pub(crate) set: serde_json::Map<String, Value>,
    pub(crate) gone: Vec<String>,
    /// As the kind of call says.
    pub(crate) value: Value,
    /// What is counted as the error, when it ended with one.
    pub(crate) failed: Option<String>,
}

enum Message {
    Begin { run_id: String, shared: String },
    Call { id: u64, json: String, reply: Reply },
    Forget(u64),
}

type Reply = oneshot::Sender<Returned>;

impl Processor {
    /// Reads a processor and whatever it requires. `env` is what `process.env` holds.
    pub(crate) fn load(
        file: &Path,
        directory: &Path,
        env: &BTreeMap<String, String>,
    ) -> Result<Processor, Unusable> {
        let sink = Arc::new(Sink::default());
        let (calls, inbox) = std::sync::mpsc::channel();
        let (told, loaded) = std::sync::mpsc::channel();
        let setting = realm::Setting {
            file: file.to_owned(),
            directory: directory.to_owned(),
            env: env.clone(),
            sink: Arc::clone(&sink),
        };
        let unusable = |why: String| Unusable {
            file: file.to_owned(),
            at: None,
            why,
            hint: None,
        };
        std::thread::Builder::new()
            .name("javascript".to_owned())
            .stack_size(8 << 20)
            .spawn(move || realm::live(setting, &inbox, &told))
            .map_err(|e| unusable(format!("no thread for it: {e}")))?;
        let functions = loaded
            .recv()
            .map_err(|_| unusable("it ended the JavaScript engine".to_owned()))??;
        Ok(Processor {
            calls,
            functions,
            sink,
            next: AtomicU64::new(1),
        })
    }

    /// Whether it exports a function of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.functions.iter().any(|f| f == name)
    }

    /// The names of its functions.
    pub(crate) fn functions(&self) -> &[String] {
        &self.functions
    }

    /// A number that no other user or request has.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on what it says and counts goes to this run. `shared` are variables that are the same for all users.
    pub(crate) fn begin(&self, run: &Arc<Shared>, shared: &Value) {
        for (wrong, text) in self.sink.attach(run) {
            run.tell(said(wrong, text));
        }
        let _ = self.calls.send(Message::Begin {
            run_id: run.run_id.clone(),
            shared: shared.to_string(),
        });
    }

    /// A user is gone.
    pub(crate) fn forget(&self, user: u64) {
        let _ = self.calls.send(Message::Forget(user));
    }

    fn send(&self, call: &Value) -> oneshot::Receiver<Returned> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Call {
            id: self.number(),
            json: call.to_string(),
            reply,
        };
        // The thread ends after the last sender: until then it takes calls.
        let _ = self.calls.send(message);
        answer
    }

    /// Makes a call and waits until the function is done, or has taken too long.
    pub(crate) async fn call(&self, call: &Value) -> Returned {
        match tokio::time::timeout(MAX_WAIT, self.send(call)).await {
            Ok(Ok(returned)) => returned,
            Ok(Err(_)) => Returned::failed(TIMED_OUT.to_owned()),
            Err(_) => {
                let seconds = MAX_WAIT.as_secs();
                let name = call["name"].as_str().unwrap_or("a hook");
                self.sink.complain(format!(
                    "{name} has not called back within {seconds} s; its user gives up"
                ));
                Returned::failed(TIMED_OUT.to_owned())
            }
        }
    }

    /// Makes a call that the thread answers at once, and waits for it here.
    pub(crate) fn call_now(&self, call: &Value) -> Option<Returned> {
        let mut answer = self.send(call);
        let began = std::time::Instant::now();
        loop {
            match answer.try_recv() {
                Ok(returned) => return Some(returned),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => {
                    if began.elapsed() > 2 * MAX_COMPUTE {
                        return None;
                    }
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
        }
    }
}

impl Returned {
    fn failed(label: String) -> Returned {
        Returned {
            set: serde_json::Map::new(),
            gone: Vec::new(),
            value: Value::Null,
            failed: Some(label),
        }
    }
}

fn said(wrong: bool, text: String) -> Event {
    match wrong {
        true => Event::Complaint(text),
        false => Event::Log(text),
    }
}

/// Where what the script says and counts goes: kept until there is a run, then to it.
#[derive(Default)]
struct Sink {
    state: Mutex<SinkState>,
}

#[derive(Default)]
struct SinkState {
    run: Option<Weak<Shared>>,
    kept: Vec<(bool, String)>,
    shown: std::collections::BTreeSet<String>,
    exit_code: Option<i32>,
}

impl Sink {
    fn attach(&self, run: &Arc<Shared>) -> Vec<(bool, String)> {
        let mut state = lock(&self.state);
        state.run = Some(Arc::downgrade(run));
        std::mem::take(&mut state.kept)
    }

    fn run(&self) -> Option<Arc<Shared>> {
        lock(&self.state).run.as_ref()?.upgrade()
    }

    fn say(&self, wrong: bool, text: String) {
        if let Some(run) = self.run() {
            run.tell(said(wrong, text));
            return;
        }
        let mut state = lock(&self.state);
        if state.kept.len() < 1_000 {
            state.kept.push((wrong, text));
        }
    }

    /// Shows an error, each once, and so many at most.
    fn complain(&self, text: String) {
        {
            let mut state = lock(&self.state);
            if state.shown.len() >= MAX_SHOWN || !state.shown.insert(text.clone()) {
                return;
            }
        }
        self.say(true, text);
    }
}

impl Processor {
    /// The exit code that the script asked for.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        lock(&self.sink.state).exit_code
    }
}
