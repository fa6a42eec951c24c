//! A client of the qtest protocol, and a driver's bus over it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use driver::{Bdf, Bus, Width};
use wire::Hpa;

/// Configuration space by memory, where a driver places it on a machine with 1 GiB of RAM.
pub(crate) const ECAM: u64 = 0xb000_0000;

/// The other end of a qtest socket.
pub(crate) struct Qtest {
    pub(crate) stream: UnixStream,
    replies: BufReader<UnixStream>,
}

impl Qtest {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).expect("a connection"))
    }

    pub(crate) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let replies = BufReader::new(stream.try_clone().expect("a clone"));
        Self { stream, replies }
    }

    /// Sends a line; the line that comes back.
    pub(crate) fn line(&mut self, line: &str) -> String {
        self.stream.write_all(format!("{line}\n").as_bytes()).expect("written");
        let mut reply = String::new();
        self.replies.read_line(&mut reply).expect("a reply");
        reply.trim_end().to_owned()
    }

    /// What stands behind `OK`.
    pub(crate) fn ok(&mut self, line: &str) -> String {
        let reply = self.line(line);
        reply.strip_prefix("OK").unwrap_or_else(|| panic!("{line}: {reply}")).trim_start().to_owned()
    }

    pub(crate) fn number(&mut self, line: &str) -> u64 {
        let reply = self.ok(line);
        u64::from_str_radix(reply.strip_prefix("0x").expect("hex"), 16).expect("a number")
    }

    pub(crate) fn read(&mut self, at: u64, width: char) -> u64 {
        self.number(&format!("read{width} {at:#x}"))
    }

    pub(crate) fn write(&mut self, at: u64, width: char, value: u64) {
        assert_eq!(self.ok(&format!("write{width} {at:#x} {value:#x}")), "");
    }

    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> Vec<u8> {
        if len == 0 {
            return Vec::new();
        }
        let reply = self.ok(&format!("read {at:#x} {len:#x}"));
        let digits = reply.strip_prefix("0x").expect("hex");
        (0..len).map(|byte| u8::from_str_radix(&digits[2 * byte..2 * byte + 2], 16).expect("a byte")).collect()
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.ok(&format!("write {at:#x} {:#x} 0x{digits}", bytes.len())), "");
    }
}

/// Turns configuration space by memory on, through the ports.
pub(crate) fn open_ecam(qtest: &mut Qtest) {
    let config_read = |qtest: &mut Qtest, offset: u64| {
        qtest.ok(&format!("outl 0xcf8 {:#x}", 0x8000_0000 | offset));
        qtest.number("inl 0xcfc")
    };
    assert_eq!(config_read(qtest, 0), 0x29c0_8086);
    assert_eq!(config_read(qtest, 0x60), 0xb000_0000);
    assert_eq!(qtest.read(ECAM, 'l'), 0xffff_ffff, "nothing there yet");
    assert_eq!(config_read(qtest, 0x64), 0);
    qtest.ok("outl 0xcf8 0x80000060");
    qtest.ok(&format!("outl 0xcfc {:#x}", ECAM | 1));
    assert_eq!(qtest.read(ECAM, 'l'), 0x29c0_8086);
}

/// The hardware behind a qtest socket.
pub(crate) struct QtestBus {
    qtest: Qtest,
    origin: Instant,
}

impl QtestBus {
    /// Turns configuration space by memory on.
    pub(crate) fn over(stream: UnixStream) -> Self {
        let mut qtest = Qtest::over(stream);
        open_ecam(&mut qtest);
        Self { qtest, origin: Instant::now() }
    }
}

fn config_hpa(at: Bdf, offset: u16) -> u64 {
    ECAM + (u64::from(at.bus) << 20 | u64::from(at.device) << 15 | u64::from(at.function) << 12 | u64::from(offset))
}

fn width_letter(len_bytes: usize) -> Option<char> {
    [(1, 'b'), (2, 'w'), (4, 'l'), (8, 'q')].into_iter().find(|(len, _)| *len == len_bytes).map(|(_, letter)| letter)
}

impl Bus for QtestBus {
    fn config_read(&mut self, at: Bdf, offset: u16, width: Width) -> u32 {
        let letter = width_letter(width.bytes().into()).expect("a width");
        self.qtest.read(config_hpa(at, offset), letter) as u32
    }

    fn config_write(&mut self, at: Bdf, offset: u16, width: Width, value: u32) {
        let letter = width_letter(width.bytes().into()).expect("a width");
        self.qtest.write(config_hpa(at, offset), letter, value.into());
    }

    fn read(&mut self, hpa: Hpa, into: &mut [u8]) {
        let bytes = match width_letter(into.len()) {
            Some(letter) => self.qtest.read(hpa.0, letter).to_le_bytes()[..into.len()].to_vec(),
            None => self.qtest.bytes(hpa.0, into.len()),
        };
        into.copy_from_slice(&bytes);
    }

    fn write(&mut self, hpa: Hpa, from: &[u8]) {
        match width_letter(from.len()) {
            Some(letter) => {
                let mut value = [0; 8];
                value[..from.len()].copy_from_slice(from);
                self.qtest.write(hpa.0, letter, u64::from_le_bytes(value));
            }
            None if from.is_empty() => {}
            None => self.qtest.put(hpa.0, from),
        }
    }

    fn relax(&mut self) {
        std::thread::sleep(Duration::from_millis(1));
    }

    fn now_ms(&mut self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }
}
