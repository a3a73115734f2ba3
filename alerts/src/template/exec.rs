//! Runs nodes.
//!
//! Owns scopes, control flow and the limit on output. Must not know what functions do.

use super::functions;
use super::parse::{Node, Operand, Pipeline};
use super::value::Value;
use super::{QueryFn, Scope, Template, TemplateError};

/// The longest text that one template may make, in bytes.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// How deep `template` may call itself.
const MAX_CALLS: usize = 32;

/// What a template needs while it runs.
pub(super) struct Machine<'a, 'q> {
    pub(super) template: &'a Template,
    pub(super) scope: &'a Scope<'a>,
    pub(super) query: &'a mut QueryFn<'q>,
    variables: Vec<(String, Value)>,
    out: String,
    calls: usize,
}

/// How a block ended.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Run<T> = Result<T, TemplateError>;

pub(super) fn run(
    template: &Template,
    scope: &Scope<'_>,
    dot: Value,
    variables: Vec<(String, Value)>,
    query: &mut QueryFn<'_>,
) -> Run<String> {
    let mut machine = Machine {
        template,
        scope,
        query,
        variables,
        out: String::new(),
        calls: 0,
    };
    machine.block(template.nodes(), &dot)?;
    Ok(machine.out)
}

// === impl Machine ===

impl Machine<'_, '_> {
    fn block(&mut self, nodes: &[Node], dot: &Value) -> Run<Flow> {
        let depth = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                self.variables.truncate(depth);
                return Ok(flow);
            }
        }
        self.variables.truncate(depth);
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Run<Flow> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.write(&value.print())?;
                }
            }
            Node::If(condition, yes, no) => {
                let depth = self.variables.len();
                let branch = if self.pipeline(condition, dot)?.is_true() {
                    yes
                } else {
                    no
                };
                let flow = self.block(branch, dot)?;
                self.variables.truncate(depth);
                return Ok(flow);
            }
            Node::With(condition, yes, no) => {
                let depth = self.variables.len();
                let value = self.pipeline(condition, dot)?;
                let flow = if value.is_true() {
                    self.block(yes, &value)?
                } else {
                    self.block(no, dot)?
                };
                self.variables.truncate(depth);
                return Ok(flow);
            }
            Node::Range(over, body, empty) => return self.range(over, body, empty, dot),
            Node::Template(name, argument) => self.call_template(name, argument.as_ref(), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, over: &Pipeline, body: &[Node], empty: &[Node], dot: &Value) -> Run<Flow> {
        let depth = self.variables.len();
        let value = self.commands(over, dot)?;
        let items: Vec<(Value, Value)> = match value {
            Value::List(list) => list
                .into_iter()
                .enumerate()
                .map(|(i, v)| (Value::Int(i as i64), v))
                .collect(),
            Value::Map(map) => map.into_iter().map(|(k, v)| (Value::Str(k), v)).collect(),
            Value::Nil => Vec::new(),
            other => {
                return Err(TemplateError(format!(
                    "range can't iterate over {}",
                    other.type_name()
                )));
            }
        };
        if items.is_empty() {
            return self.block(empty, dot);
        }
        for (key, item) in items {
            match over.variables.as_slice() {
                [element] => self.variables.push((element.clone(), item.clone())),
                [index, element] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((element.clone(), item.clone()));
                }
                _ => {}
            }
            let flow = self.block(body, &item)?;
            self.variables.truncate(depth);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn call_template(&mut self, name: &str, argument: Option<&Pipeline>, dot: &Value) -> Run<()> {
        let value = match argument {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nil,
        };
        let template = self.template;
        let nodes = template
            .define(name)
            .ok_or_else(|| TemplateError(format!("template {name:?} not defined")))?;
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(TemplateError("templates call each other too deep".into()));
        }
        let outer = std::mem::replace(&mut self.variables, vec![("$".into(), value.clone())]);
        self.block(nodes, &value)?;
        self.variables = outer;
        self.calls -= 1;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Run<Value> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            if pipeline.assigns {
                if let Some(slot) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
                    slot.1 = value.clone();
                }
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Run<Value> {
        let mut piped: Option<Value> = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Nil))
    }

    fn command(&mut self, command: &[Operand], piped: Option<Value>, dot: &Value) -> Run<Value> {
        let Operand::Function(name) = &command[0] else {
            return self.operand(&command[0], dot);
        };
        let mut arguments = Vec::with_capacity(command.len());
        for operand in &command[1..] {
            let value = self.operand(operand, dot)?;
            // `and` and `or` stop at the first operand that decides.
            let decided = match name.as_str() {
                "and" => !value.is_true(),
                "or" => value.is_true(),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        functions::call(self, name, arguments)
            .map_err(|e| TemplateError(format!("error calling {name}: {e}")))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Run<Value> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Dot => Ok(dot.clone()),
            Operand::Variable(name) => self
                .variables
                .iter()
                .rev()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.clone())
                .ok_or_else(|| TemplateError(format!("undefined variable {name:?}"))),
            Operand::Function(name) => functions::call(self, name, Vec::new())
                .map_err(|e| TemplateError(format!("error calling {name}: {e}"))),
            Operand::Paren(pipeline) => self.commands(pipeline, dot),
            Operand::Field(base, chain) => {
                let mut value = self.operand(base, dot)?;
                for name in chain {
                    value = value.field(name).map_err(TemplateError)?;
                }
                Ok(value)
            }
        }
    }

    fn write(&mut self, text: &str) -> Run<()> {
        if self.out.len() + text.len() > MAX_OUTPUT_BYTES {
            return Err(TemplateError("the template makes more than 1 MiB".into()));
        }
        self.out.push_str(text);
        Ok(())
    }
}
