//! Which way to join what runs say within themselves with what baselines differ by: simulated on levels alone, normal, with
//! 8 degrees of freedom within the runs. Owns the table of docs/gate.md; `shift` owns the way that was taken.

use super::student::two_sided;
use crate::schedule::mix;
use crate::truth::normal_quantile;

/// Draws a cell.
const DRAWS: u64 = 12_000;
/// The level's share of the chance of a false alarm.
const AT: f64 = 0.0425;
const WITHIN: f64 = 8.0;

/// What was drawn of one comparison: how far the run lies from the mean of its baselines, in units that make its variance
/// that of one run; the variance between the baselines; the variance within the runs as they tell it.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    apart: f64,
    between: f64,
    within: f64,
    freedom: f64,
}

type Way = fn(Drawn) -> f64;

fn within(d: Drawn) -> f64 {
    two_sided(d.apart / d.within.sqrt(), WITHIN)
}

fn between(d: Drawn) -> f64 {
    two_sided(d.apart / d.between.sqrt(), d.freedom)
}

fn larger(d: Drawn) -> f64 {
    within(d).max(between(d))
}

/// Bayes: a chance of 0.2 that runs differ by no more than their noise, the rest even over 2 to 2^29 times its variance.
fn mixed(d: Drawn) -> f64 {
    let (mut all, mut sum) = (0.0, 0.0);
    for j in 0..30 {
        let variance = d.within * f64::from(j).exp2();
        let before = if j == 0 { 0.2 } else { 0.8 / 29.0 };
        let likely = before
            * variance.powf(-d.freedom / 2.0)
            * (-d.freedom * d.between / variance / 2.0).exp();
        sum += likely * two_sided(d.apart / variance.sqrt(), WITHIN);
        all += likely;
    }
    sum / all
}

/// How often a way calls runs different whose levels have so many times the variance of their noise, and that lie `apart`
/// standard deviations of the noise of one run from each other.
fn called(way: Way, baselines: u64, times: f64, apart: f64, draws: u64) -> f64 {
    let freedom = baselines as f64 - 1.0;
    let both = (1.0 + 1.0 / baselines as f64).sqrt();
    let hits = (0..draws).filter(|draw| {
        let mut drawn = 0;
        let mut normal = || {
            drawn += 1;
            normal_quantile(((mix(*draw, drawn, 5) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64)
        };
        let level = normal() * times.sqrt() * both + apart;
        let mut squares = |n: f64| (0..n as u64).map(|_| normal().powi(2)).sum::<f64>() / n;
        let drawn = Drawn {
            apart: level / both,
            between: times * squares(freedom),
            within: squares(WITHIN),
            freedom,
        };
        way(drawn) < AT
    });
    hits.count() as f64 / draws as f64
}

const WAYS: [(&str, Way); 4] = [
    ("within the runs only", within),
    ("between the baselines only", between),
    ("the larger of both", larger),
    ("Bayes", mixed),
];

#[test]
fn the_larger_error_never_cries_wolf_and_that_within_the_runs_alone_does() {
    for baselines in [2, 5] {
        for times in [1.0, 4.0, 100.0] {
            let share = called(larger, baselines, times, 0.0, 2000);
            assert!(share < 0.055, "{baselines} baselines, {times}: {share}");
        }
    }
    assert!(called(within, 5, 4.0, 0.0, 500) > 0.15);
    assert!(called(larger, 5, 1.0, 6.0, 500) > 0.93);
}

#[test]
#[ignore = "a table for people: bench/compare ways"]
fn ways_to_join_the_errors() {
    println!(
        "| baselines | error | alarms, levels vary 1 x their noise | 2 x | 4 x | 9 x | 25 x | 100 x | 1000 x | six deviations are found, 1 x | 4 x |\n|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for baselines in [2, 3, 5, 8] {
        for (name, way) in WAYS {
            let alarms = [1.0, 2.0, 4.0, 9.0, 25.0, 100.0, 1000.0];
            let alarms = alarms.map(|times| called(way, baselines, times, 0.0, DRAWS));
            let finds = [1.0, 4.0].map(|times| called(way, baselines, times, 6.0, DRAWS));
            let cells = alarms.iter().chain(&finds);
            let cells: Vec<String> = cells.map(|v| format!("{:.1} %", 100.0 * v)).collect();
            println!("| {baselines} | {name} | {} |", cells.join(" | "));
        }
    }
    assert!(called(larger, 2, 9.0, 0.0, DRAWS) < 0.05);
}
