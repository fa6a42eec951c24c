//! What ends a vCPU, and what is told of it.

use std::sync::Arc;

use vm::{AccessWidth, DeathReason, Exits, Job, JobError, Machine};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{LIMIT, RAM_LEN_BYTES, REGISTERS, Recorder, Rig, Shown};

/// Past everything that the rig's guest reaches.
const NOWHERE: Hpa = Hpa(0x7f_0000_0000);

#[test]
fn an_address_out_of_reach_is_a_fault_with_its_registers() {
    needs_kvm!();
    let rig = Rig::running(2);
    let write = Job::Write { hpa: NOWHERE, width: AccessWidth::Qword, value: 0x1234_5678_9abc };
    assert_eq!(rig.machine.job(1, write, LIMIT), Err(JobError::Ended { vcpu: 1 }));
    let death = rig.heard.wait_death();
    // Not present, a write, from ring 3.
    assert_eq!((death.vcpu, death.reason.clone()), (1, DeathReason::GuestFault { vector: 14, error_code: 6 }));
    let registers = &death.registers;
    assert_eq!((registers.cr2, registers.cs & 3, registers.ss & 3), (NOWHERE.0, 3, 3));
    assert!((0x20_0000..0x40_0000).contains(&registers.rip), "{death}");
    assert!(registers.general.contains(&0x1234_5678_9abc), "{death}");
    let stack_end = guest::place::ring3_stack_end(1);
    assert!((stack_end - 0x4000..stack_end).contains(&registers.rsp), "{death}");
    // The others go on.
    assert!(rig.machine.job(0, Job::Read { hpa: REGISTERS, width: AccessWidth::Dword }, LIMIT).is_ok());
    rig.machine.pause();
    assert!(rig.machine.save().is_err(), "a vCPU that has ended has no state to go on from");
}

#[test]
fn an_address_that_is_none_is_a_general_protection_fault() {
    needs_kvm!();
    let rig = Rig::running(1);
    let read = Job::Read { hpa: Hpa(1 << 60), width: AccessWidth::Byte };
    assert_eq!(rig.machine.job(0, read, LIMIT), Err(JobError::Ended { vcpu: 0 }));
    let death = rig.heard.wait_death();
    // Of the stack segment (12) where the compiler of the image has the address in rbp, which it decides anew by the path of
    // the build.
    let is_expected = matches!(death.reason, DeathReason::GuestFault { vector: 12 | 13, error_code: 0 });
    assert!(is_expected, "{death}");
    assert!(rig.machine.start_job(0, Job::Count { hpa: REGISTERS, first: 0 }).is_err());
}

/// The image's own `hlt` is a park; any other would be a fault. A job of no kind is a bug of the host's, and a panic.
#[test]
fn a_panic_of_the_guest_is_told_with_its_text() {
    needs_kvm!();
    let rig = Rig::running(2);
    let page = guest::place::vcpu_block(1) + guest::place::JOB_PAGE;
    let kind = std::mem::offset_of!(guest::JobPage, kind) as u64;
    rig.machine.pause();
    let job = rig.machine.start_job(1, Job::Count { hpa: REGISTERS, first: 0 }).expect("a job");
    rig.ram.memory.write_u64(page + kind, 99).expect("RAM");
    rig.machine.run();
    let death = rig.heard.wait_death();
    assert_eq!(job.wait(LIMIT), Err(JobError::Ended { vcpu: 1 }));
    let DeathReason::GuestPanic(text) = death.reason else { panic!("{death}") };
    assert!(text.contains("image/jobs.rs") && text.contains("job 1 is of kind 99, which is none"), "{text}");
}

#[test]
fn a_boot_page_of_another_abi_is_told() {
    needs_kvm!();
    let rig = Rig::new(1, Arc::new(Shown::new(RAM_LEN_BYTES)), None);
    rig.machine.boot(0).expect("a boot");
    rig.ram.memory.write_u64(guest::place::BOOT_PAGE, 1).expect("RAM");
    rig.machine.run();
    let death = rig.heard.wait_death();
    assert!(matches!(&death.reason, DeathReason::GuestPanic(text) if text.contains("ABI")), "{death}");
}

/// Nothing but the guest's memory, which is gone: no stub, no stack. The processor shuts down.
#[test]
fn a_guest_without_handlers_shuts_down() {
    needs_kvm!();
    let rig = Rig::running(1);
    rig.machine.pause();
    for vector in 0..256 {
        rig.ram.memory.write_u64(guest::place::IDT + 16 * vector, 0).expect("RAM");
    }
    rig.machine.run();
    let _ = rig.machine.start_job(0, Job::Read { hpa: NOWHERE, width: AccessWidth::Byte });
    assert_eq!(rig.heard.wait_death().reason, DeathReason::Shutdown);
}

/// Exits that panic.
struct Panicking;

impl Exits for Panicking {
    fn mmio_read(&self, hpa: Hpa, _: &mut [u8]) {
        panic!("no load at {hpa}");
    }

    fn mmio_write(&self, _: Hpa, _: &[u8]) {}

    fn port_read(&self, _: u16, _: &mut [u8]) {}

    fn port_write(&self, _: u16, _: &[u8]) {}
}

#[test]
fn a_panic_in_this_process_ends_the_vcpu_and_is_told() {
    needs_kvm!();
    let recorder = Arc::new(Recorder::default());
    let rig = Rig::with_exits(1, Arc::new(Shown::new(RAM_LEN_BYTES)), None, Arc::new(Panicking), recorder);
    rig.machine.boot(0).expect("a boot");
    rig.machine.run();
    let read = Job::Read { hpa: REGISTERS, width: AccessWidth::Byte };
    assert_eq!(rig.machine.job(0, read, LIMIT), Err(JobError::Ended { vcpu: 0 }));
    let death = rig.heard.wait_death();
    assert_eq!(death.reason, DeathReason::Panic("no load at 0xc0000000".into()));
    // Steering a machine whose vCPU is gone waits for nobody.
    let machine: &Machine = &rig.machine;
    machine.kick(0);
    machine.pause();
    machine.stop();
}
