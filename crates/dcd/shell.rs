//! Words of a command that is printed to be pasted into a shell.
//!
//! Deliberately absent: shells that quote otherwise than POSIX does.

use std::path::Path;

/// A text as one word: in single quotes where a shell would take it for more than its letters.
pub(crate) fn word(text: &str) -> String {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | ',' | '@' | '%' | '+' | '=');
    if !text.is_empty() && !text.starts_with('=') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path as one word that is no option.
pub(crate) fn path(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') { word(&format!("./{text}")) } else { word(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen as: `dcd replay /tmp/my run --until 4`, pasted, was told of an unexpected argument 'run'.
    #[test]
    fn what_a_shell_would_divide_stands_in_quotes() {
        for (text, expected) in [
            ("/tmp/run.drop-80", "/tmp/run.drop-80"),
            ("/tmp/my run", "'/tmp/my run'"),
            ("it's", r"'it'\''s'"),
            ("80={\"runs\":1}", "'80={\"runs\":1}'"),
            ("devices.d.log[0x1]", "'devices.d.log[0x1]'"),
            ("~/run", "'~/run'"),
            ("#80", "'#80'"),
            ("=run", "'=run'"),
            ("", "''"),
        ] {
            assert_eq!(word(text), expected);
        }
        assert_eq!(path(Path::new("-v run")), "'./-v run'");
    }
}
