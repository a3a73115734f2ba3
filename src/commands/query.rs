//! `nines query`: one PromQL question, instant or range.
//!
//! Owns its flags and output. Must not know how PromQL is evaluated.

use clap::Args as ClapArgs;
use model::sample::Value;
use model::{QueryData, api, timestamp};

use super::reach::{self, Evaluate, Format, Reach, Remote, json};
use crate::console::{CommandResult, Outcome, block_on, duration_ms, note, now_ms, print, usage};

/// Flags of `nines query`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The PromQL expression
    expr: String,

    /// Print the expression in its normal form and stop (no agent needed)
    #[arg(long)]
    format_expr: bool,

    /// Evaluate over the last DURATION instead of now
    #[arg(long, value_name = "DURATION")]
    range: Option<String>,

    /// Distance of the points of a range
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    step: String,

    /// Evaluate at this time, RFC 3339 or Unix seconds (default: now)
    #[arg(long, value_name = "TIME")]
    time: Option<String>,

    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// Who evaluates the query over --source
    #[arg(long, value_enum, default_value = "there", requires = "source")]
    evaluate: Evaluate,

    #[command(flatten)]
    reach: Reach,

    #[command(flatten)]
    remote: Remote,
}

/// Asks and prints.
pub fn run(args: Args) -> CommandResult {
    let expr =
        promql::parse(&args.expr).map_err(|e| usage(format!("cannot parse the query\n{e}")))?;
    if args.format_expr {
        print(&format!("{}\n", promql::format(&expr)))?;
        return Ok(Outcome::Good);
    }
    let now = match &args.time {
        Some(text) => parse_time(text).ok_or_else(|| {
            usage(format!(
                "--time {text:?} is neither RFC 3339, such as 2026-11-20T20:36:26Z, nor Unix seconds"
            ))
        })?,
        None => now_ms(),
    };
    let span = match &args.range {
        None => None,
        Some(range) => Some((duration_ms(range)?, duration_ms(&args.step)?)),
    };
    let client = args.remote.client_or(&args.reach);
    let text_of_query = args.expr.clone();
    let (data, notes) = if args.evaluate == Evaluate::Here {
        reach::blocking(move || {
            let source = reach::source(client, Evaluate::Here);
            let engine = promql::Engine::default();
            let out = match span {
                None => engine.instant(&source, &text_of_query, now)?,
                Some((range, step)) => {
                    engine.range(&source, &text_of_query, now - range, now, step)?
                }
            };
            let notes: Vec<String> = out.warnings.into_iter().chain(out.infos).collect();
            Ok((out.data, notes))
        })?
    } else {
        block_on(async {
            Ok(match span {
                None => client.query_annotated(&text_of_query, now).await?,
                Some((range, step)) => {
                    let start = now - range;
                    let answer = client.query_range_annotated(&text_of_query, start, now, step);
                    answer.await?
                }
            })
        })?
    };
    for text in &notes {
        note(&reach::clean(text));
    }
    match args.format {
        Format::Json => print(&json(&api::query_data_to_json(&data))?)?,
        Format::Text => print(&text(&data))?,
    }
    Ok(Outcome::Good)
}

fn parse_time(text: &str) -> Option<i64> {
    let seconds: Option<f64> = text.parse().ok();
    let unix = seconds.filter(|s| s.abs() < 9e12);
    unix.map(|s| (s * 1000.0).round() as i64)
        .or_else(|| timestamp::parse_rfc3339(text))
}

fn text(data: &QueryData) -> String {
    match data {
        QueryData::Scalar(_, v) => format!("{}\n", api::format_float(*v)),
        QueryData::String(_, s) => format!("{s}\n"),
        QueryData::Vector(all) if all.is_empty() => "(no series)\n".into(),
        QueryData::Matrix(all) if all.is_empty() => "(no series)\n".into(),
        QueryData::Vector(all) => {
            let line = |e: &model::VectorElement| match &e.value {
                Value::Float(v) => format!("{} {}\n", e.labels, api::format_float(*v)),
                Value::Histogram(h) => {
                    format!("{} {{count={} sum={}}}\n", e.labels, h.count, h.sum)
                }
            };
            all.iter().map(line).collect()
        }
        QueryData::Matrix(all) => {
            let mut out = String::new();
            for series in all {
                out += &format!("{}\n", series.labels);
                for (t, v) in series.points.t_ms.iter().zip(&series.points.values) {
                    let (t, v) = (timestamp::format_rfc3339(*t), api::format_float(*v));
                    out += &format!("  {t}  {v}\n");
                }
            }
            out
        }
    }
}
