//! The commands in the documentation, run as they stand: every block marked ```` ```sh run ```` of docs/*.md, with bash, against
//! a started backend (which takes the place of http://127.0.0.1:8080) and agent (of http://127.0.0.1:9909).
//! ```` ```sh run 3 ```` expects that exit code of the last command, ```` ```sh run 0 3 ```` allows both to every command: a load whose
//! generator was late, on a machine that has no time for it, says so with 3.
//!
//! Owns the files that the pages take for granted. Must not know what a page says.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::running::{Agent, Backend, stderr, stdout};

/// A block: its page, the line it begins on, the exit codes that are right, the commands.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    page: String,
    line: usize,
    codes: Vec<i32>,
    commands: String,
}

/// The marked blocks of a page.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            Some(block) if line.starts_with("```") => {
                assert!(
                    !block.commands.trim().is_empty(),
                    "{page}:{}: nothing to run",
                    block.line
                );
                found.extend(open.take());
            }
            Some(block) => {
                block.commands += line;
                block.commands.push('\n');
            }
            None => {
                if let Some(codes) = line.strip_prefix("```sh run") {
                    let read = |word: &str| {
                        let code = word.parse();
                        code.unwrap_or_else(|_| {
                            panic!("{page}:{}: no exit code: {word:?}", number + 1)
                        })
                    };
                    let mut codes: Vec<i32> = codes.split_whitespace().map(read).collect();
                    if codes.is_empty() {
                        codes.push(0);
                    }
                    open = Some(Block {
                        page: page.to_owned(),
                        line: number + 1,
                        codes,
                        commands: String::new(),
                    });
                }
            }
        }
    }
    assert!(open.is_none(), "{page}: a block has no end");
    found
}

/// What the pages take for granted.
fn files(dir: &Path) {
    let api = "openapi: 3.1.0\ninfo: {title: shop, version: '1'}\npaths:\n  /api/products/{id}:\n    get:\n      operationId: product\n      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]\n  /health:\n    get: {operationId: health}\n";
    let line = |at: u32, path: &str| {
        format!(
            "1.1.1.1 - - [10/Oct/2000:13:55:{at:02} -0700] \"GET {path} HTTP/1.1\" 200 12 \"-\" \"x\"\n"
        )
    };
    let log: String = (0..20)
        .map(|n| line(30 + n / 10, &format!("/api/products/{}", 1 + n % 5)))
        .chain([line(32, "/health")])
        .collect();
    let targets = "GET /api/products/1\nAccept: application/json\n\nPOST /api/v1/tasks\nContent-Type: application/json\n@task.json\n";
    for (name, text) in [
        ("api.yaml", api),
        ("access.log", &log),
        ("targets.txt", targets),
        ("task.json", "{\"title\": \"write it\"}"),
        ("nines.yaml", "name: shop\n"),
    ] {
        std::fs::write(dir.join(name), text).expect("written");
    }
}

/// Runs the blocks of a page in order, in one folder. What went wrong.
fn run(blocks: &[Block], backend: &str, agent: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    files(dir.path());
    let nines = Path::new(env!("CARGO_BIN_EXE_nines"));
    let folder = nines.parent().expect("the binary is in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut problems = Vec::new();
    for block in blocks {
        let commands = block
            .commands
            .replace("http://127.0.0.1:8080", backend)
            .replace("http://127.0.0.1:9909", agent);
        // Every command counts, not only the last one.
        let codes: Vec<String> = block.codes.iter().map(i32::to_string).collect();
        let trap = format!(
            "trap 'case $? in {}) ;; *) exit 99 ;; esac' ERR\n",
            codes.join("|")
        );
        let begun = Instant::now();
        let output = Command::new("bash")
            .args(["-uo", "pipefail", "-c", &(trap + &commands)])
            .current_dir(dir.path())
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("NINES_URL", agent)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let place = format!("docs/{}:{}", block.page, block.line);
        println!("{:5.1} s  {place}", begun.elapsed().as_secs_f64());
        let code = output.status.code().unwrap_or(-1);
        if !block.codes.contains(&code) {
            let (out, err) = (stdout(&output), stderr(&output));
            problems.push(format!(
                "{place}: exit code {code} instead of {:?}\n{commands}\n{out}{err}",
                block.codes
            ));
        }
    }
    problems
}

/// Every page with marked blocks.
fn pages() -> Vec<Vec<Block>> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut names: Vec<_> = std::fs::read_dir(&docs)
        .expect("docs is there")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.sort();
    let read = |name: &String| {
        let text = std::fs::read_to_string(docs.join(name)).expect("readable");
        blocks(name, &text)
    };
    names
        .iter()
        .map(read)
        .filter(|page| !page.is_empty())
        .collect()
}

#[test]
fn docs_blocks_are_found() {
    let text = "# x\n```sh run\na\nb\n```\n```sh\nc\n```\n```sh run 0 3\nd\n```\n";
    let found: Vec<_> = blocks("p.md", text)
        .into_iter()
        .map(|b| (b.line, b.codes, b.commands))
        .collect();
    let expected = [
        (2, vec![0], "a\nb\n".to_owned()),
        (9, vec![0, 3], "d\n".to_owned()),
    ];
    assert_eq!(found, expected);
    let pages = pages();
    for page in [
        "ab.md",
        "agent.md",
        "artillery.md",
        "demo.md",
        "gate.md",
        "import.md",
        "load.md",
        "report.md",
    ] {
        assert!(
            pages.iter().any(|blocks| blocks[0].page == page),
            "{page} has no block to run"
        );
    }
}

#[test]
#[ignore = "needs bash, curl and promtool; takes 25 s"]
fn docs_commands_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let (backend, agent) = (Backend::start(), Agent::start(dir.path(), &[]));
    let (backend, agent) = (backend.url.as_str(), agent.url.as_str());
    let problems: Vec<String> = std::thread::scope(|scope| {
        let begin = |page: Vec<Block>| scope.spawn(move || run(&page, backend, agent));
        let running: Vec<_> = pages().into_iter().map(begin).collect();
        let end =
            |page: std::thread::ScopedJoinHandle<'_, Vec<String>>| page.join().expect("no panic");
        running.into_iter().flat_map(end).collect()
    });
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}
