//! The CI files for users: their steps are taken from the YAML and run as a runner runs them.
//!
//! Owns the little of GitHub's and GitLab's runners that the steps need. Must not know what the steps do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

const GITHUB: &str = include_str!("../../docs/ci/github.yml");
const GITLAB: &str = include_str!("../../docs/ci/gitlab.yml");

type Variables = BTreeMap<String, String>;

fn free() -> u16 {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    port.local_addr().expect("an address").port()
}

/// The file on ports of its own and with short runs.
fn adapted(text: &str) -> String {
    let (listen, admin) = (free(), free());
    text.replace("127.0.0.1:8080", &format!("127.0.0.1:{listen}"))
        .replace("127.0.0.1:8081", &format!("127.0.0.1:{admin}"))
        .replace("DURATION: 60s", "DURATION: 11s")
        .replace("--warm-up 5s", "--warm-up 1s")
}

fn texts(map: &Json) -> Variables {
    let pairs = map.as_object().expect("variables");
    pairs
        .iter()
        .map(|(k, v)| {
            (
                k.clone(),
                v.as_str().expect("variables are texts").to_owned(),
            )
        })
        .collect()
}

/// Runs a script as the runners do: bash, stopping at the first failure.
fn script(text: &str, dir: &Path, variables: &Variables) -> (i32, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_nines"))
        .parent()
        .expect("a folder");
    let path = std::env::var("PATH").expect("PATH is set");
    let out = dir.join("step.log");
    let log = std::fs::File::create(&out).expect("a log");
    let status = Command::new("bash")
        .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", text])
        .current_dir(dir)
        .env_remove("NINES_URL")
        .env("PATH", format!("{}:{path}", binary.display()))
        .envs(variables)
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .status()
        .expect("bash is installed");
    (
        status.code().unwrap_or(-1),
        std::fs::read_to_string(out).expect("the log is text"),
    )
}

/// Kills what a failed test left running.
struct Service<'a>(&'a Path, &'a str);

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let text = std::fs::read_to_string(self.0.join(self.1)).unwrap_or_default();
        let pid = text
            .rsplit(['=', '\n'])
            .find(|p| p.trim().parse::<u32>().is_ok());
        if let Some(pid) = pid {
            let _ = Command::new("kill").arg(pid.trim()).output();
        }
    }
}

fn attributes<'a>(step: &'a Json, name: &str) -> &'a str {
    step[name].as_str().unwrap_or_default()
}

/// Runs the GitHub job's steps; the code and output of the gate.
fn github(dir: &Path, main: bool, tighter: bool) -> (i32, String) {
    let mut text = adapted(GITHUB);
    if tighter {
        text = text.replace("p95<500ms", "p95<1us");
    }
    let read: Json = serde_saphyr::from_str(&text).expect("the workflow is YAML");
    let job = &read["jobs"]["gate"];
    let mut variables = texts(&job["env"]);
    let (env, summary) = (dir.join("github.env"), dir.join("summary.md"));
    std::fs::write(&env, "").expect("a file");
    std::fs::write(&summary, "").expect("a file");
    variables.insert("GITHUB_ENV".into(), env.display().to_string());
    variables.insert("GITHUB_STEP_SUMMARY".into(), summary.display().to_string());
    let _service = Service(dir, "github.env");
    let (mut gate, mut failed) = (None, false);
    let steps = job["steps"].as_array().expect("steps");
    for step in steps {
        let (name, run) = (attributes(step, "name"), attributes(step, "run"));
        // The binary is there already; actions are GitHub's.
        if run.is_empty() || name == "Install nines" {
            continue;
        }
        let wanted = match attributes(step, "if") {
            "" => !failed,
            "always()" => true,
            "github.ref == 'refs/heads/main'" => main && !failed,
            other => panic!("a condition this test does not know: {other}"),
        };
        if !wanted {
            continue;
        }
        for line in std::fs::read_to_string(&env).expect("a file").lines() {
            let (name, value) = line.split_once('=').expect("NAME=value");
            variables.insert(name.to_owned(), value.to_owned());
        }
        let (code, output) = script(run, dir, &variables);
        if name == "Load and gate" {
            gate = Some((code, output));
        } else {
            assert_eq!(code, 0, "{name}: {output}");
        }
        failed |= code != 0;
    }
    gate.expect("the workflow has a step that loads and gates")
}

#[test]
fn the_files_are_yaml_with_what_a_runner_needs() {
    let github: Json = serde_saphyr::from_str(GITHUB).unwrap();
    let steps = github["jobs"]["gate"]["steps"].as_array().unwrap();
    assert!(
        steps
            .iter()
            .all(|s| s["run"].is_string() != s["uses"].is_string())
    );
    let upload = steps
        .iter()
        .find(|s| attributes(s, "name") == "Artefacts")
        .unwrap();
    for file in ["run.json", "load.xml", "load.md", "load.csv"] {
        let run = steps
            .iter()
            .find(|s| attributes(s, "name") == "Load and gate")
            .unwrap();
        assert!(
            attributes(run, "run").contains(file),
            "{file} is not written"
        );
        assert!(
            attributes(&upload["with"], "path").contains(file),
            "{file} is not kept"
        );
    }
    let gitlab: Json = serde_saphyr::from_str(GITLAB).unwrap();
    assert_eq!(gitlab["load"]["artifacts"]["reports"]["junit"], "load.xml");
    assert_eq!(
        gitlab["load"]["artifacts"]["reports"]["metrics"],
        "load.txt"
    );
}

#[test]
#[ignore = "takes a minute"]
fn load_ci_steps_pass_compare_and_fail() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    // The main branch leaves a baseline.
    let (code, output) = github(dir.path(), true, false);
    assert_eq!(code, 0, "{output}");
    assert_eq!(read("baseline.json"), read("run.json"));
    // A pull request that breaks a rule is compared, annotated, summed up, and fails.
    let (code, output) = github(dir.path(), false, true);
    assert_eq!(code, 3, "{output}");
    assert!(
        output.contains("::error title=nines gate::p95<1us"),
        "{output}"
    );
    assert!(
        output.contains("all requests p50"),
        "compared with the baseline: {output}"
    );
    assert!(
        read("summary.md").contains("**broken** | `p95<1us`"),
        "{}",
        read("summary.md")
    );
    assert!(read("load.xml").contains("<failure") && read("load.csv").lines().count() > 10);

    let text = adapted(GITLAB);
    let job: Json = serde_saphyr::from_str(&text).unwrap();
    let job = &job["load"];
    let mut variables = texts(&job["variables"]);
    variables.insert("CI_COMMIT_BRANCH".into(), "main".into());
    variables.insert("CI_DEFAULT_BRANCH".into(), "main".into());
    std::fs::remove_file(dir.path().join("baseline.json")).unwrap();
    let _service = Service(dir.path(), "service.pid");
    // GitLab runs the lines of a script in one shell.
    let lines = |name: &str| -> String {
        let all = job[name].as_array().unwrap().iter();
        all.map(|l| l.as_str().unwrap().to_owned() + "\n").collect()
    };
    let (code, output) = script(&lines("script"), dir.path(), &variables);
    assert_eq!(code, 0, "{output}");
    assert!(read("load.txt").ends_with("# EOF\n") && read("baseline.json") == read("run.json"));
    let (code, output) = script(&lines("after_script"), dir.path(), &variables);
    assert_eq!(code, 0, "{output}");
}
