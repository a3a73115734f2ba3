//! Owns the Universal Scalability Law: its fit to measured throughputs, and what follows from it.
//! Pure. N. J. Gunther, Guerrilla Capacity Planning, Springer 2007, chapter 4 to 6.

use crate::schedule::mix;

const RESAMPLES: u64 = 400;

/// A step's steady figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Mean number of requests in the server.
    pub concurrency: f64,
    /// Responses per second.
    pub throughput: f64,
}

/// X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1)), with 95 % intervals from resampled points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Throughput of one request at a time, per second.
    pub lambda: f64,
    /// Contention: the share of the work that is done one after another, at least 0.
    pub sigma: f64,
    /// Coherency: what each pair of requests costs, at least 0. Above 0 more load means less throughput in the end.
    pub kappa: f64,
    /// 95 % interval of sigma.
    pub sigma_interval: (f64, f64),
    /// 95 % interval of kappa.
    pub kappa_interval: (f64, f64),
    /// Points it was fitted to.
    pub points: usize,
}

impl Fit {
    /// Throughput at so many requests in the server.
    pub fn throughput(&self, n: f64) -> f64 {
        self.lambda * n / (1.0 + self.sigma * (n - 1.0) + self.kappa * n * (n - 1.0))
    }

    /// The knee: (concurrency, throughput) of the greatest throughput per response time (Kleinrock's power), beyond
    /// which more load mostly adds waiting. None when there is no contention.
    pub fn knee(&self) -> Option<(f64, f64)> {
        let (s, k) = (self.sigma, self.kappa);
        let n = if k > 1e-12 {
            // 3 k n^2 + (s - k) n - (1 - s) = 0
            let b = s - k;
            (-b + (b * b + 12.0 * k * (1.0 - s).max(0.0)).sqrt()) / (6.0 * k)
        } else if s > 1e-12 {
            (1.0 - s) / s
        } else {
            return None;
        };
        let n = n.max(1.0);
        Some((n, self.throughput(n)))
    }

    /// What contention alone leaves of the throughput, per second, however many requests there are; none without it.
    pub fn limit(&self) -> Option<f64> {
        (self.sigma > 1e-12).then(|| self.lambda / self.sigma)
    }

    /// The greatest throughput: (concurrency, throughput); none when it only ever rises.
    pub fn peak(&self) -> Option<(f64, f64)> {
        if self.kappa <= 1e-12 {
            return None;
        }
        let n = ((1.0 - self.sigma).max(0.0) / self.kappa).sqrt().max(1.0);
        Some((n, self.throughput(n)))
    }
}

/// Fits the law by least squares with sigma and kappa at least 0; none when the points cannot tell (fewer than four,
/// or none with two requests in the server).
///
/// N / X = (1 + sigma (N - 1) + kappa N (N - 1)) / lambda is linear in 1/lambda, sigma/lambda and kappa/lambda. Errors
/// count relative to the value. Below one request in the server there is no contention: N counts as 1.
pub fn fit(points: &[Point]) -> Option<Fit> {
    let usable: Vec<Point> = points
        .iter()
        .filter(|p| p.concurrency > 0.0 && p.throughput > 0.0)
        .copied()
        .collect();
    let most = usable.iter().map(|p| p.concurrency).fold(0.0, f64::max);
    if usable.len() < 4 || most < 2.0 {
        return None;
    }
    let whole = solve(&usable)?;
    let (mut sigmas, mut kappas) = (Vec::new(), Vec::new());
    let n = usable.len() as u64;
    for resample in 0..RESAMPLES {
        let drawn: Vec<Point> = (0..n)
            .map(|i| usable[(mix(n, resample, i) % n) as usize])
            .collect();
        if let Some([_, s, k]) = solve(&drawn) {
            sigmas.push(s);
            kappas.push(k);
        }
    }
    Some(Fit {
        lambda: whole[0],
        sigma: whole[1],
        kappa: whole[2],
        sigma_interval: middle(sigmas, whole[1]),
        kappa_interval: middle(kappas, whole[2]),
        points: usable.len(),
    })
}

/// The middle 95 % of values, never without the estimate itself.
fn middle(mut values: Vec<f64>, estimate: f64) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let i = (q * values.len().saturating_sub(1) as f64).round() as usize;
        values.get(i).copied().unwrap_or(estimate)
    };
    (at(0.025).min(estimate), at(0.975).max(estimate))
}

/// lambda, sigma, kappa. Of the four choices of which coefficients are 0, the best whose others are not negative:
/// with three unknowns this is the whole of non-negative least squares.
fn solve(points: &[Point]) -> Option<[f64; 3]> {
    let rows: Vec<([f64; 3], f64)> = points
        .iter()
        .map(|p| {
            let (time, n) = (p.concurrency / p.throughput, p.concurrency.max(1.0));
            let row = [1.0, n - 1.0, n * (n - 1.0)];
            (row.map(|x| x / time), 1.0)
        })
        .collect();
    let mut best: Option<(f64, [f64; 3])> = None;
    for columns in [&[0, 1, 2][..], &[0, 1], &[0, 2], &[0]] {
        let Some(found) = least_squares(&rows, columns) else {
            continue;
        };
        if found[0] <= 0.0 || found[1] < 0.0 || found[2] < 0.0 {
            continue;
        }
        let error: f64 = rows
            .iter()
            .map(|(row, y)| (y - (0..3).map(|i| row[i] * found[i]).sum::<f64>()).powi(2))
            .sum();
        if best.is_none_or(|(least, _)| error < least - 1e-12) {
            best = Some((error, found));
        }
    }
    let [a, b, c] = best?.1;
    Some([1.0 / a, b / a, c / a])
}

/// The normal equations of the chosen columns, by elimination; none when they do not determine the answer.
fn least_squares(rows: &[([f64; 3], f64)], columns: &[usize]) -> Option<[f64; 3]> {
    let k = columns.len();
    let mut m = [[0.0_f64; 4]; 3];
    for (row, y) in rows {
        for (i, a) in columns.iter().enumerate() {
            for (j, b) in columns.iter().enumerate() {
                m[i][j] += row[*a] * row[*b];
            }
            m[i][3] += row[*a] * y;
        }
    }
    for i in 0..k {
        let largest = (i..k).max_by(|a, b| m[*a][i].abs().total_cmp(&m[*b][i].abs()))?;
        m.swap(i, largest);
        if m[i][i].abs() < 1e-9 {
            return None;
        }
        for j in 0..k {
            if j == i {
                continue;
            }
            let factor = m[j][i] / m[i][i];
            let pivot = m[i];
            for (cell, p) in m[j].iter_mut().zip(pivot) {
                *cell -= factor * p;
            }
        }
    }
    let mut found = [0.0; 3];
    for (i, column) in columns.iter().enumerate() {
        found[*column] = m[i][3] / m[i][i];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(lambda: f64, sigma: f64, kappa: f64) -> Vec<Point> {
        let exact = Fit {
            lambda,
            sigma,
            kappa,
            sigma_interval: (0.0, 0.0),
            kappa_interval: (0.0, 0.0),
            points: 0,
        };
        [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
            .into_iter()
            .map(|n| Point {
                concurrency: n,
                throughput: exact.throughput(n),
            })
            .collect()
    }

    #[test]
    fn the_law_is_found_again() {
        for (lambda, sigma, kappa) in [
            (1000.0, 0.02, 0.0001),
            (50.0, 0.1, 0.0),
            (400.0, 1.0, 0.0),
            (10.0, 0.0, 0.001),
            (10.0, 0.0, 0.0),
        ] {
            let found = fit(&law(lambda, sigma, kappa)).unwrap();
            assert!((found.lambda / lambda - 1.0).abs() < 1e-6, "{found:?}");
            assert!((found.sigma - sigma).abs() < 1e-6, "{found:?}");
            assert!((found.kappa - kappa).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn knee_limit_and_peak_are_where_the_curve_says() {
        let found = fit(&law(1000.0, 0.02, 0.0001)).unwrap();
        let (n, peak) = found.peak().unwrap();
        assert!((n - (0.98_f64 / 0.0001).sqrt()).abs() < 1e-3);
        assert!(found.throughput(n * 0.9) < peak && found.throughput(n * 1.1) < peak);
        let (n, x) = found.knee().unwrap();
        let power = |n: f64| found.throughput(n).powi(2) / n;
        assert!(power(n) > power(n * 0.95) && power(n) > power(n * 1.05));
        assert!(x < peak && peak < found.limit().unwrap());
        let flat = fit(&law(10.0, 0.0, 0.0)).unwrap();
        assert_eq!((flat.peak(), flat.limit(), flat.knee()), (None, None, None));
    }

    #[test]
    fn points_that_cannot_tell_give_no_law() {
        let one = |n: f64, x: f64| Point {
            concurrency: n,
            throughput: x,
        };
        assert_eq!(fit(&[]), None);
        assert_eq!(
            fit(&[
                one(0.1, 10.0),
                one(0.2, 20.0),
                one(0.4, 40.0),
                one(0.8, 80.0)
            ]),
            None
        );
        assert_eq!(fit(&[one(5.0, 0.0); 6]), None);
    }

    proptest::proptest! {
        #[test]
        fn noise_moves_the_fit_a_little_and_never_below_zero(
            sigma in 0.0..0.3_f64, kappa in 0.0..0.002_f64, seed in 0..1000_u64,
        ) {
            let noisy: Vec<Point> = law(500.0, sigma, kappa).into_iter().enumerate().map(|(i, p)| {
                let uniform = mix(seed, i as u64, 3) as f64 / u64::MAX as f64;
                Point { throughput: p.throughput * (0.98 + 0.04 * uniform), ..p }
            }).collect();
            let found = fit(&noisy).unwrap();
            assert!(found.sigma >= 0.0 && found.kappa >= 0.0);
            for n in [1.0, 8.0, 64.0] {
                let truth = law(500.0, sigma, kappa).into_iter().find(|p| p.concurrency == n).unwrap();
                assert!((found.throughput(n) / truth.throughput - 1.0).abs() < 0.08, "{found:?}");
            }
            let (low, high) = found.sigma_interval;
            assert!(low <= found.sigma && found.sigma <= high);
        }
    }
}
