//! The commands of qtest, one function for each kind.

use std::fmt;
use std::io::{self, Read, Write};

use wire::Hpa;

use crate::config_access::from_bytes;
use crate::qtest::encoding::{base64_digits, base64_len, decode_base64, hex_byte, push_base64, push_hex};
use crate::qtest::{BULK_LEN_BYTES_MAX, LINE_LEN_BYTES_MAX, Machine, SETTLE_LIMIT, number};

/// Bytes that are moved at once: a multiple of 3 for base64, of 8 for registers.
const PART_LEN_BYTES: usize = 48 << 10;
/// Replies that are kept back at most, to leave with one call.
const REPLIES_LEN_BYTES: usize = 64 << 10;
/// Of a word that is not understood, so many bytes are given back.
const QUOTE_LEN_BYTES: usize = 64;

/// A client, and what it has not been sent yet.
pub(super) struct Session<'a, S> {
    machine: &'a dyn Machine,
    stream: S,
    replies: Vec<u8>,
    part: Vec<u8>,
}

/// Why a line does nothing.
#[derive(Debug)]
enum Refusal<'a> {
    Missing { usage: &'static str },
    NoNumber { word: &'a [u8] },
    NoPort { port: u64 },
    Size,
    TooLarge { len_bytes: u64 },
    NoData { encoding: &'static str },
}

/// How a client wants bytes.
#[derive(Clone, Copy)]
enum Encoding {
    Hex,
    Base64,
}

/// What a line comes to.
type Done<'w> = Result<Reply, Refusal<'w>>;

enum Reply {
    /// `OK`, when what was written has settled.
    Written,
    /// `OK` and a value of at least so many digits.
    Number { value: u64, digits: usize },
    /// A line as it is.
    Text(&'static str),
    /// The clock, and whether it was moved as asked.
    Time { is_ok: bool, ns: u64 },
    /// `OK` and bytes from an address on, which are read while they are sent.
    Bytes { at: Hpa, len_bytes: u64, encoding: Encoding },
}

/// The words behind the command's name.
struct Words<'w> {
    rest: Option<&'w [u8]>,
    usage: &'static str,
}

impl<'w> Words<'w> {
    fn word(&mut self) -> Result<&'w [u8], Refusal<'w>> {
        let rest = self.rest.ok_or(Refusal::Missing { usage: self.usage })?;
        let (word, rest) = split_word(rest);
        self.rest = rest;
        Ok(word)
    }

    fn number(&mut self) -> Result<u64, Refusal<'w>> {
        let word = self.word()?;
        number::unsigned(word).ok_or(Refusal::NoNumber { word })
    }

    fn address(&mut self) -> Result<Hpa, Refusal<'w>> {
        self.number().map(Hpa)
    }

    fn port(&mut self) -> Result<u16, Refusal<'w>> {
        let port = self.number()?;
        u16::try_from(port).map_err(|_| Refusal::NoPort { port })
    }

    fn len_bytes(&mut self) -> Result<u64, Refusal<'w>> {
        let len_bytes = self.number()?;
        if len_bytes > BULK_LEN_BYTES_MAX { Err(Refusal::TooLarge { len_bytes }) } else { Ok(len_bytes) }
    }

    fn signed(&mut self) -> Result<i64, Refusal<'w>> {
        let word = self.word()?;
        number::signed(word).ok_or(Refusal::NoNumber { word })
    }

    /// The data of a write; shorter than any data there is, it is refused as QEMU does.
    fn data(&mut self) -> Result<&'w [u8], Refusal<'w>> {
        let word = self.word()?;
        if word.len() < 3 { Err(Refusal::Size) } else { Ok(word) }
    }
}

impl<'a, S: Read + Write> Session<'a, S> {
    pub(super) fn new(machine: &'a dyn Machine, stream: S) -> Self {
        Self { machine, stream, replies: Vec::new(), part: Vec::new() }
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Sends the replies that were kept back.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.replies)?;
        self.replies.clear();
        self.stream.flush()
    }

    /// Answers a line of which only the end was kept.
    pub(super) fn refuse_line(&mut self) -> io::Result<()> {
        writeln!(self.replies, "ERR the line is too long: {LINE_LEN_BYTES_MAX} bytes at most")
    }

    /// Does what a line says and answers it, with one line.
    pub(super) fn execute(&mut self, line: &[u8]) -> io::Result<()> {
        let (name, rest) = split_word(line);
        let words = |usage| Words { rest, usage };
        let done = match name {
            b"readb" => self.read_register(1, words("readb ADDR")),
            b"readw" => self.read_register(2, words("readw ADDR")),
            b"readl" => self.read_register(4, words("readl ADDR")),
            b"readq" => self.read_register(8, words("readq ADDR")),
            b"writeb" => self.write_register(1, words("writeb ADDR VALUE")),
            b"writew" => self.write_register(2, words("writew ADDR VALUE")),
            b"writel" => self.write_register(4, words("writel ADDR VALUE")),
            b"writeq" => self.write_register(8, words("writeq ADDR VALUE")),
            b"inb" => self.port_in(1, words("inb ADDR")),
            b"inw" => self.port_in(2, words("inw ADDR")),
            b"inl" => self.port_in(4, words("inl ADDR")),
            b"outb" => self.port_out(1, words("outb ADDR VALUE")),
            b"outw" => self.port_out(2, words("outw ADDR VALUE")),
            b"outl" => self.port_out(4, words("outl ADDR VALUE")),
            b"read" => read_bytes(Encoding::Hex, words("read ADDR SIZE")),
            b"b64read" => read_bytes(Encoding::Base64, words("b64read ADDR SIZE")),
            b"write" => self.write_hex(words("write ADDR SIZE 0xDATA")),
            b"b64write" => self.write_base64(words("b64write ADDR SIZE DATA")),
            b"memset" => self.fill(words("memset ADDR SIZE VALUE")),
            b"clock_step" => self.clock_step(words("clock_step [NS]")),
            b"clock_set" => self.clock_set(words("clock_set NS")),
            b"endianness" => Ok(Reply::Text("OK little")),
            b"irq_intercept_in" => intercept(words("irq_intercept_in QOM-PATH")),
            b"irq_intercept_out" => intercept(words("irq_intercept_out QOM-PATH")),
            b"set_irq_in" => set_irq(words("set_irq_in QOM-PATH NAME NUM LEVEL")),
            _ => return writeln!(self.replies, "FAIL Unknown command '{}'", quoted(name)),
        };
        match done {
            Ok(reply) => self.answer(reply)?,
            Err(refusal) => writeln!(self.replies, "ERR {refusal}")?,
        }
        if self.replies.len() >= REPLIES_LEN_BYTES { self.flush() } else { Ok(()) }
    }

    fn answer(&mut self, reply: Reply) -> io::Result<()> {
        match reply {
            Reply::Written => {
                // What the write started is over before the driver goes on.
                self.machine.platform().settle(SETTLE_LIMIT);
                writeln!(self.replies, "OK")
            }
            Reply::Number { value, digits } => writeln!(self.replies, "OK 0x{value:0digits$x}"),
            Reply::Text(text) => writeln!(self.replies, "{text}"),
            Reply::Time { is_ok, ns } => writeln!(self.replies, "{} {ns}", if is_ok { "OK" } else { "FAIL" }),
            Reply::Bytes { at, len_bytes, encoding } => self.send_bytes(at, len_bytes, encoding),
        }
    }

    fn read_register<'w>(&self, width: usize, mut words: Words<'w>) -> Done<'w> {
        let at = words.address()?;
        let mut bytes = [0; 8];
        self.machine.platform().read(at, &mut bytes[..width]);
        Ok(Reply::Number { value: u64::from_le_bytes(bytes), digits: 16 })
    }

    fn write_register<'w>(&self, width: usize, mut words: Words<'w>) -> Done<'w> {
        let (at, value) = (words.address()?, words.number()?);
        self.machine.platform().write(at, &value.to_le_bytes()[..width]);
        Ok(Reply::Written)
    }

    fn port_in<'w>(&self, width: u8, mut words: Words<'w>) -> Done<'w> {
        let port = words.port()?;
        Ok(Reply::Number { value: self.machine.platform().port_read(port, width).into(), digits: 4 })
    }

    fn port_out<'w>(&self, width: u8, mut words: Words<'w>) -> Done<'w> {
        let (port, value) = (words.port()?, words.number()?);
        self.machine.platform().port_write(port, width, from_bytes(&value.to_le_bytes()[..width.into()]));
        Ok(Reply::Written)
    }

    fn write_hex<'w>(&mut self, mut words: Words<'w>) -> Done<'w> {
        let (at, len_bytes, data) = (words.address()?, words.len_bytes()?, words.data()?);
        let no_hex = Refusal::NoData { encoding: "hex digits behind 0x" };
        let Some(digits) = data.strip_prefix(b"0x").or(data.strip_prefix(b"0X")) else { return Err(no_hex) };
        let digits = &digits[..digits.len().min(2 * len_bytes as usize)];
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(no_hex);
        }
        // What the data does not reach is zero.
        let bytes = digits.chunks_exact(2).filter_map(hex_byte).chain(std::iter::repeat(0)).take(len_bytes as usize);
        self.write_parts(at, bytes);
        Ok(Reply::Written)
    }

    fn write_base64<'w>(&mut self, mut words: Words<'w>) -> Done<'w> {
        let (at, len_bytes, data) = (words.address()?, words.len_bytes()?, words.data()?);
        let digits = base64_digits(data).ok_or(Refusal::NoData { encoding: "base64" })?;
        let mut left = base64_len(digits.len()).min(len_bytes as usize);
        let mut at = Some(at);
        for part in digits.chunks(PART_LEN_BYTES / 3 * 4) {
            let Some(here) = at.filter(|_| left > 0) else { break };
            self.part.clear();
            decode_base64(part, &mut self.part);
            self.part.truncate(left);
            self.machine.platform().write_bulk(here, &self.part);
            left -= self.part.len();
            at = here.checked_add(self.part.len() as u64);
        }
        Ok(Reply::Written)
    }

    fn fill<'w>(&mut self, mut words: Words<'w>) -> Done<'w> {
        let (at, len_bytes, value) = (words.address()?, words.len_bytes()?, words.number()?);
        self.write_parts(at, std::iter::repeat_n(value as u8, len_bytes as usize));
        Ok(Reply::Written)
    }

    /// Writes bytes in a row, part by part.
    fn write_parts(&mut self, at: Hpa, mut bytes: impl Iterator<Item = u8>) {
        let mut at = Some(at);
        while let Some(here) = at {
            self.part.clear();
            self.part.extend(bytes.by_ref().take(PART_LEN_BYTES));
            if self.part.is_empty() {
                return;
            }
            self.machine.platform().write_bulk(here, &self.part);
            at = here.checked_add(self.part.len() as u64);
        }
    }

    fn clock_step<'w>(&self, mut words: Words<'w>) -> Done<'w> {
        if words.rest.is_none() {
            let sentence = "FAIL cannot advance clock to the next deadline because there is no pending deadline";
            return Ok(Reply::Text(sentence));
        }
        let by_ns = words.signed()?;
        let forward = u64::try_from(by_ns).ok().filter(|by_ns| *by_ns > 0);
        Ok(match forward {
            Some(by_ns) => Reply::Time { is_ok: true, ns: self.machine.step_clock(by_ns) },
            None => Reply::Text("FAIL could not advance time"),
        })
    }

    fn clock_set<'w>(&self, mut words: Words<'w>) -> Done<'w> {
        let to_ns = words.signed()?;
        let ns = self.machine.advance_clock(u64::try_from(to_ns).unwrap_or(0));
        Ok(Reply::Time { is_ok: u64::try_from(to_ns) == Ok(ns), ns })
    }

    fn send_bytes(&mut self, at: Hpa, len_bytes: u64, encoding: Encoding) -> io::Result<()> {
        self.replies.extend_from_slice(match encoding {
            Encoding::Hex => b"OK 0x",
            Encoding::Base64 => b"OK ",
        });
        let mut done = 0;
        while done < len_bytes {
            let len = (len_bytes - done).min(PART_LEN_BYTES as u64);
            self.part.clear();
            self.part.resize(len as usize, 0xff);
            // Behind the end of the address space there is nothing.
            if let Some(here) = at.checked_add(done) {
                self.machine.platform().read(here, &mut self.part);
            }
            match encoding {
                Encoding::Hex => push_hex(&self.part, &mut self.replies),
                Encoding::Base64 => push_base64(&self.part, &mut self.replies),
            }
            done += len;
            if self.replies.len() >= REPLIES_LEN_BYTES {
                self.flush()?;
            }
        }
        self.replies.push(b'\n');
        Ok(())
    }
}

/// The first word, and what is behind the blank that ends it.
fn split_word(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == b' ') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn read_bytes<'w>(encoding: Encoding, mut words: Words<'w>) -> Done<'w> {
    let (at, len_bytes) = (words.address()?, words.len_bytes()?);
    match encoding {
        // There is no hex number of no digits.
        Encoding::Hex if len_bytes == 0 => Err(Refusal::Size),
        Encoding::Hex | Encoding::Base64 => Ok(Reply::Bytes { at, len_bytes, encoding }),
    }
}

/// The interrupt controller is there, and no line of it ever moves: devices signal by messages.
fn intercept<'w>(mut words: Words<'w>) -> Done<'w> {
    let device = words.word()?;
    let is_known = device == b"ioapic";
    Ok(Reply::Text(if is_known { "OK" } else { "FAIL Unknown device" }))
}

/// No device has a line that could be set.
fn set_irq<'w>(mut words: Words<'w>) -> Done<'w> {
    let _checked = (words.word()?, words.word()?, words.signed()?, words.signed()?);
    Ok(Reply::Text("FAIL Unknown device"))
}

/// The begin of a word from a client, fit to be printed.
fn quoted(word: &[u8]) -> std::slice::EscapeAscii<'_> {
    word[..word.len().min(QUOTE_LEN_BYTES)].escape_ascii()
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { usage } => write!(f, "a word is missing: {usage}"),
            Self::NoNumber { word } => {
                write!(f, "'{}' is no number of 64 bits: write 16, 0x10 or 020", quoted(word))
            }
            Self::NoPort { port } => write!(f, "{port:#x} is no port: 0 to 0xffff are"),
            Self::Size => f.write_str("invalid argument size"),
            Self::TooLarge { len_bytes } => {
                write!(f, "{len_bytes} bytes are too many for one command: {BULK_LEN_BYTES_MAX} at most")
            }
            Self::NoData { encoding } => write!(f, "the data is not {encoding}"),
        }
    }
}
