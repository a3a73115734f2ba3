//! Owns which rate to try next and when to stop: doubling until a rate is too high, bisection between the highest
//! that was not and the lowest that was, longer looks where a step was unclear, confirmation of what was found, pauses
//! between. A state machine fed with verdicts: no clock, no I/O.

use std::time::Duration;

use super::judge::{Verdict, Why};

/// Lowest rate tried, requests per second.
const LOWEST: f64 = 0.5;
/// Longer looks at one rate.
const LOOKS: u32 = 2;
/// Trials in which the generator fails before that is the answer; the pause before each is longer than the last.
const GENERATOR_TRIES: u32 = 4;
/// A server that serves this much more over twice the connections was held back by the connections.
const MORE: f64 = 1.05;
/// Most connections tried.
const MOST_CONNECTIONS: usize = 16_384;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The first rate, requests per second.
    pub from: f64,
    /// The highest rate that may be tried.
    pub max_rate: f64,
    /// How far apart, relative to each other, the two rates around the capacity may be: 0.02 is 2 %.
    pub tolerance: f64,
    /// Length of a step; one of the climb takes half, a confirmation twice as long.
    pub step: Duration,
    /// Pause after a step that was too much; a quarter of it after any other.
    pub cool_down: Duration,
    /// The search's whole length.
    pub budget: Duration,
    /// Connections to begin with.
    pub connections: usize,
}

/// What a trial is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Doubling, or halving, until the capacity is passed.
    Climb,
    /// Halving the distance.
    Narrow,
    /// A longer look at an unclear rate, or one spoilt by the generator.
    Again,
    /// Whether connections were the limit.
    Connections,
    /// Whether what was found holds.
    Confirm,
}

impl Purpose {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Climb => "climb",
            Purpose::Narrow => "narrow",
            Purpose::Again => "again",
            Purpose::Connections => "connections",
            Purpose::Confirm => "confirm",
        }
    }
}

/// A step to run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Wait so long first.
    pub pause: Duration,
    /// Requests per second.
    pub rate: f64,
    /// For so long.
    pub length: Duration,
    /// Over at most so many connections.
    pub connections: usize,
    /// What for.
    pub purpose: Purpose,
}

/// How a search ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// Between two rates; true when the lower was confirmed.
    Found(bool),
    /// The highest rate allowed was met.
    AtLeast,
    /// Not even the lowest rate tried was.
    Nothing,
    /// At this rate the generator, not the server, was the limit, and why.
    Generator(f64, String),
    /// Nothing answered, and why.
    Dead(String),
    /// Stopped by the user.
    Stopped,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Run this and hand its verdict to [`Search::record`].
    Run(Trial),
    /// That is all.
    Done(End),
}

/// The search.
#[derive(Debug, Clone)]
pub struct Search {
    settings: Settings,
    /// Rates that were met, ascending.
    under: Vec<f64>,
    /// The lowest that was not.
    over: Option<f64>,
    /// That rate broke a rule, in one look only: a pause of the machine may have done it.
    over_doubted: bool,
    confirmed: bool,
    /// Throughput of an overloaded server, not yet used: where its capacity must lie, and how many trials it has had.
    hint: Option<(f64, u8)>,
    connections: usize,
    /// Twice the connections made no difference: they are not the limit.
    connections_suffice: bool,
    /// What an unfinished rate still needs.
    again: Option<Again>,
    generator_failures: u32,
    /// Mean latency seen, seconds: slow servers need longer steps.
    latency_s: f64,
    last: Option<Trial>,
    rest: Duration,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Again {
    Longer(u32),
    /// Over twice the connections; the throughput and number before.
    Connections(f64, usize),
}

impl Search {
    /// At its beginning.
    pub fn new(settings: Settings) -> Search {
        Search {
            connections: settings.connections,
            settings,
            under: Vec::new(),
            over: None,
            over_doubted: false,
            confirmed: false,
            hint: None,
            connections_suffice: false,
            again: None,
            generator_failures: 0,
            latency_s: 0.0,
            last: None,
            rest: Duration::ZERO,
            end: None,
        }
    }

    /// The highest rate met, and the lowest that was not.
    pub fn around(&self) -> (Option<f64>, Option<f64>) {
        (self.under.last().copied(), self.over)
    }

    /// Mean latency of the last step, seconds.
    pub fn latency_s(&self) -> f64 {
        self.latency_s
    }

    /// The next step, when so much of the time is used up.
    pub fn next(&mut self, elapsed: Duration) -> Next {
        if let Some(end) = &self.end {
            return Next::Done(end.clone());
        }
        let trial = match self.wanted() {
            Ok(trial) => trial,
            Err(end) => return self.done(end),
        };
        let left = self.settings.budget.saturating_sub(elapsed + trial.pause);
        let confirm = self.length(Purpose::Confirm);
        let spare = match trial.purpose {
            Purpose::Confirm => Duration::ZERO,
            // What is found must still be confirmed.
            _ if self.under.is_empty() || self.confirmed => Duration::ZERO,
            _ => confirm + self.settings.cool_down,
        };
        if trial.length + spare <= left {
            return self.start(trial);
        }
        let Some(lo) = self.under.last().copied().filter(|_| !self.confirmed) else {
            let end = if self.under.is_empty() {
                End::Nothing
            } else {
                End::Found(self.confirmed)
            };
            return self.done(end);
        };
        let length = left.min(confirm);
        if length < self.settings.step / 2 {
            return self.done(End::Found(false));
        }
        self.again = None;
        let last = self.trial(lo, Purpose::Confirm);
        self.start(Trial { length, ..last })
    }

    fn start(&mut self, trial: Trial) -> Next {
        self.last = Some(trial);
        Next::Run(trial)
    }

    fn done(&mut self, end: End) -> Next {
        self.end = Some(end.clone());
        Next::Done(end)
    }

    fn length(&self, purpose: Purpose) -> Duration {
        let step = self.settings.step;
        let length = match purpose {
            Purpose::Climb => step / 2,
            Purpose::Narrow | Purpose::Connections => step,
            Purpose::Again | Purpose::Confirm => step * 2,
        };
        length.max(Duration::from_secs_f64((4.0 * self.latency_s).min(600.0)))
    }

    fn trial(&self, rate: f64, purpose: Purpose) -> Trial {
        Trial {
            pause: self.rest,
            rate,
            length: self.length(purpose),
            connections: self.connections,
            purpose,
        }
    }

    /// What the search needs next, whatever time is left.
    fn wanted(&mut self) -> Result<Trial, End> {
        let max = self.settings.max_rate;
        if let (Some(again), Some(last)) = (self.again, self.last) {
            return Ok(match again {
                Again::Longer(looks) => Trial {
                    length: last.length.max(self.settings.step) * if looks == 0 { 1 } else { 2 },
                    ..self.trial(last.rate, Purpose::Again)
                },
                Again::Connections(..) => self.trial(last.rate, Purpose::Connections),
            });
        }
        match self.around() {
            (None, None) => Ok(self.trial(self.settings.from.min(max), Purpose::Climb)),
            (Some(lo), None) if lo >= max => Err(End::AtLeast),
            (Some(lo), None) => Ok(self.trial((lo * 2.0).min(max), Purpose::Climb)),
            (None, Some(hi)) if hi / 2.0 < LOWEST => Err(End::Nothing),
            (None, Some(hi)) => Ok(self.trial(hi / 2.0, Purpose::Climb)),
            (Some(lo), Some(hi)) if hi / lo <= 1.0 + self.settings.tolerance => {
                if !self.confirmed {
                    Ok(self.trial(lo, Purpose::Confirm))
                } else if self.over_doubted {
                    Ok(self.trial(hi, Purpose::Again))
                } else {
                    Err(End::Found(true))
                }
            }
            (Some(lo), Some(hi)) => {
                let rate = self.between(lo, hi);
                Ok(self.trial(rate, Purpose::Narrow))
            }
        }
    }

    /// A rate between two: at the edges of where an overloaded server's throughput puts the capacity, or in the middle.
    fn between(&mut self, lo: f64, hi: f64) -> f64 {
        let edge = 0.45 * self.settings.tolerance;
        if let Some((at, used)) = self.hint {
            self.hint = (used < 1).then_some((at, used + 1));
            for rate in [at * (1.0 - edge), at * (1.0 + edge)] {
                if rate > lo * (1.0 + edge / 2.0) && rate < hi / (1.0 + edge / 2.0) {
                    return rate;
                }
            }
        }
        (lo * hi).sqrt()
    }

    /// What the last trial came to, with the throughput, the mean latency in seconds, and whether more than 1 % of
    /// its requests waited for a connection.
    pub fn record(&mut self, verdict: &Verdict, throughput: f64, latency_s: f64, waited: bool) {
        let Some(last) = self.last else { return };
        let looks = match self.again.take() {
            Some(Again::Longer(looks)) => looks,
            Some(Again::Connections(before, number)) => {
                if throughput <= before * MORE {
                    self.connections_suffice = true;
                    self.connections = number;
                }
                0
            }
            None => 0,
        };
        let over = !matches!(verdict, Verdict::Under);
        self.rest = if over {
            self.settings.cool_down
        } else {
            self.settings.cool_down / 4
        };
        if !matches!(verdict, Verdict::Generator(_)) {
            self.generator_failures = 0;
        }
        if matches!(verdict, Verdict::Under) {
            self.latency_s = latency_s;
        }
        match verdict {
            Verdict::Under => self.met(last),
            Verdict::Unclear(so_far) if looks >= LOOKS => match so_far.as_ref() {
                Verdict::Over(why) => self.not_met(last, why, throughput, false),
                _ => self.met(last),
            },
            Verdict::Unclear(_) => self.again = Some(Again::Longer(looks + 1)),
            // Far below the capacity a second look costs little and a wrong turn much.
            Verdict::Over(Why::Rule(_)) if last.purpose == Purpose::Climb => {
                self.again = Some(Again::Longer(1));
            }
            Verdict::Over(why) => self.not_met(last, why, throughput, waited),
            Verdict::Generator(why) => {
                self.generator_failures += 1;
                self.rest = self.settings.cool_down * self.generator_failures;
                if self.generator_failures >= GENERATOR_TRIES {
                    self.end = Some(End::Generator(last.rate, why.clone()));
                } else {
                    self.again = Some(Again::Longer(0));
                }
            }
            Verdict::Dead(why) => self.end = Some(End::Dead(why.clone())),
        }
    }

    /// Ends the search as it is.
    pub fn stop(&mut self) {
        self.end = Some(End::Stopped);
    }

    fn met(&mut self, trial: Trial) {
        self.confirmed = trial.purpose == Purpose::Confirm || {
            // A longer look at what is to be confirmed confirms it.
            self.under.last() == Some(&trial.rate) && trial.purpose == Purpose::Again
        };
        self.under.retain(|r| *r < trial.rate);
        self.under.push(trial.rate);
        if self.over.is_some_and(|hi| hi <= trial.rate) {
            self.over = None;
        }
    }

    fn not_met(&mut self, trial: Trial, why: &Why, throughput: f64, waited: bool) {
        let backlog = *why == Why::Backlog;
        if backlog && waited && !self.connections_suffice && self.connections < MOST_CONNECTIONS {
            self.again = Some(Again::Connections(throughput, self.connections));
            self.connections *= 2;
            return;
        }
        // A second look at the rate above says nothing of the confirmed one below.
        self.confirmed &= self.over == Some(trial.rate);
        self.under.retain(|r| *r < trial.rate);
        self.over = Some(self.over.map_or(trial.rate, |hi| hi.min(trial.rate)));
        self.over_doubted = !backlog && !matches!(trial.purpose, Purpose::Again);
        if backlog {
            self.hint = Some((throughput, 0));
        }
    }
}
