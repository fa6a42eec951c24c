//! A plain device with many extents that the host holds, each of one block.

use tempfile::TempDir;

use crate::asked::scratch;
use crate::guest::Guest;
use crate::program::{Operator, Program, add_request};

pub(crate) const BLOCK_BYTES: u64 = 2 << 20;
pub(crate) const NO_TAG: &str = "00000000-0000-0000-0000-000000000000";
/// Extents of one add: the event log holds as many records.
const ADD_MAX: u64 = 4_096;

pub(crate) struct Crowd {
    pub(crate) operator: Operator,
    pub(crate) guest: Guest,
    /// Extents that the host holds, from the first block on.
    pub(crate) count: u64,
    /// Held so that they live as long as their clients.
    _program: Program,
    _dir: TempDir,
}

impl Crowd {
    /// 131,072 blocks, none offered. What is measured is work and not the disk: nobody waits for the journal.
    pub(crate) fn start(mailbox_payload: &str) -> Self {
        let dir = scratch();
        let journal = dir.path().join("journal").display().to_string();
        let device = format!("cxl-type3,id=cxl-vmem0,volatile-dc-memdev=m0,mailbox-payload={mailbox_payload}");
        let object = "memory-backend-ram,id=m0,size=256G,reserve=off";
        let options = ["--journal", &journal, "--durability", "none", "--object", object, "--device", &device];
        let program = Program::start(dir.path(), &options);
        let (operator, guest) = (program.operator(), Guest::over(program.connect("qtest.sock")));
        Self { operator, guest, count: 0, _program: program, _dir: dir }
    }

    /// Lets the host accept blocks until it holds `count`.
    pub(crate) fn grow_to(&mut self, count: u64) {
        while self.count < count {
            let added = ADD_MAX.min(count - self.count);
            let offset = self.count * BLOCK_BYTES;
            self.operator.request(&add_request(NO_TAG, offset, BLOCK_BYTES, added));
            assert_eq!(self.guest.drain_events() as u64, added);
            self.guest.update(0x4802, offset, BLOCK_BYTES, added);
            self.count += added;
        }
    }
}
