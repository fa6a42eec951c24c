//! A journal damaged on purpose, byte by byte and cut by cut: the answer is an error that names the intact prefix and the
//! command that takes it out, or records that are exactly those that were written. Never a panic, never another record.
//!
//! A sample runs with every `cargo test`. Every byte and every cut, by hand (some minutes, on all cores, in memory):
//!
//! ```sh
//! cargo test --release --test damage -- --ignored
//! ```

mod directory;
mod file;
mod outcome;
mod verbs;
