//! Numbers and lengths of time as people read them. Absence is `-`, never 0.
//!
//! Owns these texts. Must not know colours nor places.

/// What stands for a value that is not there.
pub(crate) const ABSENT: &str = "-";

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

/// With thousands separated and `decimals` digits after the point.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    let nothing = !text.bytes().any(|b| (b'1'..=b'9').contains(&b));
    if value < 0.0 && !nothing {
        out.push('-');
    }
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

fn three_digits(value: f64) -> String {
    let size = value.abs();
    let decimals = if value.fract() == 0.0 || size >= 99.95 {
        0
    } else if size >= 9.995 {
        1
    } else {
        2
    };
    number(value, decimals)
}

/// Any number, about three digits.
pub(crate) fn plain(value: Option<f64>) -> String {
    finite(value).map_or_else(|| ABSENT.into(), three_digits)
}

/// Seconds as milliseconds without the unit.
pub(crate) fn ms(seconds: Option<f64>) -> String {
    finite(seconds).map_or_else(
        || ABSENT.into(),
        |s| number(s * 1e3, usize::from(s != 0.0 && s * 1e3 < 9.95)),
    )
}

/// Seconds with the unit that fits: `8.1ms`, `1.25s`.
pub(crate) fn seconds(value: Option<f64>) -> String {
    match finite(value) {
        None => ABSENT.into(),
        Some(s) if s != 0.0 && s.abs() < 1e-3 => format!("{}us", number(s * 1e6, 0)),
        Some(s) if s.abs() < 1.0 => format!("{}ms", ms(Some(s))),
        Some(s) => format!("{}s", three_digits(s)),
    }
}

/// A ratio as percent without the sign.
pub(crate) fn percent(ratio: Option<f64>) -> String {
    finite(ratio).map_or_else(
        || ABSENT.into(),
        |r| number(r * 100.0, if r.abs() < 0.0995 { 2 } else { 1 }),
    )
}

/// A ratio as percent with its sign, or `-`.
pub(crate) fn percent_sign(ratio: Option<f64>) -> String {
    match finite(ratio) {
        None => ABSENT.into(),
        some => format!("{} %", percent(some)),
    }
}

/// Bytes with a binary unit.
pub(crate) fn bytes(value: f64) -> String {
    let mut at = value;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if at.abs() < 1024.0 {
            return format!("{} {unit}", three_digits(at));
        }
        at /= 1024.0;
    }
    format!("{} TiB", three_digits(at))
}

/// A length of time in two units of fixed width: `04m12s`, `29h34m`, `6d06h`.
pub(crate) fn age(ms: i64) -> String {
    let s = (ms / 1000).max(0);
    if s < 3_600 {
        format!("{:02}m{:02}s", s / 60, s % 60)
    } else if s < 172_800 {
        format!("{:02}h{:02}m", s / 3_600, s / 60 % 60)
    } else {
        format!("{}d{:02}h", s / 86_400, s / 3_600 % 24)
    }
}

/// A text without control characters and marks that change the direction of writing: what others named cannot steer the
/// terminal.
pub(crate) fn clean(text: &str) -> String {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if bad(c) { '?' } else { c }).collect()
}

/// The nearest ASCII character to one that we draw; `?` for what others wrote.
pub(crate) fn ascii(c: char) -> char {
    match c {
        ' '..='~' => c,
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' => '+',
        '─' => '-',
        '│' | '‖' => '|',
        '●' => '*',
        '✖' => 'x',
        '▲' => '^',
        '▼' => 'v',
        '▁' => '_',
        '▂' | '·' => '.',
        '▃' | '░' => ':',
        '▒' => 'o',
        '▓' => '%',
        '◆' => '@',
        '◄' => '<',
        '▄' => '-',
        '▅' => '=',
        '▆' => '+',
        '▇' => '*',
        '█' => '#',
        '…' => '~',
        '▸' | '→' | '↵' => '>',
        '←' => '<',
        '•' => 'o',
        '×' => 'x',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well_and_absence_is_not_zero() {
        assert_eq!(plain(Some(1_284.4)), "1,284");
        assert_eq!(plain(Some(0.0)), "0");
        assert_eq!(plain(Some(f64::NAN)), "-");
        assert_eq!(plain(None), "-");
        assert_eq!(number(-0.001, 1), "0.0");
        assert_eq!(number(-1_234_567.0, 0), "-1,234,567");
        assert_eq!(ms(Some(0.0081)), "8.1");
        assert_eq!(ms(Some(0.412)), "412");
        assert_eq!(seconds(Some(1.25)), "1.25s");
        assert_eq!(percent_sign(Some(0.0027)), "0.27 %");
        assert_eq!(percent_sign(Some(0.918)), "91.8 %");
        assert_eq!(percent_sign(None), "-");
        assert_eq!(age(252_000), "04m12s");
        assert_eq!(age(106_440_000), "29h34m");
        assert_eq!(age(540_000_000), "6d06h");
        assert_eq!(bytes(1_572_864.0), "1.50 MiB");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31m\u{202e}b\n"), "a?[31m?b?");
    }
}
