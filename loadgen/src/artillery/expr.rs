//! Owns the small expression language of `ifTrue` and of `ensure` conditions: numbers, texts, names, arithmetic,
//! comparison, `and`, `or`, `not`. Must not know what the names stand for.

use serde_json::Value;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Constant(Value),
    Name(String),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Two(Op, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Vec<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
}

/// Where, in characters from 0, an expression is wrong, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) why: String,
}

/// Parses an expression. `names` are taken whole where they begin, longest first, whatever characters they hold.
pub(crate) fn parse(text: &str, names: &[String]) -> Result<Expr, Wrong> {
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        names,
        depth: 0,
    };
    let expr = parser.any()?;
    parser.blank();
    if parser.at < parser.text.len() {
        return parser.wrong("expected an operator: < <= > >= == != and or not + - * / %");
    }
    Ok(expr)
}

struct Parser<'a> {
    text: Vec<char>,
    at: usize,
    names: &'a [String],
    depth: usize,
}

const LEVELS: [&[(&str, Op)]; 5] = [
    &[("or", Op::Or), ("||", Op::Or)],
    &[("and", Op::And), ("&&", Op::And)],
    &[
        ("==", Op::Equal),
        ("!=", Op::NotEqual),
        ("<=", Op::LessOrEqual),
        (">=", Op::MoreOrEqual),
        ("<", Op::Less),
        (">", Op::More),
    ],
    &[("+", Op::Plus), ("-", Op::Minus)],
    &[("*", Op::Times), ("/", Op::Divide), ("%", Op::Modulo)],
];

impl Parser<'_> {
    fn wrong<T>(&self, why: &str) -> Result<T, Wrong> {
        Err(Wrong {
            at: self.at,
            why: why.to_owned(),
        })
    }

    fn blank(&mut self) {
        while self.text.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        self.blank();
        let word: Vec<char> = token.chars().collect();
        let rest = &self.text[self.at..];
        let is_word = word.iter().all(|c| c.is_alphabetic());
        let next = rest.get(word.len());
        let cut = is_word && next.is_some_and(|c| c.is_alphanumeric() || "_.".contains(*c));
        if rest.starts_with(&word) && !cut {
            self.at += word.len();
            return true;
        }
        false
    }

    fn any(&mut self) -> Result<Expr, Wrong> {
        self.depth += 1;
        if self.depth > 60 {
            return self.wrong("nested too deeply");
        }
        let found = self.level(0);
        self.depth -= 1;
        found
    }

    fn level(&mut self, level: usize) -> Result<Expr, Wrong> {
        let Some(ops) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.level(level + 1)?;
        'more: loop {
            if level == 2 && self.eat("in") {
                left = Expr::In(Box::new(left), self.set()?);
                continue;
            }
            for (token, op) in *ops {
                if self.eat(token) {
                    let right = self.level(level + 1)?;
                    left = Expr::Two(*op, Box::new(left), Box::new(right));
                    continue 'more;
                }
            }
            return Ok(left);
        }
    }

    fn set(&mut self) -> Result<Vec<Expr>, Wrong> {
        if !self.eat("(") {
            return self.wrong("expected ( after in");
        }
        let mut all = vec![self.any()?];
        while self.eat(",") {
            all.push(self.any()?);
        }
        if !self.eat(")") {
            return self.wrong("expected )");
        }
        Ok(all)
    }

    fn unary(&mut self) -> Result<Expr, Wrong> {
        self.depth += 1;
        if self.depth > 60 {
            return self.wrong("nested too deeply");
        }
        let found = if self.eat("not") || self.eat("!") {
            Expr::Not(Box::new(self.unary()?))
        } else if self.eat("-") {
            Expr::Minus(Box::new(self.unary()?))
        } else {
            self.leaf()?
        };
        self.depth -= 1;
        Ok(found)
    }

    fn leaf(&mut self) -> Result<Expr, Wrong> {
        if self.eat("(") {
            let inner = self.any()?;
            if !self.eat(")") {
                return self.wrong("expected )");
            }
            return Ok(inner);
        }
        let rest: String = self.text[self.at..].iter().collect();
        // A name ends where no character goes on with it: `vusers.created_by_name.x` is not `vusers.created`.
        let whole = |n: &str| {
            let next = rest.strip_prefix(n).map(|after| after.chars().next());
            next.is_some_and(|c| c.is_none_or(|c| !c.is_alphanumeric() && !"_.$".contains(c)))
        };
        let known = self.names.iter().filter(|n| whole(n));
        if let Some(name) = known.max_by_key(|n| n.len()) {
            self.at += name.chars().count();
            return Ok(Expr::Name(name.clone()));
        }
        match self.text.get(self.at).copied() {
            Some(quote @ ('"' | '\'')) => {
                let from = self.at + 1;
                let Some(length) = self.text[from..].iter().position(|c| *c == quote) else {
                    return self.wrong("this quote is never closed");
                };
                self.at = from + length + 1;
                let inner: String = self.text[from..from + length].iter().collect();
                // In single quotes stands a name, as in filtrex.
                Ok(if quote == '"' {
                    Expr::Constant(inner.into())
                } else {
                    Expr::Name(inner)
                })
            }
            Some(c) if c.is_ascii_digit() || c == '.' => {
                let digits = self.take(|c| c.is_ascii_digit() || c == '.');
                match digits.parse::<f64>() {
                    Ok(n) => Ok(Expr::Constant(n.into())),
                    Err(_) => self.wrong("not a number"),
                }
            }
            Some(c) if c.is_alphabetic() || "_$".contains(c) => {
                let name = self.take(|c| c.is_alphanumeric() || "_$.[]".contains(c));
                Ok(match name.as_str() {
                    "true" => Expr::Constant(true.into()),
                    "false" => Expr::Constant(false.into()),
                    "null" => Expr::Constant(Value::Null),
                    _ => Expr::Name(name),
                })
            }
            Some(_) => self.wrong("expected a number, a \"text\" or a name"),
            None => self.wrong("it ends where a number, a \"text\" or a name is expected"),
        }
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = self.text[self.at..].iter();
        let word: String = rest.take_while(|c| wanted(**c)).collect();
        self.at += word.chars().count();
        word
    }
}

/// Whether a value counts as true.
pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64().is_some_and(|n| n != 0.0),
        Value::String(s) => !s.is_empty(),
        _ => true,
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(_) | Value::Number(_), Value::Number(_))
        | (Value::Number(_), Value::String(_)) => {
            as_number(a).zip(as_number(b)).is_some_and(|(a, b)| a == b)
        }
        _ => a == b,
    }
}

impl Expr {
    /// The value, names looked up by `find`.
    ///
    /// # Errors
    /// The name that `find` does not know, or the operation that has no result.
    pub(crate) fn value(&self, find: &dyn Fn(&str) -> Option<Value>) -> Result<Value, String> {
        Ok(match self {
            Expr::Constant(value) => value.clone(),
            Expr::Name(name) => {
                find(name).ok_or_else(|| format!("there is nothing named {name}"))?
            }
            Expr::Not(inner) => (!truthy(&inner.value(find)?)).into(),
            Expr::Minus(inner) => match as_number(&inner.value(find)?) {
                Some(n) => (-n).into(),
                None => return Err("- of something that is no number".to_owned()),
            },
            Expr::In(left, set) => {
                let left = left.value(find)?;
                for item in set {
                    if same(&left, &item.value(find)?) {
                        return Ok(true.into());
                    }
                }
                false.into()
            }
            Expr::Two(Op::Or, a, b) => (truthy(&a.value(find)?) || truthy(&b.value(find)?)).into(),
            Expr::Two(Op::And, a, b) => (truthy(&a.value(find)?) && truthy(&b.value(find)?)).into(),
            Expr::Two(op, a, b) => two(*op, &a.value(find)?, &b.value(find)?)?,
        })
    }
}

fn two(op: Op, a: &Value, b: &Value) -> Result<Value, String> {
    match op {
        Op::Equal => return Ok(same(a, b).into()),
        Op::NotEqual => return Ok((!same(a, b)).into()),
        Op::Plus if a.is_string() || b.is_string() => {
            let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            return Ok((text(a) + &text(b)).into());
        }
        _ => {}
    }
    if let (Value::String(a), Value::String(b)) = (a, b) {
        let order = a.cmp(b);
        match op {
            Op::Less => return Ok(order.is_lt().into()),
            Op::LessOrEqual => return Ok(order.is_le().into()),
            Op::More => return Ok(order.is_gt().into()),
            Op::MoreOrEqual => return Ok(order.is_ge().into()),
            _ => {}
        }
    }
    let (Some(a), Some(b)) = (as_number(a), as_number(b)) else {
        return Err(format!("{a} and {b} are not two numbers"));
    };
    Ok(match op {
        Op::Less => (a < b).into(),
        Op::LessOrEqual => (a <= b).into(),
        Op::More => (a > b).into(),
        Op::MoreOrEqual => (a >= b).into(),
        Op::Plus => (a + b).into(),
        Op::Minus => (a - b).into(),
        Op::Times => (a * b).into(),
        Op::Divide => (a / b).into(),
        Op::Modulo => (a % b).into(),
        Op::Or | Op::And | Op::Equal | Op::NotEqual => Value::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_computed() {
        let find = |name: &str| match name {
            "x" => Some(Value::from(3)),
            "s" => Some(Value::from("ab")),
            "http.response_time.p99" => Some(Value::from(120.5)),
            "a.b-c/d" => Some(Value::from(7)),
            _ => None,
        };
        let names = ["a.b-c/d".to_owned()];
        let check = |text: &str| {
            let parsed = parse(text, &names).map_err(|w| format!("{}: {}", w.at, w.why))?;
            parsed.value(&find).map(|v| v.to_string())
        };
        for (text, value) in [
            ("x > 2 and x < 4", "true"),
            ("not (x == 3) or s == \"ab\"", "true"),
            ("1 + 2 * x", "7.0"),
            ("http.response_time.p99 < 121", "true"),
            ("a.b-c/d - 2 == 5", "true"),
            ("'a.b-c/d' == 7", "true"),
            ("x in (1, 2, 3)", "true"),
            ("a.b-c/dd == 1", "there is nothing named a.b"),
            ("-x < 0 && !(x % 2 == 0)", "true"),
            ("orange == 1", "there is nothing named orange"),
            (
                "x <",
                "3: it ends where a number, a \"text\" or a name is expected",
            ),
            (
                "x 3",
                "2: expected an operator: < <= > >= == != and or not + - * / %",
            ),
        ] {
            let got = check(text).unwrap_or_else(|e| e);
            assert_eq!(got, value, "{text}");
        }
        assert!(parse(&"(".repeat(500), &[]).is_err());
    }
}
