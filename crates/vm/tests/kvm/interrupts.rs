//! Sleep, and what ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vm::{AccessWidth, GuestDriver, GuestWord, Interrupts, Job, Message, ROUTES_MAX};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{LIMIT, RAM_LEN_BYTES, REGISTERS, Rig, Shown, is_alone};

const VECTOR_DEVICES: u32 = guest::place::VECTOR_DEVICES;

fn interrupts(rig: &Rig, vcpu: u32) -> (u64, u64) {
    let page = guest::place::vcpu_block(vcpu) + guest::place::VCPU_PAGE;
    let word = |offset| rig.ram.memory.read_u64(page + offset as u64).expect("RAM");
    (
        word(std::mem::offset_of!(guest::VcpuPage, interrupts)),
        word(std::mem::offset_of!(guest::VcpuPage, device_interrupts)),
    )
}

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// CPU time of all vCPU threads of this process, in ticks of 10 ms.
fn vcpu_ticks() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("threads") {
        let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        if head.contains("(vcpu") {
            let fields: Vec<_> = tail.split(' ').collect();
            sum += fields[11].parse::<u64>().expect("user ticks") + fields[12].parse::<u64>().expect("system ticks");
        }
    }
    sum
}

#[test]
fn messages_reach_the_vcpu_that_they_name() {
    needs_kvm!();
    let rig = Rig::running(2);
    let sender = Interrupts::new(Arc::clone(&rig.vm));
    for number in 1..=10 {
        for vcpu in 0..2 {
            sender.send(Message { address: 0xfee0_0000 | u64::from(vcpu) << 12, data: VECTOR_DEVICES + vcpu });
            wait_until("the interrupt is counted", || interrupts(&rig, vcpu) == (number, number));
        }
    }
    sender.send(Message { address: 0x1000, data: VECTOR_DEVICES });
    assert_eq!(sender.lost(), 1, "to no local APIC");
}

#[test]
fn more_messages_than_routes_arrive_all_the_same() {
    needs_kvm!();
    let rig = Rig::running(1);
    let sender = Interrupts::new(Arc::clone(&rig.vm));
    // Many messages, one vector: the address has bits that nobody looks at.
    let message = |number: usize| Message { address: 0xfee0_0000, data: VECTOR_DEVICES | (number as u32) << 16 };
    for number in 0..ROUTES_MAX + 5 {
        sender.send(message(number));
        wait_until("the interrupt is counted", || interrupts(&rig, 0).1 == number as u64 + 1);
    }
    assert_eq!(sender.lost(), 0);
}

#[test]
fn a_guest_without_work_burns_no_core() {
    needs_kvm!();
    if !is_alone("interrupts::a_guest_without_work_burns_no_core") {
        return;
    }
    let rig = Rig::new(2, Arc::new(Shown::new(RAM_LEN_BYTES)), Some(driver()));
    rig.machine.boot(0).expect("a boot");
    rig.machine.run();
    rig.heard.wait_word(|word| matches!(word, GuestWord::Failed(_)));
    let (busy, woken) = (vcpu_ticks(), interrupts(&rig, 0).0);
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(interrupts(&rig, 0).0 - woken >= 2, "the watchdog wakes the driver");
    assert_eq!(interrupts(&rig, 1), (0, 0), "nothing wakes the other");
    // Two that spin take 500.
    assert!(vcpu_ticks() - busy <= 5, "{} ticks of 10 ms", vcpu_ticks() - busy);
}

fn driver() -> GuestDriver {
    GuestDriver { policy: driver::Policy::Accept, busy: Vec::new() }
}

#[test]
fn a_driver_without_a_device_says_so_and_looks_again_when_asked() {
    needs_kvm!();
    let rig = Rig::new(1, Arc::new(Shown::new(RAM_LEN_BYTES)), Some(driver()));
    rig.machine.boot(1_700_000_000_000).expect("a boot");
    assert_eq!(rig.machine.guest_word(), None);
    rig.machine.run();
    let failed = GuestWord::Failed("no CXL memory device was found".into());
    rig.heard.wait_word(|word| *word == failed);
    assert_eq!(rig.heard.words()[0], GuestWord::Booting);
    assert_eq!(rig.machine.guest_word(), Some(failed.clone()));
    rig.machine.ask_attention();
    wait_until("it looks again", || rig.heard.words().len() == 4);
    assert_eq!(rig.heard.words()[2..], [GuestWord::Booting, failed]);
    // It does jobs all the same.
    assert!(rig.machine.job(0, Job::Read { hpa: REGISTERS, width: AccessWidth::Dword }, LIMIT).is_ok());
}

#[test]
fn a_store_event_is_no_exit() {
    needs_kvm!();
    let rig = Rig::running(1);
    let event = EventFd::new(EFD_NONBLOCK).expect("an event");
    let hpa = Hpa(REGISTERS.0 + 0x800);
    rig.vm.register_store_event(hpa, &event).expect("an ioeventfd");
    for _ in 0..3 {
        let write = Job::Write { hpa, width: AccessWidth::Dword, value: 1 };
        rig.machine.job(0, write, LIMIT).expect("done");
    }
    assert_eq!(event.read().expect("stores"), 3);
    assert_eq!(rig.exits.storm.load(Ordering::Relaxed), 0);
}
