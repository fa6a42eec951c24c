//! Turns a stream of bytes, however it was cut into pieces, into JSON values.
//!
//! ```text
//!  bytes as they arrive         ┌─────── Reader ────────┐
//!  {"execute":"sto ─────feed──▶ │ scan: where does the  │
//!  p"}{'execute':  ─────feed──▶ │ value end?  then parse│ ──next──▶ value | error | nothing yet
//!  'cont'}         ─────feed──▶ │ the whole of it once  │
//!                               └───────────────────────┘
//! ```
//!
//! Strings may stand in single quotes, and `\'` is an escape. Values need no separator between them.
//!
//! **After an error** reading goes on, by three rules:
//!
//! - A value whose brackets balance but whose inside is wrong is dropped whole; what follows it is read as usual.
//! - A value that is too long or too deep is dropped up to its own end, which is still known from its brackets.
//! - After a byte that cannot stand where it stands (also a mismatched bracket, or a control character in a string) nothing is
//!   known about structure any more: all is dropped up to and including the next control character other than tab (so, a
//!   newline) or byte FEh or FFh, or up to the next `{`, whichever comes first. A client that wants to be sure of a fresh start
//!   sends FFh.
//!
//! Each of these tells its client once. Deliberately absent: numbers beyond 64 bits (they become floating point, as usual) and
//! comments.

use serde_json::Value;

use crate::strict::Strict;

/// The longest value that is read.
pub const VALUE_LIMIT_BYTES: usize = 1 << 20;

/// How many arrays and objects may stand inside each other. Under the parser's own 128, so that this limit is the one met.
pub const NESTING_LIMIT: usize = 120;

/// Between values, memory above this is given back.
const KEPT_CAPACITY_BYTES: usize = 64 << 10;

/// Why bytes are not a JSON value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The brackets balance, the inside is wrong.
    #[error("JSON parse error, {reason}")]
    Syntax {
        /// The parser's words.
        reason: String,
    },
    /// A byte that cannot stand where it stands.
    #[error("JSON parse error, stray {}", shown(*byte))]
    Stray {
        /// The byte.
        byte: u8,
    },
    /// A control character inside a string.
    #[error("JSON parse error, byte {byte:02x}h in a string must be written as an escape")]
    ControlInString {
        /// The character.
        byte: u8,
    },
    /// Longer than [`VALUE_LIMIT_BYTES`].
    #[error("JSON value is longer than the limit of {VALUE_LIMIT_BYTES} bytes")]
    TooLong,
    /// Deeper than [`NESTING_LIMIT`].
    #[error("JSON value is nested deeper than the limit of {NESTING_LIMIT} levels")]
    TooDeep,
}

fn shown(byte: u8) -> String {
    if byte.is_ascii_graphic() { format!("'{}'", char::from(byte)) } else { format!("byte {byte:02x}h") }
}

/// Whether a byte stands in no string: a control character, or one that no UTF-8 has and that asks for a fresh start.
const fn is_never_text(byte: u8) -> bool {
    matches!(byte, 0..b' ' | 0xfe..)
}

fn never_text(byte: u8) -> JsonError {
    if byte < b' ' { JsonError::ControlInString { byte } } else { JsonError::Stray { byte } }
}

/// What a byte outside of strings is.
#[derive(Clone, Copy)]
enum Class {
    Space,
    Open,
    Close,
    Quote,
    /// `,` and `:`, which stand only inside of arrays and objects.
    Separator,
    /// Part of a number or of a bare word.
    Word,
    /// Part of no JSON.
    Alien,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Alien; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\r' | b'\n' => Class::Space,
            b'{' | b'[' => Class::Open,
            b'}' | b']' => Class::Close,
            b'"' | b'\'' => Class::Quote,
            b',' | b':' => Class::Separator,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.' => Class::Word,
            _ => Class::Alien,
        };
        byte += 1;
    }
    classes
};

/// Where the next byte to look at stands.
#[derive(Clone, Copy)]
enum Place {
    /// Outside of every value.
    Between,
    /// Inside an array or object, outside of strings.
    Inside,
    /// Inside a string that ends with this quote.
    Text(u8),
    /// After a backslash in such a string.
    Escape(u8),
    /// Inside a number or word that stands alone.
    Bare,
    /// After an error that lost the structure.
    Lost,
}

/// What becomes of the value that is being looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Parse,
    /// Its error is told already.
    Drop,
}

/// Whether the parser can read the value as it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Standard,
    /// It has single quotes, which are rewritten first.
    SingleQuotes,
}

/// Reads JSON values from a stream of bytes.
///
/// Holds what was fed and not yet read. The caller feeds more only when [`Reader::next_value`] has nothing to give, or as long as
/// [`Reader::backlog_bytes`] is under its own limit; then memory is bounded by that, or by one value.
pub struct Reader {
    bytes: Vec<u8>,
    /// First byte of the value that is being looked at; all before it is used up.
    start: usize,
    /// First byte not yet looked at.
    at: usize,
    place: Place,
    /// How many arrays and objects are open.
    depth: usize,
    /// One bit for each open one, the innermost lowest: set for an object.
    objects: u128,
    fate: Fate,
    spelling: Spelling,
}

const _: () = assert!(NESTING_LIMIT <= u128::BITS as usize);

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader at the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            at: 0,
            place: Place::Between,
            depth: 0,
            objects: 0,
            fate: Fate::Parse,
            spelling: Spelling::Standard,
        }
    }

    /// Takes bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.forget_used();
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes are held, read ahead or of an unfinished value.
    #[must_use]
    pub fn backlog_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The next value, or what is wrong with it, or `None` until more bytes are fed.
    pub fn next_value(&mut self) -> Option<Result<Value, JsonError>> {
        while let Some(&byte) = self.bytes.get(self.at) {
            let step = match self.place {
                Place::Between => self.step_between(byte),
                Place::Inside => self.step_inside(byte),
                Place::Text(quote) => self.step_text(quote),
                Place::Escape(quote) => self.step_escape(quote, byte),
                Place::Bare => self.step_bare(byte),
                Place::Lost => self.step_lost(byte),
            };
            match step {
                Step::On => {}
                Step::End => {
                    if let Some(value) = self.end() {
                        return Some(value);
                    }
                    continue;
                }
                Step::Fault(error) => {
                    if let Some(error) = self.lose(error) {
                        return Some(Err(error));
                    }
                    continue;
                }
                Step::TooDeep => {
                    if let Some(error) = self.drop_value(JsonError::TooDeep) {
                        return Some(Err(error));
                    }
                }
            }
            if self.at - self.start > VALUE_LIMIT_BYTES
                && let Some(error) = self.drop_value(JsonError::TooLong)
            {
                return Some(Err(error));
            }
        }
        if matches!(self.place, Place::Between | Place::Lost) || self.fate == Fate::Drop {
            self.start = self.at;
        }
        None
    }

    fn step_between(&mut self, byte: u8) -> Step {
        match CLASSES[usize::from(byte)] {
            Class::Space => {
                self.at += 1;
                self.start = self.at;
                return Step::On;
            }
            Class::Open => {
                self.place = Place::Inside;
                return self.open(byte);
            }
            Class::Quote => self.enter_text(byte),
            Class::Word => self.place = Place::Bare,
            Class::Close | Class::Separator | Class::Alien => return Step::Fault(JsonError::Stray { byte }),
        }
        self.at += 1;
        Step::On
    }

    fn step_inside(&mut self, byte: u8) -> Step {
        match CLASSES[usize::from(byte)] {
            Class::Space | Class::Separator | Class::Word => {}
            Class::Open => return self.open(byte),
            Class::Close => return self.close(byte),
            Class::Quote => self.enter_text(byte),
            Class::Alien => return Step::Fault(JsonError::Stray { byte }),
        }
        self.at += 1;
        Step::On
    }

    fn step_text(&mut self, quote: u8) -> Step {
        let rest = &self.bytes[self.at..];
        let stop = rest.iter().position(|&byte| byte == quote || byte == b'\\' || is_never_text(byte));
        let Some(run_bytes) = stop else {
            self.at = self.bytes.len();
            return Step::On;
        };
        self.at += run_bytes;
        match rest[run_bytes] {
            b'\\' => self.place = Place::Escape(quote),
            byte if byte == quote => {
                self.at += 1;
                if self.depth == 0 {
                    return Step::End;
                }
                self.place = Place::Inside;
                return Step::On;
            }
            byte => return Step::Fault(never_text(byte)),
        }
        self.at += 1;
        Step::On
    }

    fn step_escape(&mut self, quote: u8, byte: u8) -> Step {
        if is_never_text(byte) {
            return Step::Fault(never_text(byte));
        }
        if byte == b'\'' {
            self.spelling = Spelling::SingleQuotes;
        }
        self.place = Place::Text(quote);
        self.at += 1;
        Step::On
    }

    fn step_bare(&mut self, byte: u8) -> Step {
        if !matches!(CLASSES[usize::from(byte)], Class::Word) {
            return Step::End;
        }
        self.at += 1;
        Step::On
    }

    fn step_lost(&mut self, byte: u8) -> Step {
        match byte {
            b'{' => self.place = Place::Between,
            b'\t' | b' '..0xfe => self.at += 1,
            _ => {
                self.at += 1;
                self.place = Place::Between;
            }
        }
        self.start = self.at;
        Step::On
    }

    fn enter_text(&mut self, quote: u8) {
        if quote == b'\'' {
            self.spelling = Spelling::SingleQuotes;
        }
        self.place = Place::Text(quote);
    }

    fn open(&mut self, byte: u8) -> Step {
        self.at += 1;
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(byte == b'{');
        if self.depth > NESTING_LIMIT { Step::TooDeep } else { Step::On }
    }

    fn close(&mut self, byte: u8) -> Step {
        // Of a value that is dropped only the depth counts: the kinds of its outer brackets may be forgotten.
        if self.fate == Fate::Parse && (self.objects & 1 == 1) != (byte == b'}') {
            return Step::Fault(JsonError::Stray { byte });
        }
        self.at += 1;
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth == 0 { Step::End } else { Step::On }
    }

    /// The value is complete.
    fn end(&mut self) -> Option<Result<Value, JsonError>> {
        let (fate, spelling, value) = (self.fate, self.spelling, self.start..self.at);
        self.begin_anew(Place::Between);
        match fate {
            Fate::Drop => None,
            Fate::Parse if value.len() > VALUE_LIMIT_BYTES => Some(Err(JsonError::TooLong)),
            Fate::Parse => Some(parse(&self.bytes[value], spelling)),
        }
    }

    /// The structure is lost. Gives the error unless the client heard one about this value.
    fn lose(&mut self, error: JsonError) -> Option<JsonError> {
        let told = self.fate == Fate::Drop;
        self.begin_anew(Place::Lost);
        (!told).then_some(error)
    }

    /// The value will be dropped when its end is found. Gives the error unless the client heard one about this value.
    fn drop_value(&mut self, error: JsonError) -> Option<JsonError> {
        let told = self.fate == Fate::Drop;
        self.fate = Fate::Drop;
        self.start = self.at;
        (!told).then_some(error)
    }

    fn begin_anew(&mut self, place: Place) {
        self.place = place;
        self.start = self.at;
        self.depth = 0;
        self.objects = 0;
        self.fate = Fate::Parse;
        self.spelling = Spelling::Standard;
    }

    fn forget_used(&mut self) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_CAPACITY_BYTES);
        } else if self.start > 0 {
            self.bytes.drain(..self.start);
        }
        self.at -= self.start;
        self.start = 0;
    }
}

/// What looking at a byte, or a run of them, came to.
enum Step {
    /// Go on at `at`.
    On,
    /// The value ends before `at`.
    End,
    /// The byte at `at` cannot stand there.
    Fault(JsonError),
    /// One level too many was opened.
    TooDeep,
}

fn parse(bytes: &[u8], spelling: Spelling) -> Result<Value, JsonError> {
    let parsed = match spelling {
        Spelling::Standard => serde_json::from_slice(bytes),
        Spelling::SingleQuotes => serde_json::from_slice(&in_double_quotes(bytes)),
    };
    match parsed {
        Ok(Strict(value)) => Ok(value),
        Err(error) => Err(JsonError::Syntax { reason: error.to_string() }),
    }
}

/// The same value with every string in double quotes.
fn in_double_quotes(bytes: &[u8]) -> Vec<u8> {
    let mut rewritten = Vec::with_capacity(bytes.len() + 8);
    let mut open = None;
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        match (open, byte) {
            (None, b'"' | b'\'') => {
                open = Some(byte);
                rewritten.push(b'"');
            }
            (Some(quote), _) if byte == quote => {
                open = None;
                rewritten.push(b'"');
            }
            (Some(_), b'"') => rewritten.extend_from_slice(b"\\\""),
            (Some(_), b'\\') => match rest.next() {
                Some(b'\'') => rewritten.push(b'\''),
                escaped => {
                    rewritten.push(b'\\');
                    rewritten.extend(escaped);
                }
            },
            _ => rewritten.push(byte),
        }
    }
    rewritten
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Reads `bytes` in pieces of `piece_bytes`, looking for values after every piece.
    fn read(bytes: &[u8], piece_bytes: usize) -> Vec<Result<Value, JsonError>> {
        let mut reader = Reader::new();
        let mut read = Vec::new();
        for piece in bytes.chunks(piece_bytes) {
            reader.feed(piece);
            read.extend(std::iter::from_fn(|| reader.next_value()));
            assert!(reader.backlog_bytes() <= VALUE_LIMIT_BYTES + piece_bytes);
        }
        read
    }

    /// Reads `text` whole and byte by byte, which must come to the same.
    fn read_both(text: impl AsRef<[u8]>) -> Vec<Result<Value, JsonError>> {
        let whole = read(text.as_ref(), text.as_ref().len());
        assert_eq!(whole, read(text.as_ref(), 1));
        whole
    }

    fn stray(byte: u8) -> Result<Value, JsonError> {
        Err(JsonError::Stray { byte })
    }

    #[test]
    fn values_need_no_separator() {
        assert_eq!(
            read_both(r#"{"a":1}{"b":[]} [2]"x"7 "#),
            [Ok(json!({"a": 1})), Ok(json!({"b": []})), Ok(json!([2])), Ok(json!("x")), Ok(json!(7))]
        );
    }

    #[test]
    fn single_quotes_are_quotes() {
        let text = r#"{'a': 'it\'s "so"', "b": "it's \'so\'", 'c': '\\\n\u00e9'}"#;
        assert_eq!(read_both(text), [Ok(json!({"a": "it's \"so\"", "b": "it's 'so'", "c": "\\\né"}))]);
    }

    #[test]
    fn integers_are_exact() {
        let text = "[18446744073709551615, -9223372036854775808, 1.5]";
        assert_eq!(read_both(text), [Ok(json!([u64::MAX, i64::MIN, 1.5]))]);
    }

    #[test]
    fn a_balanced_value_is_dropped_alone() {
        let read = read_both(r#"{"a" 1}{"b": 2}"#);
        assert!(matches!(read[0], Err(JsonError::Syntax { .. })));
        assert_eq!(read[1..], [Ok(json!({"b": 2}))]);
    }

    #[test]
    fn repeated_keys_are_refused() {
        let read = read_both(r#"{"execute": "stop", "execute": "cont"}"#);
        let Err(JsonError::Syntax { reason }) = &read[0] else { panic!("{read:?}") };
        assert!(reason.starts_with("duplicate key 'execute'"), "{reason}");
    }

    #[test]
    fn a_lost_structure_is_found_again() {
        let after = Ok(json!({"b": 2}));
        assert_eq!(read_both("}{\"b\": 2}"), [stray(b'}'), after.clone()]);
        assert_eq!(read_both("hm#?! \"x\n{\"b\": 2}").last(), Some(&after));
        assert_eq!(read_both("{\"a\": ]}\n{\"b\": 2}"), [stray(b']'), after.clone()]);
        assert_eq!(
            read_both("{\"a\": \"x\n{\"b\": 2}"),
            [Err(JsonError::ControlInString { byte: b'\n' }), after.clone()]
        );
        assert_eq!(read_both(b"{\"a\": {\xff{\"b\": 2}"), [stray(0xff), after.clone()]);
        assert_eq!(read_both(b"{\"a\": \"x\xff{\"b\": 2}"), [stray(0xff), after.clone()]);
        assert_eq!(read_both(b"{\"a\": \"x\\\xff{\"b\": 2}"), [stray(0xff), after]);
    }

    #[test]
    fn invalid_utf8_is_a_syntax_error() {
        let read = read_both(b"{\"a\": \"\xc3\x28\"}{\"b\": 2}");
        assert!(matches!(read[0], Err(JsonError::Syntax { .. })));
        assert_eq!(read[1..], [Ok(json!({"b": 2}))]);
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read_both(nested(NESTING_LIMIT))[0].is_ok());
        for depth in [NESTING_LIMIT + 1, 10 * NESTING_LIMIT] {
            assert_eq!(read_both(nested(depth) + "{}"), [Err(JsonError::TooDeep), Ok(json!({}))]);
        }
    }

    #[test]
    fn length_has_a_limit() {
        let long = |len_bytes: usize| format!("\"{}\"", "x".repeat(len_bytes - 2));
        assert!(read_both(long(VALUE_LIMIT_BYTES))[0].is_ok());
        for len_bytes in [VALUE_LIMIT_BYTES + 1, 3 * VALUE_LIMIT_BYTES] {
            assert_eq!(read_both(long(len_bytes) + "{}"), [Err(JsonError::TooLong), Ok(json!({}))]);
        }
    }

    #[test]
    fn what_is_dropped_for_its_length_is_not_executed() {
        let inner = format!("{{\"a\": [\"{}\", {{\"execute\": \"quit\"}}]}}[1]", "x".repeat(VALUE_LIMIT_BYTES));
        assert_eq!(read_both(inner), [Err(JsonError::TooLong), Ok(json!([1]))]);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Bytes that often are almost JSON.
    fn byte_soup() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![4 => prop::sample::select(b"{}[]:,\"'\\ \n1etrue".to_vec()), 1 => any::<u8>()],
            0..400,
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(values in prop::collection::vec(any_value(), 1..4), piece_bytes in 1..40usize) {
            let mut text = Vec::new();
            for value in &values {
                crate::print::value(value, &mut text);
                text.push(b'\n');
            }
            let read: Result<Vec<Value>, JsonError> = read(&text, piece_bytes).into_iter().collect();
            prop_assert_eq!(read, Ok(values));
        }

        #[test]
        fn byte_soup_is_survived_in_any_pieces(soup in byte_soup(), piece_bytes in 1..40usize) {
            prop_assert_eq!(read(&soup, piece_bytes), read(&soup, soup.len().max(1)));
        }

        #[test]
        fn a_fresh_start_is_always_possible(mut soup in byte_soup()) {
            soup.extend_from_slice(b"\xff{\"fresh\": 1}");
            prop_assert_eq!(read(&soup, soup.len()).pop(), Some(Ok(json!({"fresh": 1}))));
        }
    }
}
