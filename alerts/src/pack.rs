//! The shipped packs: rule and SLO files that are part of the binary.
//!
//! Owns the embedding of `alerts/rules/*.yaml`. Must not know evaluation.

use crate::file_error::FileError;
use crate::rules::{RuleFile, scale};
use crate::slo::{self, SloFile};

const REFERENCE: (&str, &str) = ("reference.yaml", include_str!("../rules/reference.yaml"));
const SLOS: (&str, &str) = ("slos.yaml", include_str!("../rules/slos.yaml"));

/// The shipped rule files: (name, text) in Prometheus' format.
#[must_use]
pub fn shipped() -> Vec<(&'static str, &'static str)> {
    vec![REFERENCE]
}

/// The shipped SLO files: (name, text).
#[must_use]
pub fn shipped_slos() -> Vec<(&'static str, &'static str)> {
    vec![SLOS]
}

/// The shipped SLOs, read. Tests hold them to be valid, so an error means a damaged binary.
pub fn slos() -> Result<SloFile, FileError> {
    SloFile::parse(SLOS.0, SLOS.1)
}

/// Everything shipped, as rules to evaluate: the reference pack and the rules of the SLOs, with every window divided
/// by `time_scale` (1 for real time).
pub fn rules(time_scale: f64) -> Result<Vec<RuleFile>, FileError> {
    let mut files = Vec::new();
    // SLO recordings first: the alerts of the pack may use them in the same tick.
    files.push(slo::rules(&slos()?)?);
    for (name, text) in shipped() {
        files.push(RuleFile::parse(name, text)?);
    }
    Ok(files.iter().map(|f| scale(f, time_scale)).collect())
}
