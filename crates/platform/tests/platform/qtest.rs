//! The qtest protocol, from bytes to bytes.

use std::io::{self, Read, Write};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use platform::qtest::{BULK_LEN_BYTES_MAX, Machine, serve};
use platform::{Platform, ROOT_PORT_BUS};
use proptest::prelude::*;
use wire::{Opcode, ReturnCode};

use crate::bus::{GIB, enumerate, platform};
use crate::rig::{Rig, Told};

/// A machine whose clock stands at what it was moved to.
struct Stopped<'a> {
    platform: &'a Platform,
    clock_ns: AtomicU64,
}

impl Machine for Stopped<'_> {
    fn platform(&self) -> Box<dyn Deref<Target = Platform> + '_> {
        Box::new(self.platform)
    }

    fn step_clock(&self, by_ns: u64) -> u64 {
        self.clock_ns.fetch_add(by_ns, Ordering::Relaxed) + by_ns
    }

    fn advance_clock(&self, to_ns: u64) -> u64 {
        self.clock_ns.fetch_max(to_ns, Ordering::Relaxed).max(to_ns)
    }
}

/// A client that sends all its bytes, in pieces, and keeps the replies.
struct Client<'a> {
    sent: &'a [u8],
    piece: usize,
    replies: Vec<u8>,
}

impl Read for Client<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let len = self.piece.min(to.len()).min(self.sent.len());
        to[..len].copy_from_slice(&self.sent[..len]);
        self.sent = &self.sent[len..];
        Ok(len)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.replies.extend_from_slice(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client<'_> {
    /// The replies to what is sent in pieces of a length.
    fn replies(platform: &Platform, sent: &[u8], piece: usize) -> Vec<u8> {
        let mut client = Client { sent, piece, replies: Vec::new() };
        serve(&Stopped { platform, clock_ns: AtomicU64::new(0) }, &mut client).unwrap();
        client.replies
    }
}

/// The replies to lines.
fn talk(platform: &Platform, lines: &str) -> String {
    String::from_utf8(Client::replies(platform, lines.as_bytes(), usize::MAX)).unwrap()
}

#[test]
fn replies_have_the_forms_of_qemu() {
    let platform = platform(GIB, &[]);
    for (line, reply) in [
        ("writeb 0x1000 0x1ff", "OK"),
        ("writew 0x1001 0x0302", "OK"),
        ("writel 4100 -1", "OK"),
        ("writeq 010 0x8877665544332211", "OK"),
        ("readb 0x1000", "OK 0x00000000000000ff"),
        ("readw 0x1001", "OK 0x0000000000000302"),
        ("readl 0x1004", "OK 0x00000000ffffffff"),
        ("readq 8", "OK 0x8877665544332211"),
        ("read 8 3", "OK 0x112233"),
        ("read 8 1 and more words", "OK 0x11"),
        ("write 0x2000 4 0xDEad", "OK"),
        ("read 0x2000 5", "OK 0xdead000000"),
        ("write 0x2000 1 0x0102", "OK"),
        ("read 0x2000 2", "OK 0x01ad"),
        ("b64write 0x2000 3 Zm9v", "OK"),
        ("read 0x2000 3", "OK 0x666f6f"),
        ("b64write 0x2000 1 YmFy", "OK"),
        ("b64read 0x2000 4", "OK Ym9vAA=="),
        ("b64read 0x2000 0", "OK "),
        ("memset 0x2000 2 0x1a5", "OK"),
        ("memset 0x2000 0 0", "OK"),
        ("read 0x2000 4", "OK 0xa5a56f00"),
        ("readl 0xffffffffffffffff", "OK 0x00000000ffffffff"),
        ("inb 0x80", "OK 0x00ff"),
        ("inw 0x80", "OK 0xffff"),
        ("inl 0x80", "OK 0xffffffff"),
        ("outl 0xcf8 0x80000000", "OK"),
        ("inl 0xcf8", "OK 0x80000000"),
        ("inw 0xcfc", "OK 0x8086"),
        ("inb 0xcfd", "OK 0x0080"),
        ("inl 0xcfc", "OK 0x29c08086"),
        ("outb 0x80 1", "OK"),
        ("endianness", "OK little"),
        ("irq_intercept_in ioapic", "OK"),
        ("irq_intercept_out /machine/x", "FAIL Unknown device"),
        ("set_irq_in /machine/x unnamed-gpio-in 0 1", "FAIL Unknown device"),
        ("module_load a b", "FAIL Unknown command 'module_load'"),
        ("", "FAIL Unknown command ''"),
        ("READL 0", "FAIL Unknown command 'READL'"),
        ("write 0 1 0x", "ERR invalid argument size"),
        ("b64write 0 1 Zg", "ERR invalid argument size"),
        ("read 0 0", "ERR invalid argument size"),
    ] {
        assert_eq!(talk(&platform, &format!("{line}\n")), format!("{reply}\n"), "{line}");
    }
}

#[test]
fn the_clock_moves_forward_only() {
    let platform = platform(GIB, &[]);
    let lines = "clock_step 100\nclock_set 250\nclock_set 200\nclock_step 0\nclock_step -5\nclock_set -1\nclock_step\n";
    let replies = "OK 100\nOK 250\nFAIL 250\nFAIL could not advance time\nFAIL could not advance time\nFAIL 250\n\
                   FAIL cannot advance clock to the next deadline because there is no pending deadline\n";
    assert_eq!(talk(&platform, lines), replies);
}

#[test]
fn what_is_malformed_is_answered_and_does_nothing() {
    let platform = platform(GIB, &[]);
    let too_many = BULK_LEN_BYTES_MAX + 1;
    for (line, reply) in [
        ("readl", "ERR a word is missing: readl ADDR".to_owned()),
        ("writeq 0", "ERR a word is missing: writeq ADDR VALUE".to_owned()),
        ("readl ", "ERR '' is no number of 64 bits: write 16, 0x10 or 020".to_owned()),
        (
            "readl 0x10000000000000000",
            "ERR '0x10000000000000000' is no number of 64 bits: write 16, 0x10 or 020".into(),
        ),
        ("inb 0x10000", "ERR 0x10000 is no port: 0 to 0xffff are".to_owned()),
        (&format!("read 0 {too_many}"), format!("ERR {too_many} bytes are too many for one command: 67108864 at most")),
        (
            &format!("memset 0 {} 0", u64::MAX),
            format!("ERR {} bytes are too many for one command: 67108864 at most", u64::MAX),
        ),
        ("write 0 2 0x12g4", "ERR the data is not hex digits behind 0x".to_owned()),
        ("write 0 2 1234", "ERR the data is not hex digits behind 0x".to_owned()),
        ("b64write 0 2 Z-9v", "ERR the data is not base64".to_owned()),
        ("set_irq_in a b c d", "ERR 'c' is no number of 64 bits: write 16, 0x10 or 020".to_owned()),
        ("\u{1}\u{7f}x", "FAIL Unknown command '\\x01\\x7fx'".to_owned()),
    ] {
        assert_eq!(talk(&platform, &format!("{line}\n")), format!("{reply}\n"), "{line}");
    }
    assert_eq!(platform.ram().read_u64(0), Ok(0));
    assert_eq!(talk(&platform, "readl 0"), "", "a line without its end is none");
}

#[test]
fn bulk_accesses_of_the_largest_size_work() {
    let platform = platform(GIB, &[]);
    let last = BULK_LEN_BYTES_MAX - 1;
    let lines = format!("memset 1 {BULK_LEN_BYTES_MAX} 7\nreadw {last}\nreadw {BULK_LEN_BYTES_MAX}\n");
    assert_eq!(talk(&platform, &lines), "OK\nOK 0x0000000000000707\nOK 0x0000000000000007\n");
    let replies = Client::replies(&platform, format!("b64read 1 {BULK_LEN_BYTES_MAX}\n").as_bytes(), usize::MAX);
    assert_eq!(replies.len(), 3 + BULK_LEN_BYTES_MAX.div_ceil(3) as usize * 4 + 1);
    let data = String::from_utf8(replies[3..replies.len() - 1].to_vec()).unwrap();
    let sent =
        format!("b64write 0x10000000 {BULK_LEN_BYTES_MAX} {data}\nreadq {}\n", 0x1000_0000 + BULK_LEN_BYTES_MAX - 8);
    let replies = Client::replies(&platform, sent.as_bytes(), 100_000);
    assert_eq!(String::from_utf8(replies).unwrap(), "OK\nOK 0x0707070707070707\n");
}

#[test]
fn a_write_is_answered_when_what_it_started_is_over() {
    let rigs = [Rig::new()];
    let platform = platform(GIB, &rigs);
    let mailbox = enumerate(&platform, 0).0 + 0x1_0fe0;
    rigs[0].told();
    let delay = Duration::from_millis(30);
    let lines = format!(
        "writeq {:#x} 0x44000\nb64write {:#x} 4 AQIDBA==\nwritel {:#x} 1\nreadl {:#x}\nreadq {:#x}\nread {:#x} 0x2\n",
        mailbox + 8,
        mailbox + 0x20,
        mailbox + 4,
        mailbox + 4,
        mailbox + 0x10,
        mailbox + 0x20,
    );
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let client = scope.spawn(|| talk(&platform, &lines));
        let image = loop {
            if let Some(Told::Doorbell(image)) = rigs[0].told().pop() {
                break image;
            }
            std::thread::yield_now();
        };
        assert_eq!((image.opcode, &image.payload[..]), (Opcode(0x4000), &[1, 2, 3, 4][..]));
        std::thread::sleep(delay);
        rigs[0].face.complete(Opcode(0x4000), ReturnCode::Unsupported, &[9, 8]);
        let replies = client.join().unwrap();
        assert!(begun.elapsed() >= delay);
        assert_eq!(replies, "OK\nOK\nOK\nOK 0x0000000000000000\nOK 0x0000000300000000\nOK 0x0908\n");
    });
}

/// Lines that are nearly right, and bytes that are not.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "readb",
        "readw",
        "readl",
        "readq",
        "writeb",
        "writew",
        "writel",
        "writeq",
        "inb",
        "inw",
        "inl",
        "outb",
        "outw",
        "outl",
        "read",
        "b64read",
        "write",
        "b64write",
        "memset",
        "clock_step",
        "clock_set",
        "endianness",
        "irq_intercept_in",
        "set_irq_in",
        "nonsense",
        "",
    ]);
    let word = prop_oneof![
        (0u64..0x2000).prop_map(|n| format!("{n:#x}")),
        prop::sample::select(vec![
            0xb000_0000u64,
            0xc001_0fe0,
            0xc000_1120,
            0x1_0000_1120,
            0x1_1000_0000,
            0x4000_0000,
            u64::MAX,
            0xcf8
        ])
        .prop_flat_map(|base| (0u64..0x40).prop_map(move |into| base.wrapping_add(into).to_string())),
        any::<u64>().prop_map(|n| n.to_string()),
        "[0-9a-fA-Fx+/=-]{0,12}",
        "0x[0-9a-f]{0,40}",
    ];
    let words = (name, prop::collection::vec(word, 0..5))
        .prop_map(|(name, words)| [vec![name.to_owned()], words].concat().join(" ").into_bytes());
    let noise = prop::collection::vec(any::<u8>().prop_filter("one line", |byte| *byte != b'\n'), 0..60);
    prop_oneof![4 => words, 1 => noise]
}

proptest! {
    #[test]
    fn every_line_has_one_answer(lines in prop::collection::vec(line(), 0..30), piece in 1usize..200) {
        let rigs = [Rig::new()];
        let platform = platform(1 << 20, &rigs);
        enumerate(&platform, 0);
        platform.config_write(0, 0, 0, 0x60, 4, 0xb000_0001);
        let sent: Vec<u8> = lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
        let done = std::sync::atomic::AtomicBool::new(false);
        let replies = std::thread::scope(|scope| {
            // The actors: whatever is asked of the device is answered.
            scope.spawn(|| while !done.load(Ordering::Acquire) {
                for told in rigs[0].told() {
                    match told {
                        Told::Doorbell(image) => rigs[0].face.complete(image.opcode, ReturnCode::Unsupported, &[]),
                        Told::Write(platform::CommandedWrite::DecoderCommit { decoder, .. }) => {
                            rigs[0].face.set_decoder(decoder, platform::DecoderStatus::Error);
                        }
                        Told::Write(platform::CommandedWrite::DecoderUncommit { decoder, .. }) => {
                            rigs[0].face.set_decoder(decoder, platform::DecoderStatus::Uncommitted);
                        }
                        Told::Write(_) => {}
                    }
                }
                std::thread::yield_now();
            });
            let replies = Client::replies(&platform, &sent, piece);
            done.store(true, Ordering::Release);
            replies
        });
        let replies = String::from_utf8(replies).expect("text");
        prop_assert_eq!(replies.lines().count(), lines.len());
        let is_answer = |reply: &str| ["OK", "FAIL ", "ERR "].iter().any(|form| reply.starts_with(form));
        prop_assert!(replies.lines().all(is_answer), "{}", replies);
        prop_assert_eq!(platform.config_read(0, 0, 0, 0, 4), 0x29c0_8086);
        prop_assert_eq!(platform.config_read(ROOT_PORT_BUS, 0, 0, 0, 4), 0x7075_8086);
    }
}
