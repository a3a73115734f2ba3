//! From tokens to nodes.
//!
//! Owns the grammar of actions and pipelines. Must not know values.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::lex::{self, Piece, Token};
use super::value::Value;
use super::{TemplateError, functions};

/// A part that is executed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// A pipeline whose value is printed (unless it declares or assigns).
    Print(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Template(String, Option<Pipeline>),
    Break,
    Continue,
}

/// `$a, $b := command | command`
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    pub(super) assigns: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A word of a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Literal(Value),
    Dot,
    Variable(String),
    Function(String),
    Paren(Pipeline),
    /// A chain of fields on an operand.
    Field(Box<Operand>, Vec<String>),
}

/// How deep actions and parentheses may nest.
const MAX_DEPTH: usize = 64;

type Defines = BTreeMap<String, Vec<Node>>;
type Parsed<T> = Result<T, TemplateError>;

fn error<T>(message: impl Into<String>) -> Parsed<T> {
    Err(TemplateError(message.into()))
}

pub(super) fn parse(text: &str) -> Parsed<(Vec<Node>, Defines)> {
    let mut parser = Parser {
        pieces: lex::lex(text)?.into_iter(),
        defines: Defines::new(),
        scope: ["$", "$labels", "$externalLabels", "$externalURL", "$value"]
            .map(String::from)
            .to_vec(),
        depth: 0,
    };
    let (nodes, end) = parser.block()?;
    match end {
        Stop::Eof => Ok((nodes, parser.defines)),
        Stop::End => error("unexpected {{end}}"),
        Stop::Else(_) => error("unexpected {{else}}"),
    }
}

struct Parser {
    pieces: IntoIter<Piece>,
    defines: Defines,
    scope: Vec<String>,
    depth: usize,
}

/// What closed a block.
enum Stop {
    Eof,
    End,
    Else(Vec<Token>),
}

// === impl Parser ===

impl Parser {
    fn block(&mut self) -> Parsed<(Vec<Node>, Stop)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return error("actions nest too deep");
        }
        let mut nodes = Vec::new();
        let end = loop {
            let tokens = match self.pieces.next() {
                None => break Stop::Eof,
                Some(Piece::Text(text)) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Some(Piece::Action(tokens)) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(w)) => w.clone(),
                None => return error("missing value for command"),
                _ => String::new(),
            };
            let rest = || tokens[1..].to_vec();
            match keyword.as_str() {
                "end" => break Stop::End,
                "else" => break Stop::Else(rest()),
                "if" | "with" | "range" => nodes.push(self.control(&keyword, rest())?),
                "define" => self.define(rest())?,
                "template" => nodes.push(self.template(rest())?),
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                _ => nodes.push(Node::Print(self.pipeline(tokens, false)?)),
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn control(&mut self, keyword: &str, tokens: Vec<Token>) -> Parsed<Node> {
        let variables = self.scope.len();
        let pipeline = self.pipeline(tokens, keyword == "range")?;
        let (body, end) = self.block()?;
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Eof => return error("unexpected EOF"),
            Stop::Else(next) => match next.first() {
                None => self.until_end()?,
                Some(Token::Word(w)) if matches!(w.as_str(), "if" | "with") => {
                    let word = w.clone();
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return error("actions nest too deep");
                    }
                    let nested = self.control(&word, next[1..].to_vec())?;
                    self.depth -= 1;
                    vec![nested]
                }
                Some(_) => return error("unexpected word after else"),
            },
        };
        self.scope.truncate(variables);
        Ok(match keyword {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }

    fn until_end(&mut self) -> Parsed<Vec<Node>> {
        match self.block()? {
            (nodes, Stop::End) => Ok(nodes),
            (_, Stop::Eof) => error("unexpected EOF"),
            (_, Stop::Else(_)) => error("expected end; found {{else}}"),
        }
    }

    fn define(&mut self, tokens: Vec<Token>) -> Parsed<()> {
        let [Token::Str(name)] = tokens.as_slice() else {
            return error("define needs one quoted name");
        };
        let outer = std::mem::replace(&mut self.scope, vec!["$".into()]);
        let body = self.until_end()?;
        self.scope = outer;
        self.defines.insert(name.clone(), body);
        Ok(())
    }

    fn template(&mut self, tokens: Vec<Token>) -> Parsed<Node> {
        let Some(Token::Str(name)) = tokens.first() else {
            return error("template needs a quoted name");
        };
        let argument = match tokens.len() {
            1 => None,
            _ => Some(self.pipeline(tokens[1..].to_vec(), false)?),
        };
        Ok(Node::Template(name.clone(), argument))
    }

    fn pipeline(&mut self, mut tokens: Vec<Token>, is_range: bool) -> Parsed<Pipeline> {
        let (mut variables, mut assigns, mut skip) = (Vec::new(), false, 0);
        match tokens.as_slice() {
            [
                Token::Variable(a),
                op @ (Token::Declare | Token::Assign),
                ..,
            ] => {
                (variables, assigns, skip) = (vec![a.clone()], *op == Token::Assign, 2);
            }
            [
                Token::Variable(a),
                Token::Comma,
                Token::Variable(b),
                op @ (Token::Declare | Token::Assign),
                ..,
            ] if is_range => {
                (variables, assigns, skip) = (vec![a.clone(), b.clone()], *op == Token::Assign, 4);
            }
            _ => {}
        }
        let mut words = tokens.split_off(skip).into_iter().peekable();
        let commands = self.commands(&mut words, false)?;
        for name in &variables {
            if assigns {
                self.known(name)?;
            } else {
                self.scope.push(name.clone());
            }
        }
        Ok(Pipeline {
            variables,
            assigns,
            commands,
        })
    }

    fn known(&self, name: &str) -> Parsed<()> {
        if self.scope.iter().any(|v| v == name) {
            return Ok(());
        }
        error(format!("undefined variable {name:?}"))
    }

    fn commands(
        &mut self,
        words: &mut Peekable<IntoIter<Token>>,
        in_paren: bool,
    ) -> Parsed<Vec<Vec<Operand>>> {
        let mut commands = Vec::new();
        let mut command: Vec<Operand> = Vec::new();
        loop {
            let token = words.next();
            match token {
                None if in_paren => return error("unclosed left paren"),
                None | Some(Token::Pipe | Token::Close) => {
                    if token == Some(Token::Close) && !in_paren {
                        return error("unexpected right paren");
                    }
                    if command.is_empty() {
                        return error("missing value for command");
                    }
                    check_command(&command, !commands.is_empty())?;
                    commands.push(std::mem::take(&mut command));
                    if token != Some(Token::Pipe) {
                        return Ok(commands);
                    }
                }
                Some(token) => {
                    let operand = self.operand(token, words)?;
                    command.push(operand);
                }
            }
        }
    }

    fn operand(&mut self, token: Token, words: &mut Peekable<IntoIter<Token>>) -> Parsed<Operand> {
        let base = match token {
            Token::Str(s) => Operand::Literal(Value::Str(s)),
            Token::Int(i) => Operand::Literal(Value::Int(i)),
            Token::Float(f) => Operand::Literal(Value::Float(f)),
            Token::Dot => Operand::Dot,
            Token::Field { name, .. } => Operand::Field(Box::new(Operand::Dot), vec![name]),
            Token::Variable(name) => {
                self.known(&name)?;
                Operand::Variable(name)
            }
            Token::Word(w) => match w.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Literal(Value::Nil),
                _ if functions::exists(&w) => Operand::Function(w),
                _ => return error(format!("function {w:?} not defined")),
            },
            Token::Open => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return error("parentheses nest too deep");
                }
                let commands = self.commands(words, true)?;
                self.depth -= 1;
                Operand::Paren(Pipeline {
                    commands,
                    ..Pipeline::default()
                })
            }
            other => return error(format!("unexpected {other:?} in command")),
        };
        let mut fields = Vec::new();
        while let Some(Token::Field { name, .. }) =
            words.next_if(|t| matches!(t, Token::Field { adjacent: true, .. }))
        {
            fields.push(name);
        }
        Ok(match (base, fields.is_empty()) {
            (base, true) => base,
            (Operand::Field(inner, mut chain), false) => {
                chain.extend(fields);
                Operand::Field(inner, chain)
            }
            (base, false) => Operand::Field(Box::new(base), fields),
        })
    }
}

fn check_command(command: &[Operand], piped: bool) -> Parsed<()> {
    let callable = matches!(command[0], Operand::Function(_));
    if !callable && command.len() > 1 {
        return error("can't give argument to non-function");
    }
    if piped && !callable {
        return error("non executable command in pipeline");
    }
    Ok(())
}
