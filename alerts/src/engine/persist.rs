//! Alert state on disk: one small file, replaced whole.
//!
//! Owns the file's format: a header line `nines-alert-state 1 crc32=<8 hex>` and JSON. A write goes to a temporary
//! file, is synced, renamed over the old one, and the directory is synced. Must not know evaluation.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use model::Labels;
use serde::{Deserialize, Serialize};

use super::state::{Active, AlertState};

/// Version of the format.
pub(super) const VERSION: u32 = 1;
const FILE: &str = "alert-state.json";
const MAGIC: &str = "nines-alert-state 1 crc32=";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) version: u32,
    pub(super) rules: Vec<SavedRule>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedRule {
    pub(super) key: String,
    pub(super) last_ms: Option<i64>,
    pub(super) alerts: Vec<SavedAlert>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedAlert {
    state: AlertState,
    labels: Labels,
    annotations: BTreeMap<String, String>,
    value: String,
    active_at_ms: i64,
    fired_at_ms: Option<i64>,
    resolved_at_ms: Option<i64>,
    keep_firing_since_ms: Option<i64>,
}

impl From<&Active> for SavedAlert {
    fn from(a: &Active) -> Self {
        SavedAlert {
            state: a.state,
            labels: a.labels.clone(),
            annotations: a.annotations.clone(),
            value: model::api::format_float(a.value),
            active_at_ms: a.active_at_ms,
            fired_at_ms: a.fired_at_ms,
            resolved_at_ms: a.resolved_at_ms,
            keep_firing_since_ms: a.keep_firing_since_ms,
        }
    }
}

impl From<SavedAlert> for Active {
    fn from(a: SavedAlert) -> Self {
        Active {
            state: a.state,
            labels: a.labels,
            annotations: a.annotations,
            value: model::api::parse_float(&a.value).unwrap_or(f64::NAN),
            active_at_ms: a.active_at_ms,
            fired_at_ms: a.fired_at_ms,
            resolved_at_ms: a.resolved_at_ms,
            keep_firing_since_ms: a.keep_firing_since_ms,
        }
    }
}

/// Writes `bytes` to `dir/name` so that a crash leaves the old file or the new one, never a mixture.
pub(crate) fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

pub(super) fn save(dir: &Path, saved: &Saved) -> std::io::Result<()> {
    let json = serde_json::to_string(saved)?;
    let text = format!("{MAGIC}{:08x}\n{json}\n", crc32fast::hash(json.as_bytes()));
    replace_file(dir, FILE, text.as_bytes())
}

/// The saved state; `None` when there is none. A damaged file is renamed to `alert-state.json.damaged`.
pub(super) fn load(dir: &Path) -> Result<Option<Saved>, String> {
    let path = dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            return Err(set_aside(&path, "it is not text"));
        }
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    match decode(&text) {
        Ok(saved) => Ok(Some(saved)),
        Err(reason) => Err(set_aside(&path, &reason)),
    }
}

fn set_aside(path: &Path, reason: &str) -> String {
    let aside = path.with_extension("json.damaged");
    let moved = match fs::rename(path, &aside) {
        Ok(()) => format!("it was moved to {}", aside.display()),
        Err(e) => format!("it could not be moved: {e}"),
    };
    format!(
        "{} is damaged ({reason}); {moved}; alert state begins anew",
        path.display()
    )
}

fn decode(text: &str) -> Result<Saved, String> {
    let (header, json) = text.split_once('\n').ok_or("it has no header")?;
    let json = json.strip_suffix('\n').ok_or("it is cut short")?;
    let crc = header.strip_prefix(MAGIC).ok_or("its header is not ours")?;
    if crc != format!("{:08x}", crc32fast::hash(json.as_bytes())) {
        return Err("its checksum does not match".into());
    }
    serde_json::from_str(json).map_err(|e| e.to_string())
}
