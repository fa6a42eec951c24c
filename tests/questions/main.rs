//! Questions to a journal, asked of one that `dcd demo` made and of a longer one.

mod begun;
mod bugs;
mod corpus;
mod demo;
mod field;
mod long;
mod mistyped;
mod moving;
mod program;
mod readme;
mod shrinking;
mod sim;
