//! The help pages of `nines load`, as a user of wrk2, vegeta, oha or hey meets them, and the flags these users type.
//!
//! Owns the pages' snapshots. Must not know what the flags do.

use super::running::{nines, stderr, stdout};

/// The page of a subcommand; it must not depend on the caller's environment.
fn page(name: &str) -> String {
    let output = nines(&["load", name, "--help"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = stdout(&output);
    // Values of variables are the caller's.
    lines
        .lines()
        .map(|l| l.trim_end().to_owned() + "\n")
        .collect()
}

#[test]
fn help_pages_are_as_they_were() {
    insta::assert_snapshot!("load_capacity", page("capacity"));
    // These grow with every front end: what must stay is what a user of another tool looks for.
    for (name, flags) in [
        (
            "rate",
            &[
                "-R, --rate",
                "-d, --duration",
                "-c, --connections",
                "--remote-write",
                "--shard",
            ][..],
        ),
        (
            "closed",
            &["-n, --requests", "-d, --duration", "-c, --connections"],
        ),
        ("quick", &["-c, --count", "-n, --num"]),
        ("merge", &["-o, --output", "--baseline"]),
        (
            "run",
            &["-t, --target", "--junit", "--baseline", "--beside"],
        ),
    ] {
        let text = page(name);
        for flag in flags {
            assert!(text.contains(flag), "{name}: {flag} is not in {text}");
        }
    }
}

#[test]
fn habits_of_other_tools_work() {
    let url = "http://127.0.0.1:9/";
    for args in [
        // wrk2: -c connections, -d duration, -R rate
        &["rate", "-c", "10", "-d", "1s", "-R", "20"][..],
        // vegeta: a rate per time
        &["rate", "--rate", "20/1s", "--duration=1s"],
        // oha, hey: -z duration, -n requests, -c connections, -m method
        &[
            "rate", "--rate", "1200/m", "-z", "1s", "-c", "5", "-m", "head",
        ],
        &["closed", "-n", "3", "-c", "2", "-z", "1"],
    ] {
        let all = [&["load"], args, &[url]].concat();
        let output = nines(&all);
        let text = stdout(&output);
        // Nobody listens: the load ran and says so.
        assert_eq!(
            output.status.code(),
            Some(3),
            "{args:?}: {text}{}",
            stderr(&output)
        );
        assert!(text.contains("refused: "), "{args:?}: {text}");
        assert!(
            args[0] == "closed" || text.contains("planned 20 "),
            "{args:?}: {text}"
        );
    }
    let output = nines(&["load", "rate", "--rate", "20/x", url]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("3000/m"), "{}", stderr(&output));
}
