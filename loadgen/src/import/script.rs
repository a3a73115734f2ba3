//! Owns the text of an imported script: YAML that Artillery and `nines load run` read, every value quoted.
//! Must not know where the requests come from.

use std::fmt::Write;

use serde_json::Value;

/// A script to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    /// Comment lines at the top.
    pub(super) about: Vec<String>,
    pub(super) target: String,
    /// Users a second.
    pub(super) rate: u32,
    pub(super) duration_s: u64,
    /// Lists of which each user draws one value.
    pub(super) variables: Vec<(String, Vec<String>)>,
    pub(super) scenarios: Vec<Scene>,
}

/// A scenario.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    pub(super) name: String,
    pub(super) weight: u64,
    pub(super) steps: Vec<Step>,
}

/// A step of a flow.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A comment: the page that begins.
    Page(String),
    /// Seconds.
    Think(f64),
    Send(Box<Request>),
}

/// A request.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    /// Lower case.
    pub(super) method: String,
    /// Path and query.
    pub(super) url: String,
    pub(super) name: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) cookies: Vec<(String, String)>,
    pub(super) body: Body,
    /// Stay at a redirect: what follows is a request of its own.
    pub(super) stay: bool,
}

/// What is sent.
#[derive(Debug, Clone, Default)]
pub(super) enum Body {
    #[default]
    None,
    Text(String),
    Json(Value),
    Form(Value),
    FormData(Value),
}

impl Draft {
    /// Requests in all scenarios.
    pub(super) fn requests(&self) -> usize {
        let steps = self.scenarios.iter().flat_map(|s| &s.steps);
        steps.filter(|s| matches!(s, Step::Send(_))).count()
    }

    /// The YAML.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        for line in &self.about {
            writeln!(out, "# {}", one_line(line))?;
        }
        writeln!(out, "config:\n  target: {}", quote(&self.target))?;
        writeln!(
            out,
            "  phases:\n    - {{name: imported, duration: {}, arrivalRate: {}}}",
            self.duration_s, self.rate
        )?;
        if !self.variables.is_empty() {
            writeln!(out, "  variables:")?;
        }
        for (name, values) in &self.variables {
            writeln!(out, "    {name}:")?;
            for value in values {
                writeln!(out, "      - {}", quote(value))?;
            }
        }
        writeln!(out, "scenarios:")?;
        for scene in &self.scenarios {
            writeln!(out, "  - name: {}", quote(&scene.name))?;
            if self.scenarios.len() > 1 {
                writeln!(out, "    weight: {}", scene.weight.max(1))?;
            }
            writeln!(out, "    flow:")?;
            for step in &scene.steps {
                match step {
                    Step::Page(title) => writeln!(out, "      # {}", one_line(title))?,
                    Step::Think(seconds) => writeln!(out, "      - think: {seconds}")?,
                    Step::Send(request) => request.write(out)?,
                }
            }
        }
        Ok(())
    }
}

impl Request {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "      - {}:", self.method)?;
        writeln!(out, "          url: {}", quote(&self.url))?;
        writeln!(out, "          name: {}", quote(&self.name))?;
        for (what, pairs) in [("headers", &self.headers), ("cookie", &self.cookies)] {
            if !pairs.is_empty() {
                writeln!(out, "          {what}:")?;
            }
            for (name, value) in pairs {
                writeln!(out, "            {}: {}", quote(name), quote(value))?;
            }
        }
        if self.stay {
            writeln!(out, "          followRedirect: false")?;
        }
        match &self.body {
            Body::None => Ok(()),
            Body::Text(text) => writeln!(out, "          body: {}", quote(text)),
            Body::Json(value) => writeln!(out, "          json: {}", flow(value)),
            Body::Form(value) => writeln!(out, "          form: {}", flow(value)),
            Body::FormData(value) => writeln!(out, "          formData: {}", flow(value)),
        }
    }
}

/// Text for a comment.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(200).collect()
}

/// A YAML text in double quotes; what is no letter of any alphabet and no ASCII is written as its number.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() && (c as u32) < 0x1_0000 => out.push(c),
            c if (c as u32) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => {
                let _ = write!(out, "\\U{:08X}", c as u32);
            }
        }
    }
    out.push('"');
    out
}

/// A value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{}: {}", quote(key), flow(value));
            let pairs: Vec<String> = map.iter().map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// A method as a script's key, when it can be one.
pub(super) fn method(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let known = ["get", "post", "put", "patch", "delete", "head", "options"];
    known.contains(&lower.as_str()).then_some(lower)
}

/// GET, HEAD and OPTIONS, in lower case.
pub(super) fn reads(method: &str) -> bool {
    matches!(method, "get" | "head" | "options")
}
