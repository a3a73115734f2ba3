//! Owns the common time axis of all charts: which seconds make a point, and where the bad stretch lies. Pure.

use crate::explain::Symptom;
use crate::report::{Report, Second};

/// Most points of a chart.
const POINTS: usize = 300;
/// Shorter than this is a rest.
const REST_S: f64 = 0.25;

/// The axis: points of equal length from the start of the measured part.
pub(super) struct Axis {
    /// Points.
    pub(super) points: usize,
    /// Seconds of a point, whole.
    pub(super) step_s: f64,
    /// Length of the measured part as shown, seconds.
    pub(super) length_s: f64,
    /// The bad stretch, as shares of the length.
    pub(super) stretch: Option<(f64, f64)>,
    warm_up_s: f64,
}

impl Axis {
    pub(super) fn of(report: &Report, symptom: &Symptom) -> Axis {
        let measured = report.per_second.iter().filter(|s| !s.warm_up);
        // The last moment of a run is no second of its own: it joins the one before.
        let long = measured.filter(|s| s.length_s > REST_S);
        let seconds = (long.map(|s| s.length_s).sum::<f64>().round() as usize).max(1);
        // Of a long run, neighbouring seconds are joined to steps of 2, 4 ... s: a point holds whole ones.
        let longest = report.step_s() as usize;
        let step = seconds.div_ceil(POINTS).next_multiple_of(longest);
        let points = seconds.div_ceil(step);
        let length_s = (points * step) as f64;
        let stretch = symptom.stretch.filter(|_| symptom.stands_out());
        Axis {
            points,
            step_s: step as f64,
            length_s,
            stretch: stretch.map(|(a, b)| (a / length_s, (b / length_s).min(1.0))),
            warm_up_s: report.warm_up_s(),
        }
    }

    /// Which point a second belongs to.
    pub(super) fn point(&self, s: &Second) -> Option<usize> {
        let at = ((s.at_s - self.warm_up_s + 1e-3) / self.step_s) as usize;
        let at = if s.length_s > REST_S {
            at
        } else {
            at.min(self.points - 1)
        };
        (!s.warm_up && at < self.points).then_some(at)
    }

    /// Seconds by point.
    pub(super) fn group<'r>(&self, report: &'r Report) -> Vec<Vec<&'r Second>> {
        let mut out = vec![Vec::new(); self.points];
        for s in &report.per_second {
            if let Some(at) = self.point(s) {
                out[at].push(s);
            }
        }
        out
    }

    /// Start of each point, seconds.
    pub(super) fn starts(&self) -> Vec<u64> {
        (0..self.points)
            .map(|i| (i as f64 * self.step_s) as u64)
            .collect()
    }

    /// A line of steps of another length on this axis: the mean of the steps in each point.
    pub(super) fn resample(&self, values: &[f64], step_s: f64) -> Vec<f64> {
        let mut sums = vec![(0.0, 0_u32); self.points];
        for (i, v) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
            let at = ((i as f64 + 0.5) * step_s / self.step_s) as usize;
            if let Some(sum) = sums.get_mut(at) {
                *sum = (sum.0 + v, sum.1 + 1);
            }
        }
        let mut out: Vec<f64> = sums
            .iter()
            .map(|(sum, n)| {
                if *n > 0 {
                    sum / f64::from(*n)
                } else {
                    f64::NAN
                }
            })
            .collect();
        // Coarser steps than points: the value holds until the next.
        let hold = (step_s / self.step_s) as usize;
        for i in 1..out.len() {
            let near = (1..=hold.min(i)).find(|back| {
                values
                    .get(((i - back) as f64 * self.step_s / step_s) as usize)
                    .is_some_and(|v| v.is_finite())
            });
            if out[i].is_nan() && hold > 1 && near.is_some() {
                out[i] = out[i - 1];
            }
        }
        out
    }

    /// What is said of joined seconds; empty when each has its own point.
    pub(super) fn joined(&self) -> String {
        if self.step_s <= 1.0 {
            return String::new();
        }
        format!(
            "Each point of a chart joins {:.0} seconds: rates are means, percentiles those of the worst second. ",
            self.step_s
        )
    }

    /// Labels of the axis: offset as a share, and text.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let wanted = [
            1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
            7200.0, 21_600.0, 86_400.0,
        ];
        let every = wanted
            .into_iter()
            .find(|s| self.length_s / s <= 7.0)
            .unwrap_or(self.length_s);
        let n = (self.length_s / every) as usize;
        let text = |s: f64| match s {
            s if every < 60.0 => format!("{s:.0} s"),
            s if every < 3600.0 => format!("{:.0} min", s / 60.0),
            s => format!("{:.0} h", s / 3600.0),
        };
        (0..=n)
            .map(|i| i as f64 * every)
            .map(|s| (s / self.length_s, text(s)))
            .collect()
    }
}
