//! The whole search over simulated servers whose capacity is known: how near it comes, and how often its interval
//! covers the truth.

use std::time::Duration;

use super::interval::{Level, interval};
use super::judge::{Judged, Observed, Verdict, Why, hopeless, judge};
use super::search::{End, Next, Purpose, Search, Settings};
use super::simulated::{Server, Service};
use crate::gate::Rule;

const S: fn(u64) -> Duration = Duration::from_secs;

fn settings(budget_s: u64) -> Settings {
    Settings {
        from: 10.0,
        max_rate: 100_000.0,
        tolerance: 0.02,
        step: S(4),
        cool_down: S(1),
        budget: S(budget_s),
        connections: 1024,
    }
}

struct Found {
    end: End,
    capacity: f64,
    interval: (f64, f64),
    steps: Vec<(Purpose, f64, Verdict)>,
    elapsed: Duration,
}

fn search(server: &Server, rules: &[Rule], settings: Settings, seed: u64) -> Found {
    let mut search = Search::new(settings);
    let mut tried: Vec<(f64, Vec<Observed>, Judged)> = Vec::new();
    let (mut elapsed, mut steps) = (Duration::ZERO, Vec::new());
    let end = loop {
        let trial = match search.next(elapsed) {
            Next::Done(end) => break end,
            Next::Run(trial) => trial,
        };
        let seed = seed.wrapping_mul(1000) + steps.len() as u64;
        let seen = server.trial(trial.rate, trial.length.as_secs_f64(), seed);
        elapsed += trial.pause + trial.length;
        let at = tried.iter().position(|t| t.0 == trial.rate);
        let at = at.unwrap_or_else(|| {
            tried.push((trial.rate, Vec::new(), judge(rules, &[])));
            tried.len() - 1
        });
        tried[at].1.push(seen);
        tried[at].2 = judge(rules, &tried[at].1);
        let judged = &tried[at].2;
        search.record(
            &judged.verdict,
            judged.throughput,
            judged.latency.mean() / 1e6,
            false,
        );
        steps.push((trial.purpose, trial.rate, judged.verdict.clone()));
    };
    tried.sort_by(|a, b| a.0.total_cmp(&b.0));
    let levels: Vec<Level<'_>> = tried
        .iter()
        .map(|(rate, trials, judged)| Level {
            rate: *rate,
            trials,
            judged,
        })
        .collect();
    let (lo, hi) = search.around();
    let (a, b) = interval(rules, &levels);
    Found {
        end,
        capacity: lo.unwrap_or_default(),
        interval: (
            a.min(lo.unwrap_or_default()),
            b.max(hi.unwrap_or(f64::INFINITY)),
        ),
        steps,
        elapsed,
    }
}

fn rules(text: &str) -> Vec<Rule> {
    vec![Rule::parse(text).unwrap()]
}

/// What many searches of one server came to.
struct Repeated {
    /// How many intervals cover the truth, of so many.
    covered: u64,
    of: u64,
    /// Errors relative to the truth.
    mean: f64,
    worst: f64,
    /// Median length of the interval relative to the truth.
    width: f64,
}

fn repeat(server: Server, rule: &str, seeds: std::ops::Range<u64>, budget_s: u64) -> Repeated {
    let rules = rules(rule);
    let bound_s = rules[0].bound_us().unwrap_or_default() / 1e6;
    let truth = server.capacity(0.99, bound_s);
    let of = seeds.end - seeds.start;
    let (mut covered, mut worst, mut sum) = (0, 0.0_f64, 0.0);
    let mut widths = Vec::new();
    for seed in seeds {
        let found = search(&server, &rules, settings(budget_s), seed);
        assert!(found.elapsed <= S(budget_s), "{:?}", found.elapsed);
        let (low, high) = found.interval;
        covered += u64::from(low <= truth && truth <= high);
        widths.push((high - low) / truth);
        let error = (found.capacity / truth - 1.0).abs();
        worst = worst.max(error);
        sum += error;
        if std::env::var_os("SHOW").is_some() {
            println!(
                "truth {truth:.1} found {:.1} {:?} {:?} {:?}",
                found.capacity, found.interval, found.end, found.elapsed
            );
            for s in &found.steps {
                println!("   {s:?}");
            }
        }
    }
    widths.sort_by(f64::total_cmp);
    let all = Repeated {
        covered,
        of,
        mean: sum / of as f64,
        worst,
        width: widths[widths.len() / 2],
    };
    let percent = |x: f64| x * 100.0;
    println!(
        "truth {truth:.1}/s, covered {covered} of {of}, error mean {:.1} % worst {:.1} %, median width {:.1} %: {rule} in {budget_s} s of {server:?}",
        percent(all.mean),
        percent(all.worst),
        percent(all.width)
    );
    all
}

fn server(workers: usize, service_ms: f64, service: Service, poisson: bool) -> Server {
    Server {
        workers,
        service_s: service_ms / 1e3,
        service,
        poisson,
        pauses_s: 0.0,
        refuses: false,
    }
}

#[test]
fn a_worker_of_known_speed_is_found_within_three_per_cent() {
    for (workers, ms) in [(1, 2.5), (1, 0.73), (3, 11.0), (8, 40.0)] {
        let found = repeat(
            server(workers, ms, Service::Constant, false),
            "p99<100ms",
            0..2,
            60,
        );
        assert!(
            found.covered == 2 && found.worst < 0.03,
            "{workers} {ms}: {} {}",
            found.covered,
            found.worst
        );
    }
}

/// The figures of docs/capacity.md: `RUNS` searches of each server (20), from seed `SEED` on (1,000,000: not those that
/// the method was tuned on).
#[test]
#[ignore = "takes minutes unoptimised: bench/capacity simulate"]
fn random_servers_are_found_and_the_interval_covers_the_truth() {
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let (runs, seed) = (number("RUNS", 20), number("SEED", 1_000_000));
    let queue = |service| server(1, 2.5, service, true);
    let mut short = Vec::new();
    for (which, rule) in [
        (queue(Service::Constant), "p99<50ms"),
        (queue(Service::Exponential), "p99<50ms"),
        (server(4, 10.0, Service::Exponential, true), "p99<100ms"),
        (queue(Service::Exponential), "p99<1s"),
        (queue(Service::Lognormal(1.0)), "p99<50ms"),
        (
            Server {
                pauses_s: 2.0,
                ..queue(Service::Exponential)
            },
            "p99<200ms",
        ),
        // Pauses that many steps do not meet: coverage falls short, and docs/capacity.md says so.
        (
            Server {
                pauses_s: 5.0,
                ..queue(Service::Exponential)
            },
            "p99<100ms",
        ),
        (
            Server {
                refuses: true,
                ..server(16, 20.0, Service::Exponential, true)
            },
            "error_rate<1%",
        ),
        (server(8, 20.0, Service::Constant, false), "p99<100ms"),
    ] {
        for budget_s in [60, 120] {
            let found = repeat(which, rule, seed..seed + runs, budget_s);
            let least = if which.pauses_s == 5.0 { 0.7 } else { 0.93 };
            let of = found.of as f64;
            // Three standard errors: as many servers are looked at.
            if (found.covered as f64) < least * of - 3.0 * (least * (1.0 - least) * of).sqrt() {
                short.push(format!("{} of {of}: {rule} of {which:?}", found.covered));
            }
        }
    }
    assert!(short.is_empty(), "{short:#?}");
}

/// A search whose steps tell the plain truth, in which the server serves at most `most` a second.
fn ideal(
    settings: Settings,
    most: f64,
    verdict: impl Fn(f64, u64) -> Option<Verdict>,
) -> (End, Search) {
    let mut search = Search::new(settings);
    let (mut elapsed, mut steps) = (Duration::ZERO, 0);
    loop {
        let trial = match search.next(elapsed) {
            Next::Done(end) => return (end, search),
            Next::Run(trial) => trial,
        };
        assert!(trial.rate <= settings.max_rate && trial.rate > 0.0);
        elapsed += trial.pause + trial.length;
        steps += 1;
        assert!(steps < 200, "it ends");
        let plain = if trial.rate <= most {
            Verdict::Under
        } else {
            Verdict::Over(Why::Backlog)
        };
        let verdict = verdict(trial.rate, steps).unwrap_or(plain);
        search.record(&verdict, trial.rate.min(most), 0.001, false);
    }
}

proptest::proptest! {
    #[test]
    fn a_search_ends_around_the_capacity(most in 1.0..50_000.0_f64, from in 1.0..2_000.0_f64) {
        let settings = Settings { from, ..settings(3600) };
        let (end, search) = ideal(settings, most, |_, _| None);
        assert_eq!(end, End::Found(true));
        let (lo, hi) = search.around();
        let (lo, hi) = (lo.unwrap(), hi.unwrap());
        assert!(lo <= most && most < hi && hi / lo <= 1.0201, "{lo} {most} {hi}");
    }

    #[test]
    fn a_search_keeps_its_time_and_its_promises(most in 0.1..5_000.0_f64, budget in 16_u64..90, noise in 0..1000_u64) {
        let rule = || Why::Rule("p99<50ms".to_owned());
        let (end, search) = ideal(settings(budget), most, |rate, step| {
            // One look in five says nothing or the wrong thing.
            match crate::schedule::mix(noise, step, 1) % 10 {
                0 => Some(Verdict::Unclear(Box::new(Verdict::Under))),
                1 if rate > most => Some(Verdict::Over(rule())),
                _ => None,
            }
        });
        let (lo, hi) = search.around();
        match end {
            End::Found(_) => assert!(lo.is_some() && hi.is_none_or(|hi| hi > lo.unwrap())),
            End::Nothing => assert!(lo.is_none()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_generator_that_keeps_failing_is_the_answer_and_one_that_recovers_is_not() {
    let fault = || Verdict::Generator("late".to_owned());
    let (end, search) = ideal(settings(600), 400.0, |rate, _| (rate > 100.0).then(fault));
    assert_eq!(end, End::Generator(160.0, "late".to_owned()));
    assert_eq!(search.around(), (Some(80.0), None));
    let (end, _) = ideal(settings(600), 400.0, |_, step| (step % 3 == 0).then(fault));
    assert_eq!(end, End::Found(true));
}

#[test]
fn the_highest_rate_allowed_and_the_lowest_possible_end_a_search() {
    let capped = Settings {
        max_rate: 200.0,
        ..settings(600)
    };
    assert_eq!(ideal(capped, 1e9, |_, _| None).0, End::AtLeast);
    assert_eq!(ideal(settings(600), 0.1, |_, _| None).0, End::Nothing);
    let dead = |_, _| Some(Verdict::Dead("refused: 10".to_owned()));
    assert_eq!(
        ideal(settings(600), 1.0, dead).0,
        End::Dead("refused: 10".to_owned())
    );
}

#[test]
fn one_broken_look_far_below_the_capacity_does_not_turn_the_search() {
    let paused = |rate: f64, step| {
        (rate == 40.0 && step == 3).then(|| Verdict::Over(Why::Rule("p99<50ms".to_owned())))
    };
    let (end, search) = ideal(settings(600), 400.0, paused);
    assert_eq!(end, End::Found(true));
    assert!(search.around().0.unwrap() > 390.0);
}

#[test]
fn connections_that_ran_out_are_doubled_until_they_make_no_difference() {
    let mut search = Search::new(Settings {
        from: 100.0,
        connections: 8,
        ..settings(600)
    });
    // 10 requests a second over each connection, 250 a second in all.
    let (mut seen, mut elapsed) = (Vec::new(), Duration::ZERO);
    let end = loop {
        let trial = match search.next(elapsed) {
            Next::Done(end) => break end,
            Next::Run(trial) => trial,
        };
        elapsed += trial.length;
        seen.push(trial.connections);
        let most = (10.0 * trial.connections as f64).min(250.0);
        let over = trial.rate > most;
        let verdict = if over {
            Verdict::Over(Why::Backlog)
        } else {
            Verdict::Under
        };
        search.record(&verdict, trial.rate.min(most), 0.1, over);
    };
    assert_eq!(end, End::Found(true));
    let lo = search.around().0.unwrap();
    assert!((243.0..=250.0).contains(&lo), "{lo} {seen:?}");
    assert!(
        seen.contains(&32) && seen.iter().all(|c| *c <= 64),
        "{seen:?}"
    );
}

#[test]
fn a_step_that_cannot_be_met_is_cut_short_and_a_slow_start_is_not() {
    let seen = |each: fn(f64) -> f64| -> Vec<(f64, u64)> {
        (1..=12)
            .map(|i| f64::from(i) * 0.25)
            .map(|t| (t, each(t) as u64))
            .collect()
    };
    assert!(hopeless(640.0, 0.0, &seen(|t| 400.0 * t)));
    assert!(!hopeless(404.0, 0.0, &seen(|t| 400.0 * t)));
    // Everything takes a second: nothing ends in the first.
    assert!(!hopeless(640.0, 1.0, &seen(|t| 640.0 * (t - 1.0).max(0.0))));
    assert!(!hopeless(640.0, 0.0, &[]));
}

#[test]
fn a_late_generator_is_told_from_a_slow_server() {
    let rules = rules("p99<50ms");
    let slow = server(1, 2.5, Service::Constant, false).trial(500.0, 4.0, 1);
    assert_eq!(
        judge(&rules, std::slice::from_ref(&slow)).verdict,
        Verdict::Over(Why::Backlog)
    );
    // Late, but what is not answered is in the server.
    let late = Observed {
        late_p99_us: 30_000,
        ..slow.clone()
    };
    assert_eq!(judge(&rules, &[late]).verdict, Verdict::Over(Why::Backlog));
    // Late, and what is not answered was never sent.
    let mut held = Observed {
        late_p99_us: 30_000,
        ..slow
    };
    for slice in &mut held.slices {
        slice.sent = slice.status.values().sum();
    }
    assert!(matches!(
        judge(&rules, &[held]).verdict,
        Verdict::Generator(_)
    ));
    let good = server(1, 2.5, Service::Constant, false).trial(300.0, 4.0, 1);
    let judged = judge(
        &rules,
        &[Observed {
            late_p99_us: 30_000,
            ..good.clone()
        }],
    );
    assert_eq!(judged.verdict, Verdict::Under);
    assert!((judged.throughput - 300.0).abs() < 3.0 && judged.concurrency < 1.0);
    let ran_out = Observed {
        local_errors: 3,
        ..good
    };
    assert!(matches!(
        judge(&rules, &[ran_out]).verdict,
        Verdict::Generator(_)
    ));
}
