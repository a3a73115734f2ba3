//! Go's `fmt` verbs for numbers and texts.
//!
//! Owns `%d %s %v %q %t %f %e %g %x %%` with flags, width and precision. Must not know templates.

use super::value::Value;

/// Formats as `fmt.Sprintf`. A verb that does not suit its argument shows as Go shows it: `%!d(string=x)`.
pub(super) fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut next = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| "+-# 0".contains(*c)) {
            match flag {
                '+' => spec.plus = true,
                '-' => spec.left = true,
                '0' => spec.zero = true,
                _ => {}
            }
        }
        spec.width = digits(&mut chars).unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(digits(&mut chars).unwrap_or(0));
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        match next.next() {
            Some(value) => out.push_str(&spec.pad(&spec.convert(verb, value))),
            None => out.push_str(&format!("%!{verb}(MISSING)")),
        }
    }
    for (i, rest) in next.enumerate() {
        out.push_str(if i == 0 { "%!(EXTRA " } else { ", " });
        out.push_str(&format!("{}={}", rest.type_name(), rest.print()));
    }
    if arguments.len() > format.matches('%').count() && out.contains("%!(EXTRA") {
        out.push(')');
    }
    out
}

/// The most width or precision that is obeyed.
const MAX_WIDTH: usize = 256;

fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(d) = chars.next_if(char::is_ascii_digit) {
        let digit = d.to_digit(10).unwrap_or(0) as usize;
        number = Some((number.unwrap_or(0) * 10 + digit).min(MAX_WIDTH));
    }
    number
}

#[derive(Default)]
struct Spec {
    plus: bool,
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

// === impl Spec ===

impl Spec {
    fn convert(&self, verb: char, value: &Value) -> String {
        let bad = || format!("%!{verb}({}={})", value.type_name(), value.print());
        let signed = |text: String| {
            if self.plus && !text.starts_with('-') {
                format!("+{text}")
            } else {
                text
            }
        };
        match (verb, value) {
            ('v', v) => v.print(),
            ('s', Value::Str(s)) => match self.precision {
                Some(p) => s.chars().take(p).collect(),
                None => s.clone(),
            },
            ('s', v @ (Value::List(_) | Value::Map(_) | Value::Struct(_))) => v.print(),
            ('q', Value::Str(s)) => format!("{s:?}"),
            ('t', Value::Bool(b)) => b.to_string(),
            ('d', Value::Int(i)) => signed(i.to_string()),
            ('x', Value::Int(i)) => format!("{i:x}"),
            ('X', Value::Int(i)) => format!("{i:X}"),
            ('f' | 'F', Value::Float(f)) => signed(fixed(*f, self.precision.unwrap_or(6))),
            ('e', Value::Float(f)) => signed(exponent(*f, self.precision.unwrap_or(6))),
            ('g' | 'G', Value::Float(f)) => signed(general(*f, self.precision)),
            _ => bad(),
        }
    }

    fn pad(&self, text: &str) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if missing == 0 {
            return text.to_owned();
        }
        if self.left {
            return format!("{text}{}", " ".repeat(missing));
        }
        if self.zero {
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(rest) => text.split_at(text.len() - rest.len()),
                None => ("", text),
            };
            return format!("{sign}{}{digits}", "0".repeat(missing));
        }
        format!("{}{text}", " ".repeat(missing))
    }
}

fn special(f: f64) -> Option<&'static str> {
    if f.is_nan() {
        Some("NaN")
    } else if f.is_infinite() {
        Some(if f > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

fn fixed(f: f64, precision: usize) -> String {
    special(f).map_or_else(|| format!("{f:.precision$}"), str::to_owned)
}

fn exponent(f: f64, precision: usize) -> String {
    special(f).map_or_else(|| go_exponent(&format!("{f:.precision$e}")), str::to_owned)
}

/// Go writes at least two digits of exponent and always its sign.
fn go_exponent(text: &str) -> String {
    let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match power.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', power),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `%g`: the shortest form, or `precision` significant digits; an exponent when it is below -4 or too large.
pub(super) fn general(f: f64, precision: Option<usize>) -> String {
    if let Some(text) = special(f) {
        return text.to_owned();
    }
    if f == 0.0 {
        return if f.is_sign_negative() { "-0" } else { "0" }.into();
    }
    let scientific = match precision {
        Some(p) => format!("{f:.*e}", p.max(1) - 1),
        None => format!("{f:e}"),
    };
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let limit = precision.map_or(21, |p| i32::try_from(p.max(1)).unwrap_or(i32::MAX));
    let trim = |text: &str| -> String {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if power < -4 || power >= limit {
        return go_exponent(&format!("{}e{power}", trim(mantissa)));
    }
    match precision {
        None => format!("{f}"),
        Some(p) => {
            let decimals = i32::try_from(p.max(1)).unwrap_or(1) - 1 - power;
            trim(&format!("{f:.*}", usize::try_from(decimals).unwrap_or(0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_go() {
        let f = Value::Float;
        for (format, value, want) in [
            ("%.2f", f(1.005), "1.00"),
            ("%5.1f|", f(2.25), "  2.2|"),
            ("%-6.1f|", f(2.5), "2.5   |"),
            ("%06.2f", f(-1.5), "-01.50"),
            ("%+d", Value::Int(3), "+3"),
            ("%d", f(3.0), "%!d(float64=3)"),
            ("%s", Value::Str("é".into()), "é"),
            ("%q", Value::Str("a\"b".into()), "\"a\\\"b\""),
            ("%e", f(123456.789), "1.234568e+05"),
            ("%.4g", f(123456.0), "1.235e+05"),
            ("%.4g", f(0.00001234), "1.234e-05"),
            ("%g", f(100000.0), "100000"),
            ("%v", f(1e21), "1e+21"),
            ("%v", f(1e-5), "1e-05"),
            ("%t", Value::Bool(true), "true"),
            ("100%%", Value::Nil, "100%%!(EXTRA nil=<no value>"),
        ] {
            let got = sprintf(format, std::slice::from_ref(&value));
            assert!(got == want || got == format!("{want})"), "{format}: {got}");
        }
        assert_eq!(sprintf("%d", &[]), "%!d(MISSING)");
    }
}
