//! Runs PromQL conformance scripts (Prometheus' `promqltest` language) from the folder that `PROMQLTEST_DIR` names.
//!
//! Owns the reading of scripts and the comparison of answers. Must not know how queries are evaluated. The scripts are
//! not part of this repository; the total that must pass is in `conformance.floor`.

mod script;
mod storage;
mod verdict;

use std::path::{Path, PathBuf};

#[derive(Default)]
struct Tally {
    passed: usize,
    total: usize,
    failures: Vec<String>,
}

fn run_file(path: &Path) -> Tally {
    run(&std::fs::read_to_string(path).expect("a readable script"))
}

fn run(text: &str) -> Tally {
    let mut tally = Tally::default();
    let mut storage = storage::Storage::default();
    for command in script::parse(text) {
        match command {
            script::Command::Clear => storage = storage::Storage::default(),
            script::Command::Load(load) => {
                if let Err(e) = storage.load(&load) {
                    tally.failures.push(format!("load: {e}"));
                }
            }
            script::Command::Eval(eval) => {
                tally.total += 1;
                match verdict::judge(&eval, &storage) {
                    Ok(()) => tally.passed += 1,
                    Err(e) => tally
                        .failures
                        .push(format!("line {}: {}\n      {e}", eval.line, eval.expr)),
                }
            }
            script::Command::Broken(line, e) => {
                tally.total += 1;
                tally.failures.push(format!("line {line}: script: {e}"));
            }
        }
    }
    tally
}

#[test]
fn own_cases() {
    let tally = run(include_str!("own.test"));
    assert!(tally.failures.is_empty(), "{}", tally.failures.join("\n"));
    assert!(tally.total > 50);
}

#[test]
fn conformance() {
    let Ok(dir) = std::env::var("PROMQLTEST_DIR") else {
        println!("PROMQLTEST_DIR is not set: conformance scripts not run");
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("PROMQLTEST_DIR is a folder")
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "test"))
        .collect();
    files.sort();
    let only = std::env::var("PROMQLTEST_ONLY").ok();
    let (mut passed, mut total) = (0, 0);
    for file in &files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if only.as_ref().is_some_and(|o| *o != name) {
            continue;
        }
        let tally = run_file(file);
        println!("{name:24} {:5} of {:5}", tally.passed, tally.total);
        for failure in &tally.failures {
            println!("    {failure}");
        }
        passed += tally.passed;
        total += tally.total;
    }
    println!("{:24} {passed:5} of {total:5}", "all");
    let floor: usize = include_str!("conformance.floor")
        .trim()
        .parse()
        .expect("a number in conformance.floor");
    assert!(
        only.is_some() || passed >= floor,
        "{passed} evaluations pass, {floor} must"
    );
}
