//! A driver outside: it knows the machine's layout, sends a qtest line, waits for its answer, and sends the next.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// Configuration space by memory, as the driver places it.
const ECAM: u64 = 0xb000_0000;
/// The registers of the CXL host bridge, and the first fixed window, of a machine with 1 GiB of RAM.
const HOST_REGISTERS: u64 = 0x1_0000_0000;
pub(crate) const WINDOW: u64 = 0x1_1000_0000;
/// Where the driver puts the card's registers.
const REGISTERS: u64 = 0xfe00_0000;
/// Bytes behind which a chain of 4802h or 4803h goes on in another message.
const UPDATE_HEADER_LEN_BYTES: usize = 8;
const UPDATED_EXTENT_LEN_BYTES: usize = 24;

/// The driver, with one card.
pub(crate) struct Guest {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
    reply: Vec<u8>,
    mailbox: u64,
    hdm: u64,
    payload_bytes: usize,
    /// Lines sent.
    pub(crate) lines: u64,
    /// The same as accesses of at most 8 bytes.
    pub(crate) accesses: u64,
    /// Commands sent.
    pub(crate) commands: u64,
}

/// How a payload is read.
#[derive(Clone, Copy)]
pub(crate) enum Payload {
    /// With one line.
    Bulk,
    /// Eight bytes with each line.
    Accesses,
}

impl Guest {
    /// Finds the card in the first port and programs it.
    pub(crate) fn over(stream: UnixStream) -> Self {
        let replies = BufReader::with_capacity(1 << 18, stream.try_clone().expect("a clone"));
        let (reply, mailbox, hdm, payload_bytes) = (Vec::new(), 0, 0, 0);
        let (lines, accesses, commands) = (0, 0, 0);
        let mut guest = Self { stream, replies, reply, mailbox, hdm, payload_bytes, lines, accesses, commands };
        guest.open_ecam();
        guest.bring_up();
        guest
    }

    /// Sends a line; what stands behind `OK`.
    fn ok(&mut self, line: &str) -> &[u8] {
        self.stream.write_all(line.as_bytes()).expect("written");
        self.lines += 1;
        self.reply.clear();
        self.replies.read_until(b'\n', &mut self.reply).expect("a reply");
        let Some(rest) = self.reply.strip_prefix(b"OK") else {
            panic!("{line}: {}", String::from_utf8_lossy(&self.reply));
        };
        rest.trim_ascii()
    }

    fn number(&mut self, line: &str) -> u64 {
        let reply = self.ok(line).strip_prefix(b"0x").expect("hex");
        u64::from_str_radix(std::str::from_utf8(reply).expect("text"), 16).expect("a number")
    }

    /// One access; the width is a letter of qtest.
    pub(crate) fn read(&mut self, at: u64, width: char) -> u64 {
        self.accesses += 1;
        self.number(&format!("read{width} {at:#x}\n"))
    }

    pub(crate) fn write(&mut self, at: u64, width: char, value: u64) {
        self.accesses += 1;
        self.ok(&format!("write{width} {at:#x} {value:#x}\n"));
    }

    fn bytes(&mut self, at: u64, len: usize) -> Vec<u8> {
        if len == 0 {
            return Vec::new();
        }
        self.accesses += len.div_ceil(8) as u64;
        let digits = self.ok(&format!("read {at:#x} {len:#x}\n")).strip_prefix(b"0x").expect("hex");
        let value = |digit: u8| if digit < b'a' { digit - b'0' } else { digit - b'a' + 10 };
        digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        use std::fmt::Write as _;
        self.accesses += bytes.len().div_ceil(8) as u64;
        let mut line = format!("write {at:#x} {:#x} 0x", bytes.len());
        for byte in bytes {
            write!(line, "{byte:02x}").expect("a string");
        }
        line.push('\n');
        self.ok(&line);
    }

    fn open_ecam(&mut self) {
        self.ok("outl 0xcf8 0x80000060\n");
        self.ok(&format!("outl 0xcfc {:#x}\n", ECAM | 1));
        assert_eq!(self.read(ECAM, 'l'), 0x29c0_8086);
    }

    fn bring_up(&mut self) {
        let port = ECAM + (0x0c << 20);
        self.write(port + 0x18, 'l', 0x0d_0d0c);
        self.write(port + 0x20, 'l', (REGISTERS + 0xf0_0000) & 0xfff0_0000 | REGISTERS >> 16);
        self.write(port + 0x04, 'w', 6);
        let function = ECAM + (0x0d << 20);
        let (mut bars, mut next) = ([0; 6], REGISTERS);
        for bar in [0, 2, 4] {
            let register = function + 0x10 + 4 * bar as u64;
            self.write(register, 'l', 0xffff_ffff);
            let len = u64::from(!(self.read(register, 'l') & !0xf) as u32) + 1;
            next = next.next_multiple_of(len);
            self.write(register, 'l', next);
            bars[bar] = next;
            next += len;
        }
        self.write(function + 0x04, 'w', 6);
        let (component, device) = self.register_blocks(function, bars);
        let headers: Vec<_> = (1..=3).map(|index| device + 0x10 * index).collect();
        let header = headers.into_iter().find(|at| self.read(*at, 'w') == 2).expect("a mailbox");
        self.mailbox = device + self.read(header + 4, 'l');
        self.payload_bytes = 1 << (self.read(self.mailbox, 'l') & 0x1f);
        self.hdm = self.hdm_capability(component);
    }

    /// Component and device registers, by the register locator.
    fn register_blocks(&mut self, function: u64, bars: [u64; 6]) -> (u64, u64) {
        let mut at = function + 0x100;
        while self.read(at + 8, 'w') != 8 || self.read(at, 'w') != 0x23 {
            at = function + (self.read(at, 'l') >> 20);
        }
        let count = ((self.read(at + 4, 'l') >> 20) - 0x0c) / 8;
        let slots: Vec<_> = (0..count).map(|slot| self.read(at + 0x0c + 8 * slot, 'l')).collect();
        let block = |id| {
            let slot = slots.iter().find(|slot| **slot >> 8 & 0xff == id).expect("a block");
            bars[*slot as usize & 7] + (slot & 0xffff_0000)
        };
        (block(1), block(3))
    }

    fn hdm_capability(&mut self, block: u64) -> u64 {
        let count = self.read(block + 0x1000, 'l') >> 24;
        let entries: Vec<_> = (1..=count).map(|index| self.read(block + 0x1000 + 4 * index, 'l')).collect();
        let entry = entries.into_iter().find(|entry| entry & 0xffff == 5).expect("decoders");
        block + 0x1000 + (entry >> 20)
    }

    /// Shows the first `size` bytes of the card at [`WINDOW`].
    pub(crate) fn open_window(&mut self, size: u64) {
        for decoder in [self.hdm_capability(HOST_REGISTERS) + 0x10, self.hdm + 0x10] {
            for (offset, value) in [(0, WINDOW), (8, size), (0x14, 0)] {
                self.write(decoder + offset, 'l', value & 0xffff_ffff);
                self.write(decoder + offset + 4, 'l', value >> 32);
            }
            self.write(decoder + 0x10, 'l', 0x1200);
            assert_eq!(self.read(decoder + 0x10, 'l') & 0xe00, 0x600, "committed");
        }
    }

    /// Sends a command that must succeed: how long its answer is. Never polls: the answer is there when the doorbell's
    /// write is answered.
    fn command(&mut self, opcode: u64, payload: &[u8]) -> usize {
        self.commands += 1;
        self.put(self.mailbox + 0x20, payload);
        self.write(self.mailbox + 8, 'q', opcode | (payload.len() as u64) << 16);
        self.write(self.mailbox + 4, 'l', 1);
        let status = self.read(self.mailbox + 0x10, 'q');
        assert_eq!(status >> 32 & 0xffff, 0, "{opcode:#x}");
        let len = self.read(self.mailbox + 8, 'q') >> 16 & 0x1f_ffff;
        len as usize
    }

    fn answer(&mut self, len: usize, payload: Payload) -> Vec<u8> {
        let at = self.mailbox + 0x20;
        match payload {
            Payload::Bulk => self.bytes(at, len),
            Payload::Accesses => {
                (0..len as u64).step_by(8).flat_map(|offset| self.read(at + offset, 'q').to_le_bytes()).collect()
            }
        }
    }

    /// Reads and clears the DC event log; how many records there were.
    pub(crate) fn drain_events(&mut self) -> usize {
        let mut drained = 0;
        loop {
            let len = self.command(0x0100, &[4]);
            let answer = self.answer(len, Payload::Bulk);
            let records: Vec<_> = answer[0x20..].chunks_exact(0x80).collect();
            drained += records.len();
            for cleared in records.chunks(255) {
                let handles = cleared.iter().flat_map(|record| [record[0x14], record[0x15]]);
                let payload: Vec<_> = [4, 0, cleared.len() as u8, 0, 0, 0].into_iter().chain(handles).collect();
                self.command(0x0101, &payload);
            }
            // More Event Records.
            if answer[0] & 2 == 0 {
                return drained;
            }
        }
    }

    /// 4802h or 4803h for blocks of `len` bytes, one behind the other, in as many messages as it takes.
    pub(crate) fn update(&mut self, opcode: u64, dpa: u64, len: u64, count: u64) {
        let fit = ((self.payload_bytes - UPDATE_HEADER_LEN_BYTES) / UPDATED_EXTENT_LEN_BYTES) as u64;
        let mut sent = 0;
        while sent < count {
            let here = fit.min(count - sent);
            let is_more = u8::from(sent + here < count);
            let mut payload = (here as u32).to_le_bytes().to_vec();
            payload.extend([is_more, 0, 0, 0]);
            for index in sent..sent + here {
                payload.extend_from_slice(&(dpa + index * len).to_le_bytes());
                payload.extend_from_slice(&len.to_le_bytes());
                payload.extend_from_slice(&[0; 8]);
            }
            self.command(opcode, &payload);
            sent += here;
        }
    }

    /// 4801h from the first extent to the last; how many there are.
    pub(crate) fn list(&mut self, how: Payload) -> u32 {
        let mut start = 0u32;
        loop {
            let payload = [u32::MAX.to_le_bytes(), start.to_le_bytes()].concat();
            let len = self.command(0x4801, &payload);
            let answer = self.answer(len, how);
            let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().expect("four bytes"));
            let (returned, total) = (word(0), word(4));
            start += returned;
            if start == total {
                return total;
            }
            assert!(returned > 0, "a list without an end");
        }
    }
}
