//! A driver of its own, for a machine whose layout it knows, over the qtest socket of a running `dcd`.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::json;

use crate::program::{Client, GIB, MIB, Program, TAG0, TAG1};
use crate::qtest_client::{ECAM, Qtest, open_ecam};

/// The registers of the CXL host bridge, and the first fixed window, of a machine with 1 GiB of RAM.
const HOST_REGISTERS: u64 = 0x1_0000_0000;
const WINDOW: u64 = 0x1_1000_0000;
/// Where the driver puts registers: 16 MiB for each root port.
const REGISTERS: u64 = 0xfe00_0000;
/// Where in RAM messages land.
const MESSAGES: u64 = 0x10_0000;

/// One device, found and programmed.
pub(crate) struct Card {
    status: u64,
    mailbox: u64,
    hdm: u64,
    msix: u64,
}

/// Finds the capability `id` behind a CXL.cachemem header.
fn component_capability(qtest: &mut Qtest, block: u64, id: u64) -> u64 {
    let count = qtest.read(block + 0x1000, 'l') >> 24;
    let entries = (1..=count).map(|index| qtest.read(block + 0x1000 + 4 * index, 'l'));
    let entry = entries.collect::<Vec<_>>().into_iter().find(|entry| entry & 0xffff == id);
    block + 0x1000 + (entry.expect("a capability") >> 20)
}

/// Numbers the bus behind a root port, opens its window and programs what is there.
pub(crate) fn bring_up(qtest: &mut Qtest, port: u64) -> Card {
    let (at_port, bus, base) = (ECAM + (0x0c << 20) + (port << 15), 0x0d + port, REGISTERS + (port << 24));
    assert_eq!(qtest.read(at_port + 8, 'l') >> 8, 0x06_0400);
    assert_eq!(qtest.read(at_port + 0x5a, 'w') & 0x40, 0x40, "there is something in the slot");
    qtest.write(at_port + 0x18, 'l', 0x0c | bus << 8 | bus << 16);
    qtest.write(at_port + 0x20, 'l', (base + 0xf0_0000) & 0xfff0_0000 | base >> 16);
    qtest.write(at_port + 0x04, 'w', 6);
    let function = ECAM + (bus << 20);
    assert_eq!(qtest.read(function, 'l'), 0x0d93_8086);
    assert_eq!(qtest.read(function + 8, 'l') >> 8, 0x05_0210);
    let mut bars = [0; 6];
    let mut next = base;
    for bar in [0, 2, 4] {
        let register = function + 0x10 + 4 * bar as u64;
        qtest.write(register, 'l', 0xffff_ffff);
        let len = !(qtest.read(register, 'l') & !0xf) as u32 as u64 + 1;
        next = next.next_multiple_of(len);
        qtest.write(register, 'l', next);
        qtest.write(register + 4, 'l', 0);
        bars[bar] = next;
        next += len;
    }
    qtest.write(function + 0x04, 'w', 6);
    let (component, device) = register_blocks(qtest, function, &bars);
    let capability = |qtest: &mut Qtest, id: u64| {
        let header = (1..=3).map(|index| device + 0x10 * index).find(|at| qtest.read(*at, 'w') == id);
        device + qtest.read(header.expect("a capability") + 4, 'l')
    };
    let (status, mailbox, memory) = (capability(qtest, 1), capability(qtest, 2), capability(qtest, 0x4000));
    assert_eq!(qtest.read(memory, 'q') & 0x1f, 0x14);
    let hdm = component_capability(qtest, component, 5);
    Card { status, mailbox, hdm, msix: bars[4] }
}

/// Component and device registers, by the register locator.
fn register_blocks(qtest: &mut Qtest, function: u64, bars: &[u64; 6]) -> (u64, u64) {
    let mut at = function + 0x100;
    while qtest.read(at + 8, 'w') != 8 || qtest.read(at, 'w') != 0x23 {
        let next = qtest.read(at, 'l') >> 20;
        assert_ne!(next, 0, "no register locator");
        at = function + next;
    }
    let slots = ((qtest.read(at + 4, 'l') >> 20) - 0x0c) / 8;
    let block = |qtest: &mut Qtest, id: u64| {
        let slots: Vec<_> = (0..slots).map(|slot| qtest.read(at + 0x0c + 8 * slot, 'l')).collect();
        let slot = slots.into_iter().find(|slot| slot >> 8 & 0xff == id).expect("a block");
        bars[slot as usize & 7] + (slot & 0xffff_0000)
    };
    (block(qtest, 1), block(qtest, 3))
}

impl Card {
    /// Sends a command: the return code and the payload. Never polls: the answer is there when the doorbell's write is
    /// answered.
    pub(crate) fn command(&self, qtest: &mut Qtest, opcode: u64, payload: &[u8]) -> (u64, Vec<u8>) {
        if !payload.is_empty() {
            qtest.put(self.mailbox + 0x20, payload);
        }
        qtest.write(self.mailbox + 8, 'q', opcode | (payload.len() as u64) << 16);
        qtest.write(self.mailbox + 4, 'l', 1);
        assert_eq!(qtest.read(self.mailbox + 4, 'l') & 1, 0, "the doorbell is clear");
        let len = qtest.read(self.mailbox + 8, 'q') >> 16 & 0x1f_ffff;
        let code = qtest.read(self.mailbox + 0x10, 'q') >> 32 & 0xffff;
        (code, qtest.bytes(self.mailbox + 0x20, len as usize))
    }

    /// The payload of a command that must succeed.
    fn succeed(&self, qtest: &mut Qtest, opcode: u64, payload: &[u8]) -> Vec<u8> {
        let (code, answer) = self.command(qtest, opcode, payload);
        assert_eq!(code, 0, "{opcode:#x}");
        answer
    }

    /// Reads the one record of the DC log and clears it: type, tag, DPA and length.
    fn event(&self, qtest: &mut Qtest) -> (u8, Vec<u8>, u64, u64) {
        assert_eq!(qtest.read(self.status, 'q'), 0x10);
        let answer = self.succeed(qtest, 0x0100, &[4]);
        assert_eq!((answer.len(), u64_at(&answer, 0x14) & 0xffff), (0xa0, 1));
        let record = &answer[0x20..];
        self.succeed(qtest, 0x0101, &[4, 0, 1, 0, 0, 0, record[0x14], record[0x15]]);
        assert_eq!(qtest.read(self.status, 'q'), 0);
        (record[0x30], record[0x48..0x58].to_vec(), u64_at(record, 0x38), u64_at(record, 0x40))
    }

    /// 4802h or 4803h for one range.
    fn update(&self, qtest: &mut Qtest, opcode: u64, dpa: u64, len: u64) {
        let payload = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &dpa.to_le_bytes(), &len.to_le_bytes(), &[0; 8]].concat();
        self.succeed(qtest, opcode, &payload);
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Programs a decoder and commits it; never polls.
fn commit(qtest: &mut Qtest, decoder: u64, size: u64, last: u64, control: u64) {
    qtest.write(decoder + 0x10, 'l', 0);
    for (offset, value) in [(0, WINDOW), (8, size), (0x14, last)] {
        qtest.write(decoder + offset, 'l', value & 0xffff_ffff);
        qtest.write(decoder + offset + 4, 'l', value >> 32);
    }
    qtest.write(decoder + 0x10, 'l', control | 0x200);
    assert_eq!(qtest.read(decoder + 0x10, 'l') & 0xe00, 0x600, "committed");
}

fn host_decoder(qtest: &mut Qtest) -> u64 {
    component_capability(qtest, HOST_REGISTERS, 5) + 0x10
}

fn tag_bytes(tag: &str) -> Vec<u8> {
    let digits = tag.replace('-', "");
    (0..16).map(|byte| u8::from_str_radix(&digits[2 * byte..2 * byte + 2], 16).expect("hex")).collect()
}

/// A program with a qtest socket, and both its clients.
pub(crate) fn start(dir: &Path, arguments: &[&str]) -> (Program, Qtest, Client) {
    let socket = dir.join("qtest.sock");
    let address = format!("unix:{}", socket.display());
    let program = Program::start(dir, &[&["--qtest", &address], arguments].concat());
    assert!(program.announced.contains(&format!("qtest: {address}\nready\n")), "{}", program.announced);
    let (qtest, client) = (Qtest::connect(&socket), program.client());
    (program, qtest, client)
}

#[test]
fn a_fixed_layout_driver_drives_a_whole_life() {
    let dir = tempfile::tempdir().expect("a directory");
    let (program, mut qtest, mut client) = start(dir.path(), &[]);
    open_ecam(&mut qtest);
    let card = bring_up(&mut qtest, 0);
    assert_eq!(card.succeed(&mut qtest, 0x4000, &[]).len(), 0x45);
    assert_eq!(card.command(&mut qtest, 0x0001, &[]).0, 3, "unsupported");
    let configuration = card.succeed(&mut qtest, 0x4800, &[8, 0]);
    assert_eq!((configuration[0], u64_at(&configuration, 0x18)), (1, 4 * GIB));
    let decoder = host_decoder(&mut qtest);
    commit(&mut qtest, decoder, 4 * GIB, 0, 0x1000);
    commit(&mut qtest, card.hdm + 0x10, 4 * GIB, 0, 0x1000);
    // Messages of the DC log go to RAM.
    card.succeed(&mut qtest, 0x0103, &[0, 0, 0, 0, 1]);
    let vector = u64::from(card.succeed(&mut qtest, 0x0102, &[])[4] >> 4);
    qtest.write(card.msix + 16 * vector, 'q', MESSAGES);
    qtest.write(card.msix + 16 * vector + 8, 'q', 0x77);
    qtest.write(ECAM + (0x0d << 20) + 0xc2, 'w', 0x8000);

    let extent = 256 * MIB;
    client.object_add("tm0", TAG0, extent).expect("a backend");
    assert_eq!(qtest.read(WINDOW, 'q'), u64::MAX);
    client.add(TAG0, &[(512 * MIB, extent)]).expect("an offer");
    // The message follows the offer on a way of its own.
    while qtest.read(MESSAGES, 'l') != 0x77 {
        std::thread::yield_now();
    }
    let at = 512 * MIB;
    assert_eq!(card.event(&mut qtest), (0, tag_bytes(TAG0), at, extent));
    card.update(&mut qtest, 0x4802, at, extent);
    client.wait_for("ACCEPTED", TAG0);
    assert_eq!(qtest.ok(&format!("b64write {:#x} 9 cWVtdSB0ZXN0", WINDOW + at + 1)), "");
    assert_eq!(qtest.read(WINDOW + at, 'q'), u64::from_le_bytes(*b"\0qemu te"));
    assert_eq!(qtest.ok(&format!("b64read {:#x} 9", WINDOW + at + 1)), "cWVtdSB0ZXN0");
    qtest.write(WINDOW + at + extent - 8, 'q', 0x1122_3344_5566_7788);
    assert_eq!(qtest.bytes(WINDOW + at + extent - 1, 2), [0x11, 0xff]);
    let list = card.succeed(&mut qtest, 0x4801, &[10, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((list[0], u64_at(&list, 0x10), u64_at(&list, 0x18)), (1, at, extent));

    client.release(TAG0).expect("a request");
    assert_eq!(card.event(&mut qtest), (1, tag_bytes(TAG0), at, extent));
    card.update(&mut qtest, 0x4803, at, extent);
    client.wait_for("RELEASED", TAG0);
    assert_eq!(qtest.read(WINDOW + at, 'q'), u64::MAX);
    assert_eq!(client.state(TAG0), "released");
    client.execute("system_reset", json!({})).expect("a reset");
    assert_eq!(qtest.read(ECAM, 'l'), 0xffff_ffff, "the bridges are as at power-on");
    program.terminate();
    assert!(!dir.path().join("qtest.sock").exists());
}

#[test]
fn the_host_bridge_interleaves_two_devices() {
    let dir = tempfile::tempdir().expect("a directory");
    let devices: Vec<_> = ["a", "b"].map(|id| format!("cxl-type3,id={id},dc-regions-total-size=1G")).into();
    let (program, mut qtest, mut client) = start(dir.path(), &["--device", &devices[0], "--device", &devices[1]]);
    open_ecam(&mut qtest);
    let cards = [bring_up(&mut qtest, 0), bring_up(&mut qtest, 1)];
    let decoder = host_decoder(&mut qtest);
    for ((card, id), tag) in cards.iter().zip(["a", "b"]).zip([TAG0, TAG1]) {
        commit(&mut qtest, card.hdm + 0x10, 2 * GIB, 0, 0x1010);
        client.object_add(&format!("tm-{id}"), tag, GIB).expect("a backend");
        let extents = json!([{"offset": 0, "len": GIB}]);
        let add = json!({"path": id, "host-id": 0, "selection-policy": "prescriptive", "region": 0, "tag": tag,
                         "extents": extents});
        client.execute("cxl-add-dynamic-capacity", add).expect("an offer");
        assert_eq!(card.event(&mut qtest).2, 0);
        card.update(&mut qtest, 0x4802, 0, GIB);
    }
    commit(&mut qtest, decoder, 2 * GIB, 0x0100, 0x1010);
    let pattern: Vec<u8> = (0..1024u32).map(|at| (at / 256) as u8 + 1).collect();
    qtest.put(WINDOW, &pattern);
    assert_eq!(qtest.bytes(WINDOW, 1024), pattern);
    qtest.write(WINDOW + 2 * GIB - 8, 'q', 9);
    // The other way round, each device shows what it holds at the other's turn.
    commit(&mut qtest, decoder, 2 * GIB, 0x0001, 0x1010);
    let firsts: Vec<u8> = (0..4).map(|granule| qtest.bytes(WINDOW + 256 * granule, 1)[0]).collect();
    assert_eq!(firsts, [2, 1, 4, 3]);
    assert_eq!(qtest.read(WINDOW + 2 * GIB - 256 - 8, 'q'), 9);
    program.terminate();
}

#[test]
fn a_paused_machine_answers_and_its_clock_moves_by_hand() {
    let dir = tempfile::tempdir().expect("a directory");
    let (program, mut qtest, mut client) = start(dir.path(), &[]);
    open_ecam(&mut qtest);
    let card = bring_up(&mut qtest, 0);
    client.execute("stop", json!({})).expect("stopped");
    assert_eq!(card.succeed(&mut qtest, 0x4000, &[]).len(), 0x45);
    qtest.write(0, 'q', 7);
    assert_eq!(qtest.read(0, 'q'), 7);
    let before: u64 = qtest.ok("clock_step 1000").parse().expect("a time");
    assert_eq!(qtest.ok("clock_step 5"), (before + 5).to_string());
    client.execute("cont", json!({})).expect("running");
    assert_eq!(client.execute("query-status", json!({})).expect("a status")["running"], true);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(qtest.ok(&format!("clock_set {}", before + 1_000_000)), (before + 1_000_000).to_string());
    assert_eq!(qtest.line("clock_set 1"), format!("FAIL {}", before + 1_000_000));
    program.terminate();
}

#[test]
fn a_client_that_sends_nonsense_or_leaves_does_no_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let (program, mut qtest, _) = start(dir.path(), &[]);
    for (line, reply) in [
        ("", "FAIL Unknown command ''"),
        ("rtas get-time-of-day 0 0 0 0", "FAIL Unknown command 'rtas'"),
        ("readl 0x", "ERR '0x' is no number of 64 bits: write 16, 0x10 or 020"),
        (
            "write 0 0xffffffffffffffff 0x00",
            "ERR 18446744073709551615 bytes are too many for one command: 67108864 at most",
        ),
        ("endianness", "OK little"),
    ] {
        assert_eq!(qtest.line(line), reply);
    }
    qtest.stream.write_all(b"writeq 8 5\nreadq 8\nwriteq 8 6").expect("written");
    drop(qtest);
    let mut next = Qtest::connect(&dir.path().join("qtest.sock"));
    assert_eq!(next.read(8, 'q'), 5, "a line without its end was none");
    next.stream.write_all(&[0xff; 100_000]).expect("written");
    assert!(next.line("").starts_with("FAIL Unknown command '\\xff"), "not text, but a line");
    program.terminate();
}

#[test]
fn it_connects_to_a_driver_that_listens() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("driver.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let program = Program::start(dir.path(), &["--qtest", &format!("unix:{}", socket.display())]);
    let (stream, _) = listener.accept().expect("a connection");
    let mut qtest = Qtest::over(stream);
    open_ecam(&mut qtest);
    bring_up(&mut qtest, 0);
    program.terminate();
    assert!(socket.exists(), "it is not its own");
}
