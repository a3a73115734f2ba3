//! Tree to text: on one line, and over several when one is too long. What is printed reads back as the same tree.
//!
//! Owns the layout. Must not know evaluation.

use std::fmt::{self, Write as _};

use model::labels::{is_label_identifier, is_metric_identifier};
use model::{METRIC_NAME, MatchOp, Matcher};

use super::ast::{
    Aggregate, At, Binary, BinaryOp, Cardinality, Duration, DurationKind, Expr, ExprKind,
    Extension, Matching, Modifiers, Selector, ValueType,
};
use super::lexer::raw_byte;
use super::parse::{constant, is_reserved};

/// A line longer than this is broken.
const WIDTH: usize = 100;

/// The expression over as many lines as it takes to keep each short, indented by two spaces a level.
#[must_use]
pub fn format(expr: &Expr) -> String {
    let mut out = String::new();
    pretty(expr, 0, &mut out);
    out
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(v) => f.write_str(&number(*v)),
            ExprKind::String(s) => f.write_str(&quote(s)),
            ExprKind::Selector(s) => selector(f, s, None),
            ExprKind::Matrix(m) => selector(f, &m.selector, Some(&m.range)),
            ExprKind::Subquery(s) => {
                write!(f, "{}[{}:", s.expr, s.range)?;
                if let Some(step) = &s.step {
                    write!(f, "{step}")?;
                }
                f.write_str("]")?;
                modifiers(f, &s.modifiers)
            }
            ExprKind::Call(c) => {
                write!(f, "{}(", c.function.name)?;
                for (i, arg) in c.args.iter().enumerate() {
                    write!(f, "{}{arg}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            ExprKind::Aggregate(a) => {
                write!(f, "{}(", aggregate_head(a))?;
                if let Some(param) = &a.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", a.expr)
            }
            ExprKind::Binary(b) => match infinite_base(b) {
                Some(base) => write!(f, "{base} {} {}", binary_middle(b), b.rhs),
                None => write!(f, "{} {} {}", b.lhs, binary_middle(b), b.rhs),
            },
            ExprKind::Unary(u) => write!(f, "{}{}", if u.negative { "-" } else { "+" }, u.expr),
            ExprKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

fn pretty(expr: &Expr, indent: usize, out: &mut String) {
    let line = expr.to_string();
    let pad = "  ".repeat(indent);
    if pad.len() + line.chars().count() <= WIDTH {
        out.push_str(&pad);
        out.push_str(&line);
        return;
    }
    match &expr.kind {
        ExprKind::Paren(inner) => bracketed(&format!("{pad}("), &[inner], indent, out),
        ExprKind::Call(c) if !c.args.is_empty() => {
            let args: Vec<&Expr> = c.args.iter().collect();
            bracketed(&format!("{pad}{}(", c.function.name), &args, indent, out);
        }
        ExprKind::Aggregate(a) => {
            let args: Vec<&Expr> = a.param.iter().chain([&a.expr]).collect();
            bracketed(&format!("{pad}{}(", aggregate_head(a)), &args, indent, out);
        }
        ExprKind::Binary(b) => {
            match infinite_base(b) {
                Some(base) => {
                    let _ = write!(out, "{pad}  {base}");
                }
                None => pretty(&b.lhs, indent + 1, out),
            }
            let _ = write!(out, "\n{pad}{}\n", binary_middle(b));
            pretty(&b.rhs, indent + 1, out);
        }
        ExprKind::Subquery(s) => {
            pretty(&s.expr, indent, out);
            let whole = line.len() - s.expr.to_string().len();
            out.push_str(&line[line.len() - whole..]);
        }
        _ => {
            out.push_str(&pad);
            out.push_str(&line);
        }
    }
}

fn bracketed(open: &str, args: &[&Expr], indent: usize, out: &mut String) {
    out.push_str(open);
    for (i, arg) in args.iter().enumerate() {
        out.push_str(if i > 0 { ",\n" } else { "\n" });
        pretty(arg, indent + 1, out);
    }
    let _ = write!(out, "\n{})", "  ".repeat(indent));
}

fn aggregate_head(a: &Aggregate) -> String {
    match &a.grouping {
        Some(g) => format!(
            "{} {} {} ",
            a.op.name(),
            if g.without { "without" } else { "by" },
            label_list(&g.labels)
        ),
        None => a.op.name().to_owned(),
    }
}

/// `^` binds more tightly than a sign: an infinity raised to a power is written without one, or it would read back as
/// a sign before the power.
fn infinite_base(b: &Binary) -> Option<&'static str> {
    let infinite = matches!(b.lhs.kind, ExprKind::Number(v) if v == f64::INFINITY);
    (b.op == BinaryOp::Pow && infinite).then_some("Inf")
}

fn binary_middle(b: &Binary) -> String {
    let bool_word = if b.return_bool { " bool" } else { "" };
    format!("{}{bool_word}{}", b.op.text(), matching(&b.matching))
}

fn matching(m: &Matching) -> String {
    let mut out = String::new();
    if m.explicit || !m.labels.is_empty() || m.on {
        let word = if m.on { "on" } else { "ignoring" };
        let _ = write!(out, " {word} {}", label_list(&m.labels));
        let group = match m.cardinality {
            Cardinality::OneToOne => None,
            Cardinality::ManyToOne => Some("group_left"),
            Cardinality::OneToMany => Some("group_right"),
        };
        if let Some(group) = group {
            let _ = write!(out, " {group} {}", label_list(&m.include));
        }
    }
    match (m.fill_left, m.fill_right) {
        (Some(l), Some(r)) if l.to_bits() == r.to_bits() => {
            let _ = write!(out, " fill ({})", number(l));
        }
        (l, r) => {
            for (word, value) in [("fill_left", l), ("fill_right", r)] {
                if let Some(v) = value {
                    let _ = write!(out, " {word} ({})", number(v));
                }
            }
        }
    }
    out
}

fn label_list(labels: &[String]) -> String {
    let names: Vec<String> = labels
        .iter()
        .map(|l| {
            if is_label_identifier(l) {
                l.clone()
            } else {
                quote(l)
            }
        })
        .collect();
    format!("({})", names.join(", "))
}

fn selector(f: &mut fmt::Formatter<'_>, s: &Selector, range: Option<&Duration>) -> fmt::Result {
    let mut matchers: Vec<String> = s.matchers.iter().map(matcher).collect();
    match &s.name {
        Some(name) if is_metric_identifier(name) && !is_taken(name) => f.write_str(name)?,
        Some(name) => matchers.insert(0, quote(name)),
        None => {}
    }
    let plain = s
        .name
        .as_ref()
        .is_some_and(|n| is_metric_identifier(n) && !is_taken(n));
    if !matchers.is_empty() || !plain {
        write!(f, "{{{}}}", matchers.join(", "))?;
    }
    if let Some(range) = range {
        write!(f, "[{range}]")?;
    }
    match s.extension {
        Extension::None => {}
        Extension::Anchored => f.write_str(" anchored")?,
        Extension::Smoothed => f.write_str(" smoothed")?,
    }
    modifiers(f, &s.modifiers)
}

/// Whether a word cannot stand as a metric's name without quotes.
fn is_taken(name: &str) -> bool {
    constant(name).is_some() || is_reserved(name)
}

fn matcher(m: &Matcher) -> String {
    if m.name == METRIC_NAME
        && m.op == MatchOp::Equal
        && !m.value.is_empty()
        && !is_metric_identifier(&m.value)
    {
        return quote(&m.value);
    }
    let name = if is_label_identifier(&m.name) {
        m.name.clone()
    } else {
        quote(&m.name)
    };
    format!("{name}{}{}", m.op, quote(&m.value))
}

fn modifiers(f: &mut fmt::Formatter<'_>, m: &Modifiers) -> fmt::Result {
    match m.at {
        None => {}
        Some(At::Time(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let ms = ms.unsigned_abs();
            write!(f, " @ {sign}{}.{:03}", ms / 1000, ms % 1000)?;
        }
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
    }
    match &m.offset {
        Some(offset) => write!(f, " offset {offset}"),
        None => Ok(()),
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationKind::Seconds(s) => f.write_str(&seconds(*s)),
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::MinOf(a, b) => write!(f, "min_of({a}, {b})"),
            DurationKind::MaxOf(a, b) => write!(f, "max_of({a}, {b})"),
            DurationKind::Negative(a) => write!(f, "-{a}"),
            DurationKind::Positive(a) => write!(f, "+{a}"),
            DurationKind::Paren(a) => write!(f, "({a})"),
            DurationKind::Binary(op, a, b) => match b.kind {
                // The right side of a product is a count.
                DurationKind::Seconds(s) if op.precedence() > 4 => {
                    write!(f, "{a} {} {}", op.text(), number(s))
                }
                _ => write!(f, "{a} {} {b}", op.text()),
            },
        }
    }
}

/// A length of time: with units when they give it exactly, else in seconds.
fn seconds(s: f64) -> String {
    let ms = s * 1000.0;
    let whole = ms.abs() < 9e15 && ms.fract() == 0.0 && (ms / 1000.0).to_bits() == s.to_bits();
    if whole && ms != 0.0 {
        return model::duration::format_ms(ms as i64);
    }
    number(s)
}

/// A number so that it reads back as the same one.
pub(crate) fn number(v: f64) -> String {
    if v.is_nan() {
        return "NaN".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let magnitude = v.abs();
    if v != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        return format!("{v:e}");
    }
    format!("{v}")
}

/// A text in quotes, escaped as PromQL reads it.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if raw_byte(c).is_some() => {
                let _ = write!(out, "\\x{:02x}", raw_byte(c).unwrap_or(0));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
