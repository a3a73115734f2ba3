//! Owns keeping this machine's processors from sleeping while a run lasts, on demand. A processor that idles sleeps, and
//! waking it makes a request late and costs as much as sending it; real-time tests (cyclictest) and `tuned` forbid it in
//! the same way. Must not know what runs meanwhile.

use std::fs::File;
use std::io::{self, Write};

use crate::LoadError;

/// Linux' promise to its users that no processor takes longer to wake than asked, as long as it is held open
/// (`Documentation/power/pm_qos_interface.rst`).
const PROMISE: &str = "/dev/cpu_dma_latency";

/// While it lives, no processor of this machine sleeps: idle ones turn in place and are no less free for others. They
/// take power, and a server on the same machine wakes more quickly than it would. Ends with the process at the latest.
#[derive(Debug)]
pub struct Awake {
    _promise: File,
}

impl Awake {
    /// From now on. It takes the right to write to `/dev/cpu_dma_latency`, which is root's at first.
    ///
    /// # Errors
    /// When this machine has no such file (it is not Linux, or a container), or may not be told so.
    pub fn hold() -> Result<Awake, LoadError> {
        hold(PROMISE)
    }
}

fn hold(path: &str) -> Result<Awake, LoadError> {
    let promise = || -> io::Result<File> {
        let mut file = File::options().write(true).open(path)?;
        // A 32-bit number of microseconds.
        file.write_all(&0_i32.to_ne_bytes())?;
        Ok(file)
    };
    match promise() {
        Ok(file) => Ok(Awake { _promise: file }),
        Err(e) => {
            let way = match e.kind() {
                io::ErrorKind::PermissionDenied => "run as root, or let this user write to it",
                io::ErrorKind::NotFound => {
                    "only Linux has it, and a container only when it is given to it as a device"
                }
                _ => "this kernel does not take the request",
            };
            Err(LoadError::Awake(format!("{path}: {e}; {way}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_no_delay_in_the_kernels_form_and_says_why_it_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latency");
        let path = path.to_str().unwrap();
        let why = hold(path).unwrap_err().to_string();
        assert!(
            why.contains(path) && why.contains("only Linux has it"),
            "{why}"
        );
        std::fs::write(path, "").unwrap();
        let held = hold(path).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), [0; 4]);
        drop(held);
        let why = hold(folder.path().to_str().unwrap()).unwrap_err();
        assert!(why.to_string().contains("does not take"), "{why}");
    }
}
