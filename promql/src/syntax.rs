//! The language as text: tokens, tree, types, printing. Must not know evaluation.

pub mod ast;
pub(crate) mod check;
pub(crate) mod diagnose;
pub(crate) mod duration;
pub mod functions;
pub(crate) mod lexer;
pub(crate) mod parse;
pub(crate) mod print;
pub(crate) mod rewrite;
pub(crate) mod selector;
pub mod series;

#[cfg(test)]
pub(crate) mod language_test;
