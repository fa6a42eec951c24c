//! Running, standing still, and ending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vm::{AccessWidth, Exits, GuestDriver, Job, JobAnswer, JobError, MachineError};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{LIMIT, RAM_LEN_BYTES, REGISTERS, Recorder, Rig, Shown, is_alone};

/// A register that keeps the last store, and sees whether one is lost or comes twice.
#[derive(Default)]
struct Ascending {
    last: AtomicU64,
    stores: AtomicU64,
    wrong: AtomicU64,
}

impl Exits for Ascending {
    fn mmio_read(&self, _: Hpa, to: &mut [u8]) {
        to.copy_from_slice(&self.last.load(Ordering::Relaxed).to_le_bytes()[..to.len()]);
    }

    fn mmio_write(&self, _: Hpa, from: &[u8]) {
        let value = from.try_into().map(u64::from_le_bytes).unwrap_or(u64::MAX);
        if self.last.swap(value, Ordering::Relaxed) + 1 != value {
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
        self.stores.fetch_add(1, Ordering::Relaxed);
    }

    fn port_read(&self, _: u16, _: &mut [u8]) {}

    fn port_write(&self, _: u16, _: &[u8]) {}
}

#[test]
fn pauses_under_a_storm_of_stores_lose_and_double_none() {
    needs_kvm!();
    let register = Arc::new(Ascending::default());
    let ram = Arc::new(Shown::new(RAM_LEN_BYTES));
    let rig = Rig::with_exits(1, ram, None, Arc::clone(&register) as _, Arc::new(Recorder::default()));
    rig.machine.boot(0).expect("a boot");
    rig.machine.run();
    let count = rig.machine.start_job(0, Job::Count { hpa: REGISTERS, first: 1 }).expect("a job");
    for turn in 0..300 {
        rig.machine.pause();
        let still = register.stores.load(Ordering::Relaxed);
        if turn % 100 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(register.stores.load(Ordering::Relaxed), still, "it stands still");
        rig.machine.run();
    }
    count.stop();
    let JobAnswer::Counted(counted) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert_eq!((counted.differ, register.wrong.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(counted.last, register.stores.load(Ordering::Relaxed));
}

#[test]
fn a_hundred_thousand_kicks_are_all_seen() {
    needs_kvm!();
    let rig = Rig::running(2);
    let hpa = rig.machine.free_ram().base;
    let count = rig.machine.start_job(0, Job::Count { hpa, first: 1 }).expect("a job");
    std::thread::scope(|scope| {
        // One that runs, one that sleeps; a kick that is lost is waited for in vain.
        for vcpu in 0..2 {
            let machine = &rig.machine;
            scope.spawn(move || (0..50_000).for_each(|_| machine.kick(vcpu)));
        }
    });
    count.stop();
    assert!(matches!(count.wait(LIMIT), Ok(JobAnswer::Counted(counted)) if counted.differ == 0));
}

#[test]
fn a_boot_is_a_reset() {
    needs_kvm!();
    let rig = Rig::running(2);
    let hpa = rig.machine.free_ram().base;
    assert!(matches!(rig.machine.boot(0), Err(MachineError::Running)));
    for _ in 0..3 {
        // In the middle of an access, of a loop, of a sleep.
        let job = rig.machine.start_job(0, Job::Count { hpa: REGISTERS, first: 1 }).expect("a job");
        rig.machine.start_job(1, Job::Count { hpa, first: 1 }).expect("a job");
        rig.machine.pause();
        rig.machine.boot(0).expect("a boot");
        rig.machine.run();
        assert!(matches!(job.wait(Duration::ZERO), Err(JobError::TimedOut { .. })), "the job is gone with its boot");
        for vcpu in 0..2 {
            let read = Job::Read { hpa: REGISTERS, width: AccessWidth::Dword };
            rig.machine.job(vcpu, read, LIMIT).expect("an answer");
        }
    }
    assert_eq!(rig.heard.deaths(), []);
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("files").count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("threads").count()
}

#[test]
fn fifty_lifetimes_leave_nothing_behind() {
    needs_kvm!();
    if !is_alone("life::fifty_lifetimes_leave_nothing_behind") {
        return;
    }
    let ram = Arc::new(Shown::new(RAM_LEN_BYTES));
    let live = || {
        let driver = GuestDriver { policy: driver::Policy::Accept, busy: Vec::new() };
        let rig = Rig::new(2, Arc::clone(&ram), Some(driver));
        rig.machine.boot(0).expect("a boot");
        rig.machine.run();
        let read = Job::Read { hpa: REGISTERS, width: AccessWidth::Dword };
        rig.machine.job(1, read, LIMIT).expect("an answer");
    };
    live();
    let before = (open_files(), threads());
    (0..50).for_each(|_| live());
    assert_eq!((open_files(), threads()), before);
}
