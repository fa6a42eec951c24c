//! Tables in text: a row is a line, columns end with `|`, `#` begins a comment.

/// The rows of a table, each with its columns.
pub(crate) fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split('|').map(str::trim).collect())
}

/// A hexadecimal number; nothing is 0.
pub(crate) fn hex(text: &str) -> u64 {
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("'{text}' is no number"));
    if text.is_empty() { 0 } else { number(text) }
}
