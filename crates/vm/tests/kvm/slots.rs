//! Memory that comes and goes under a guest that looks at it.

use memory::{Hypervisor, SlotAccess};
use vm::{AccessWidth, Job, JobAnswer};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{Access, LIMIT, MIB, Rig, SLOT, Shown, WINDOW, show};

#[test]
fn a_watch_sees_memory_while_it_is_there_and_ones_when_it_is_gone() {
    needs_kvm!();
    let rig = Rig::running(1);
    let shown = Shown::new(4 * MIB);
    shown.memory.write_u64(0, 0x5eed).expect("memory");
    let region = shown.region(WINDOW, 0, 4 * MIB, SlotAccess::ReadWrite);
    for _ in 0..50 {
        show(&rig.vm, SLOT, region);
        let watch = Job::Watch { hpa: WINDOW, until: u64::MAX, allowed: vec![0x5eed] };
        let watch = rig.machine.start_job(0, watch).expect("a job");
        std::thread::sleep(std::time::Duration::from_millis(1));
        rig.vm.clear_slot(SLOT).expect("the slot goes");
        let JobAnswer::Watched(watched) = watch.wait(LIMIT).expect("an answer") else { panic!("another answer") };
        assert_eq!((watched.others, watched.last), (0, u64::MAX), "{watched:?}");
        assert_eq!(watched.loads, watched.of_each[0] + 1);
        rig.exits.take();
    }
}

#[test]
fn a_slot_for_reading_lets_stores_come_back() {
    needs_kvm!();
    let rig = Rig::running(1);
    let shown = Shown::new(MIB);
    shown.memory.write_u32(0x10, 7).expect("memory");
    show(&rig.vm, SLOT, shown.region(WINDOW, 0, MIB, SlotAccess::ReadOnly));
    let (hpa, width) = (Hpa(WINDOW.0 + 0x10), AccessWidth::Dword);
    for _ in 0..3 {
        assert_eq!(rig.machine.job(0, Job::Read { hpa, width }, LIMIT), Ok(JobAnswer::Value(7)));
    }
    assert!(rig.exits.take().is_empty(), "a load costs nothing");
    rig.machine.job(0, Job::Write { hpa, width, value: 9 }, LIMIT).expect("done");
    assert_eq!(rig.exits.take(), [Access::Store { hpa: hpa.0, bytes: vec![9, 0, 0, 0] }]);
    // What is published is seen at once.
    shown.memory.write_u32(0x10, 8).expect("memory");
    assert_eq!(rig.machine.job(0, Job::Read { hpa, width }, LIMIT), Ok(JobAnswer::Value(8)));
}

/// A release in the middle: the slot is replaced by one for the kept half while another vCPU stores there. What comes as
/// an exit in the gap is answered from the same memory.
#[test]
fn a_writer_in_the_kept_half_loses_nothing_when_its_slot_is_replaced() {
    needs_kvm!();
    let shown = std::sync::Arc::new(Shown::new(4 * MIB));
    let answers = std::sync::Arc::new(Behind(std::sync::Arc::clone(&shown)));
    let recorder = std::sync::Arc::default();
    let ram = std::sync::Arc::new(Shown::new(crate::rig::RAM_LEN_BYTES));
    let rig = Rig::with_exits(2, ram, None, answers, recorder);
    rig.machine.boot(0).expect("a boot");
    rig.machine.run();
    let (whole, half) = (4 * MIB, 2 * MIB);
    show(&rig.vm, SLOT, shown.region(WINDOW, 0, whole, SlotAccess::ReadWrite));
    let count = rig.machine.start_job(0, Job::Count { hpa: Hpa(WINDOW.0 + 64), first: 1 }).expect("a job");
    for turn in 0..200 {
        rig.vm.clear_slot(SLOT).expect("the slot goes");
        let len_bytes = if turn % 2 == 0 { half } else { whole };
        show(&rig.vm, SLOT, shown.region(WINDOW, 0, len_bytes, SlotAccess::ReadWrite));
    }
    count.stop();
    let JobAnswer::Counted(counted) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert_eq!((counted.differ, shown.memory.read_u64(64)), (0, Ok(counted.last)));
}

/// Exits that are answered from memory.
struct Behind(std::sync::Arc<Shown>);

impl vm::Exits for Behind {
    fn mmio_read(&self, hpa: Hpa, to: &mut [u8]) {
        self.0.memory.read(hpa.0 - WINDOW.0, to).expect("memory");
    }

    fn mmio_write(&self, hpa: Hpa, from: &[u8]) {
        self.0.memory.write(hpa.0 - WINDOW.0, from).expect("memory");
    }

    fn port_read(&self, _: u16, _: &mut [u8]) {}

    fn port_write(&self, _: u16, _: &[u8]) {}
}
