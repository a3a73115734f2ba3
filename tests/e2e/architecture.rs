//! The architecture test: the edge table of ARCHITECTURE.md against the workspace, and the rules every file obeys.
//!
//! Owns the reading of the table. Must not know what the crates do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table's rows: crate -> crates it may use.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md"))
        .expect("ARCHITECTURE.md is readable");
    let rows = text
        .lines()
        .skip_while(|l| !l.starts_with("| crate | may use |"))
        .skip(2)
        .take_while(|l| l.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let uses = cells[2]
            .split(',')
            .map(str::trim)
            .filter(|c| !c.is_empty() && *c != "-");
        (
            cells[1].trim_matches('`').to_owned(),
            uses.map(str::to_owned).collect(),
        )
    })
    .collect()
}

/// What the manifests say: crate -> workspace crates it depends on (tests' own dependencies left out).
fn actual() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let edges = |package: &serde_json::Value| -> BTreeSet<String> {
        let all = package["dependencies"].as_array().expect("dependencies");
        let normal = all.iter().filter(|d| d["kind"].is_null());
        let names = normal.filter_map(|d| d["name"].as_str());
        names
            .filter(|n| ours.contains(n))
            .map(str::to_owned)
            .collect()
    };
    packages
        .iter()
        .map(|p| (p["name"].as_str().expect("a name").to_owned(), edges(p)))
        .collect()
}

#[test]
fn every_edge_is_in_the_table() {
    let (allowed, actual) = (allowed(), actual());
    assert!(
        actual.len() >= 11,
        "the workspace has lost crates: {actual:?}"
    );
    for (name, uses) in &actual {
        let row = allowed
            .get(name)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no row for {name}"));
        let beyond: Vec<&String> = uses.difference(row).collect();
        assert!(
            beyond.is_empty(),
            "{name} uses {beyond:?}, which ARCHITECTURE.md does not allow"
        );
    }
}

fn rust_files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    text.lines()
        .map(|l| root().join(l))
        .filter(|p| p.exists())
        .collect()
}

#[test]
fn every_file_says_what_it_owns_and_fits_in_a_head() {
    let files = rust_files();
    assert!(
        files.len() > 50,
        "git lists only {} Rust files",
        files.len()
    );
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source file is readable");
        let name = path.display();
        assert!(
            text.starts_with("//!") || text.starts_with("#![no_main]"),
            "{name} does not open with //!"
        );
        let lines = text.lines().count();
        assert!(lines <= 900, "{name} has {lines} lines; the limit is 900");
    }
}

#[test]
fn unsafe_stays_out() {
    let manifest =
        std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml is readable");
    assert!(manifest.contains("unsafe_code = \"deny\""));
    for path in rust_files()
        .iter()
        .filter(|p| !p.ends_with("tests/e2e/architecture.rs"))
    {
        let text = std::fs::read_to_string(path).expect("a source file is readable");
        assert!(
            !text.contains("allow(unsafe_code)"),
            "{} allows unsafe code",
            path.display()
        );
    }
}
