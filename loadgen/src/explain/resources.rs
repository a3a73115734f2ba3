//! Owns what the resources say (USE): which one is used up in the bad seconds and not otherwise, from which second on,
//! and what that makes of the causes found in spans. Pure.

use super::tail::Tail;
use super::{Cause, Kind, Line, Observed, Symptom, What, percent};

/// A resource is used up from this utilisation on.
const FULL: f64 = 0.9;
/// Tasks that wait for a disk so much of the time may well be the cause, whatever else is used up.
const STRONG_STALL: f64 = 0.5;

/// Adds the causes that resources are, and lets them speak for or against the others.
pub(super) fn weigh(causes: &mut Vec<Cause>, seen: &Observed, symptom: &Symptom, tail: &Tail<'_>) {
    let own = tail.share(|p| p.kind == Kind::Service) * tail.excess();
    let spread = tail.spread();
    if let Some(mut cpu) = cpu(seen, symptom, spread.is_some()) {
        let paused = causes.iter().any(|c| c.kind == Kind::Pause);
        let outside = causes.iter().find(|c| c.kind == Kind::Outside);
        let outside = outside.map_or(0.0, |c| c.weight);
        let busy = own.max(outside);
        cpu.weight = match paused {
            true => 0.3,
            false => (cpu.weight * (0.35 + 0.65 * (busy * 1.3).min(1.0))).min(0.99),
        };
        let service = causes
            .iter()
            .filter(|c| matches!(c.kind, Kind::Service | Kind::Outside));
        if let Some(strongest) = service.max_by(|a, b| a.weight.total_cmp(&b.weight)) {
            if !paused && busy > 0.3 {
                cpu.weight = cpu.weight.max((strongest.weight + 0.02).min(0.99));
            }
            cpu.evidence.push(strongest.headline.clone());
            cpu.trace = strongest.trace;
        }
        if let Some((parts, weight)) = spread.filter(|_| !paused) {
            // A slow database does not slow the cache; too little processor time slows them all.
            cpu.evidence
                .insert(0, format!("unrelated parts slow down at once: {parts}"));
            cpu.weight = cpu.weight.max(weight);
            cpu.trace = cpu.trace.or_else(|| causes.iter().find_map(|c| c.trace));
        }
        causes.push(cpu);
    }
    pools(causes, seen, symptom, tail);
    others(causes, seen, symptom);
    stalls(causes, seen, symptom);
}

/// Memory and disks that tasks wait for.
fn stalls(causes: &mut Vec<Cause>, seen: &Observed, symptom: &Symptom) {
    // A disk that some task or other waits for now and then has many causes: what is used up comes first.
    let full = causes
        .iter()
        .filter(|c| matches!(c.kind, Kind::Cpu | Kind::Pool | Kind::Queue))
        .map(|c| c.weight)
        .max_by(f64::total_cmp);
    for (kind, resource, what, threshold) in [
        (
            Kind::Memory,
            "memory",
            "of the time some task waits for memory",
            0.1,
        ),
        (
            Kind::Io,
            "io",
            "of the time some task waits for a disk",
            0.2,
        ),
    ] {
        let psi = lines(seen, What::Saturation)
            .find(|l| l.label("resource") == resource && l.label("unit") == "psi_some_ratio");
        let Some(line) = psi else { continue };
        let (bad, good) = sides(line, seen, symptom);
        let mut weight = 0.6 * bad.min(1.0).sqrt();
        if let Some(full) = full.filter(|_| kind == Kind::Io && bad < STRONG_STALL) {
            weight = weight.min(full - 0.01);
        }
        if bad > threshold && bad > 2.0 * good + 0.05 {
            causes.push(Cause::new(
                kind,
                line.label("instance"),
                format!(
                    "in the bad seconds {} {what} ({} otherwise)",
                    percent(bad),
                    percent(good)
                ),
                weight,
            ));
        }
    }
}

/// In a run without bad seconds: pools for whose connections requests wait all the time.
pub(super) fn waiting(
    causes: &mut Vec<Cause>,
    seen: &Observed,
    symptom: &Symptom,
    tail: &Tail<'_>,
) {
    pools(causes, seen, symptom, tail);
}

/// Hosts without processor time left, in a run without bad seconds.
pub(super) fn full(seen: &Observed) -> Vec<String> {
    let hosts = lines(seen, What::Utilization).filter(|l| l.label("kind") == "cpu");
    let busy = hosts.filter_map(|line| {
        let busy = super::mean(line.values.iter().copied()).filter(|b| *b >= FULL)?;
        Some(format!(
            "the processors of {} are {} busy throughout",
            line.label("instance"),
            percent(busy)
        ))
    });
    busy.collect()
}

fn lines(seen: &Observed, what: What) -> impl Iterator<Item = &Line> {
    seen.lines.iter().filter(move |l| l.what == what)
}

fn sides(line: &Line, seen: &Observed, symptom: &Symptom) -> (f64, f64) {
    let (bad, good) = symptom.split(&line.values, seen.step_s);
    (bad.unwrap_or(0.0), good.unwrap_or(0.0))
}

/// A process that took far more processor time in the bad seconds, or a host without any left. When unrelated parts slow
/// down at once (`spread`), a host that has none left in the other seconds either will do.
fn cpu(seen: &Observed, symptom: &Symptom, spread: bool) -> Option<Cause> {
    let hosts = lines(seen, What::Utilization).filter(|l| l.label("kind") == "cpu");
    let host = hosts
        .map(|line| (line, sides(line, seen, symptom)))
        .max_by(|a, b| a.1.0.total_cmp(&b.1.0));
    // Any process on the host may take the processors away, but only when there are none left; a scraped one is watched
    // because it is part of the system.
    let short = host
        .as_ref()
        .is_some_and(|(_, (bad, good))| *bad >= FULL && bad - good > 0.1);
    let grown = lines(seen, What::ProcessCpu)
        .filter(|l| short || l.label("executable_name").is_empty())
        .map(|line| (line, sides(line, seen, symptom)))
        .filter(|(_, (bad, good))| symptom.stands_out() && *bad > 1.5 * good && bad - good > 0.2)
        .max_by(|a, b| (a.1.0 - a.1.1).total_cmp(&(b.1.0 - b.1.1)));
    let full = host.filter(|(_, (bad, good))| *bad >= FULL && (spread || bad - good > 0.15));
    let mut found = match (&grown, &full) {
        (Some((line, (bad, good))), _) => {
            let name = match line.label("executable_name") {
                "" => line.label("job").to_owned(),
                name => name.to_owned(),
            };
            let since = symptom.first(&line.values, seen.step_s, |v| v > (bad + good) / 2.0);
            Cause::new(
                Kind::Cpu,
                &name,
                format!(
                    "process {name} uses {bad:.2} cores in the bad seconds ({good:.2} otherwise){}",
                    from(since)
                ),
                0.95,
            )
        }
        (None, Some((line, (bad, good)))) => {
            let since = symptom.first(&line.values, seen.step_s, |v| v >= FULL);
            Cause::new(
                Kind::Cpu,
                line.label("instance"),
                format!(
                    "the processors are {} busy in the bad seconds ({} otherwise){}",
                    percent(*bad),
                    percent(*good),
                    from(since)
                ),
                0.9,
            )
        }
        (None, None) => return None,
    };
    if let (Some(_), Some((line, (bad, good)))) = (&grown, host) {
        found.evidence.push(format!(
            "host {}: processors {} busy, {} otherwise",
            line.label("instance"),
            percent(bad),
            percent(good)
        ));
    }
    for unit in ["runnable_waiting", "psi_some_ratio"] {
        let line = lines(seen, What::Saturation)
            .find(|l| l.label("kind") == "cpu" && l.label("unit") == unit);
        let Some(line) = line else { continue };
        let (bad, good) = sides(line, seen, symptom);
        found.evidence.push(match unit {
            "runnable_waiting" => {
                format!("{bad:.1} tasks wait for a processor ({good:.1} otherwise)")
            }
            _ => format!(
                "some task waits for a processor {} of the time ({} otherwise)",
                percent(bad),
                percent(good)
            ),
        });
    }
    Some(found)
}

fn from(since: Option<f64>) -> String {
    since.map_or(String::new(), |s| format!(", from second {s:.0}"))
}

/// Pools that are used up. Whether a pool is the cause, or slow statements are, is told by how long a connection is
/// held (Little's law: connections in use by calls a second).
fn pools(causes: &mut Vec<Cause>, seen: &Observed, symptom: &Symptom, tail: &Tail<'_>) {
    let waits = tail.share(|p| p.kind == Kind::Database) * tail.excess();
    let waiting = lines(seen, What::Saturation).filter(|l| l.label("kind") == "db_pool");
    let waiting: Vec<(&Line, (f64, f64))> = waiting.map(|l| (l, sides(l, seen, symptom))).collect();
    let worst = waiting
        .iter()
        .filter(|(_, (bad, good))| {
            *bad >= 0.3 && (!symptom.stands_out() || *bad > 2.0 * good + 0.2)
        })
        .max_by(|a, b| a.1.0.total_cmp(&b.1.0));
    let Some((line, (bad, good))) = worst else {
        return;
    };
    let name = line.label("resource");
    let of_pool =
        |what: What, label: &'static str| lines(seen, what).find(move |l| l.label(label) == name);
    let full = lines(seen, What::Utilization)
        .find(|l| l.label("kind") == "db_pool" && l.label("resource") == name)
        .map(|l| sides(l, seen, symptom));
    let since = symptom.first(&line.values, seen.step_s, |v| v >= 1.0);
    let mut found = Cause::new(
        Kind::Pool,
        name,
        format!(
            "{bad:.1} requests wait for a connection of pool {name} in the bad seconds ({good:.1} otherwise){}",
            from(since)
        ),
        0.0,
    );
    if let Some((bad, good)) = full {
        found.evidence.push(format!(
            "pool {name} is {} in use, {} otherwise",
            percent(bad),
            percent(good)
        ));
    }
    let mut shrank = false;
    if let Some(max) = of_pool(What::PoolMax, "pool") {
        // The last value before a change is held for a while: the extremes say what the means blur.
        let finite = || max.values.iter().copied().filter(|v| v.is_finite());
        let (now, was) = (
            finite().fold(f64::INFINITY, f64::min),
            finite().fold(0.0, f64::max),
        );
        shrank = now < 0.7 * was;
        found.evidence.push(match shrank {
            true => format!("it holds at most {now:.0} of its {was:.0} connections for a while"),
            false => format!("it holds at most {now:.0} connections"),
        });
    }
    let calls = |side: fn((f64, f64)) -> f64| -> f64 {
        let edges = lines(seen, What::EdgeRate).filter(|l| {
            l.label("connection_type") == "database"
                && !super::tail::names_a_cache(l.label("server"))
        });
        edges.map(|l| side(sides(l, seen, symptom))).sum()
    };
    let in_use: Vec<(f64, f64)> = lines(seen, What::PoolInUse)
        .map(|l| sides(l, seen, symptom))
        .collect();
    let held = |side: fn((f64, f64)) -> f64| {
        in_use.iter().map(|s| side(*s)).sum::<f64>() / calls(side).max(1e-9) * 1e9
    };
    let (held_bad, held_good) = (held(|s| s.0), held(|s| s.1));
    let slower = symptom.stands_out() && !shrank && held_bad > 2.0 * held_good + 20e6;
    found.evidence.push(format!(
        "a connection is held for about {} ({} otherwise){}",
        super::ms(held_bad),
        super::ms(held_good),
        if slower {
            ": the statements became slower, the pool is full in consequence"
        } else {
            ""
        }
    ));
    let database = causes
        .iter_mut()
        .filter(|c| c.kind == Kind::Database)
        .max_by(|a, b| a.weight.total_cmp(&b.weight));
    found.weight = if slower {
        0.3
    } else {
        (waits + 0.1).clamp(0.6, 0.98)
    };
    if let Some(database) = database {
        found.trace = database.trace;
        if slower {
            database.evidence.push(found.headline.clone());
        } else {
            found.evidence.push(database.headline.clone());
            found.weight = found.weight.max(database.weight + 0.01);
        }
    }
    causes.push(found);
}

/// Anything else in the uniform view that is used up, or waits, only in the bad seconds: named, with little weight.
fn others(causes: &mut Vec<Cause>, seen: &Observed, symptom: &Symptom) {
    if !symptom.stands_out() {
        return;
    }
    let skip = ["cpu", "db_pool", "memory", "filesystem", "cgroup_memory"];
    for line in lines(seen, What::Utilization).filter(|l| !skip.contains(&l.label("kind"))) {
        let (bad, good) = sides(line, seen, symptom);
        if bad >= FULL && bad - good > 0.2 {
            let name = format!("{} {}", line.label("kind"), line.label("resource"));
            let since = symptom.first(&line.values, seen.step_s, |v| v >= FULL);
            causes.push(Cause::new(
                if line.label("kind") == "disk" {
                    Kind::Io
                } else {
                    Kind::Dependency
                },
                &name,
                format!(
                    "{name} is {} in use in the bad seconds ({} otherwise){}",
                    percent(bad),
                    percent(good),
                    from(since)
                ),
                0.5,
            ));
        }
    }
    for line in lines(seen, What::Saturation)
        .filter(|l| l.label("kind") == "queue" && l.label("unit") == "messages")
    {
        let (bad, good) = sides(line, seen, symptom);
        if bad > 20.0 && bad > 4.0 * good + 10.0 {
            let name = line.label("resource");
            causes.push(Cause::new(
                Kind::Queue,
                name,
                format!("{bad:.0} messages wait in queue {name} in the bad seconds ({good:.0} otherwise)"),
                0.35,
            ));
        }
    }
}
