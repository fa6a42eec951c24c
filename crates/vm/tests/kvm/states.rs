//! A machine that goes on as another, or as it was itself.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vm::{
    AccessWidth, Exits, GuestDriver, GuestWord, Interrupts, Job, JobAnswer, LoadError, MACHINE_STATE_VERSION,
    MachineError, MachineState, Message, SweepAccess,
};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{LIMIT, MIB, RAM_LEN_BYTES, REGISTERS, Recorder, Rig, Shown};

/// What a file does to a state.
fn stored(state: &MachineState) -> MachineState {
    let stored = MachineState::from_bytes(MACHINE_STATE_VERSION, &state.to_bytes()).expect("a state");
    assert_eq!(&stored, state);
    stored
}

/// A machine with the same bytes in a RAM of its own, about to go on.
fn moved(rig: Rig) -> Rig {
    rig.machine.pause();
    let (state, vcpus) = (stored(&rig.machine.save().expect("a state")), rig.machine.vcpus());
    assert_eq!(state.vcpus(), vcpus);
    let ram = rig.ram.copied();
    drop(rig);
    let next = Rig::new(vcpus, ram, None);
    next.machine.load(&state, 1_700_000_000_000).expect("a load");
    next
}

/// Some time below a limit, another one each turn.
fn some_us(turn: u64, limit_us: u64) -> Duration {
    Duration::from_micros(vm::pattern_word(limit_us, turn) % limit_us)
}

fn interrupts(ram: &Shown, vcpu: u32) -> u64 {
    let page = guest::place::vcpu_block(vcpu) + guest::place::VCPU_PAGE;
    ram.memory.read_u64(page + offset_of!(guest::VcpuPage, interrupts) as u64).expect("RAM")
}

fn device_interrupts(ram: &Shown, vcpu: u32) -> u64 {
    let page = guest::place::vcpu_block(vcpu) + guest::place::VCPU_PAGE;
    ram.memory.read_u64(page + offset_of!(guest::VcpuPage, device_interrupts) as u64).expect("RAM")
}

fn wait_until(what: &str, is_true: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn a_counter_goes_on_in_another_machine() {
    needs_kvm!();
    let ram = Arc::new(Shown::new(RAM_LEN_BYTES));
    let first = Rig::new(2, Arc::clone(&ram), None);
    first.machine.boot(0).expect("a boot");
    first.machine.run();
    let job = Job::Count { hpa: first.machine.free_ram().base, first: 1 };
    let hpa = first.machine.free_ram().base;
    first.machine.start_job(0, job.clone()).expect("a job");
    assert!(matches!(first.machine.save(), Err(MachineError::Running)));
    std::thread::sleep(Duration::from_millis(20));
    first.machine.pause();
    // One interrupt that the sleeping vCPU has not taken yet.
    let message = Message { address: 0xfee0_1000, data: guest::place::VECTOR_DEVICES };
    Interrupts::new(Arc::clone(&first.vm)).send(message);
    let state = stored(&first.machine.save().expect("a state"));
    let counted = ram.memory.read_u64(hpa.0).expect("RAM");
    drop(first);

    let second = Rig::new(2, Arc::clone(&ram), None);
    second.machine.load(&state, 0).expect("a load");
    let count = second.machine.adopt_job(0, job).expect("the job under way");
    assert_eq!(ram.memory.read_u64(hpa.0), Ok(counted), "it stands still");
    second.machine.run();
    std::thread::sleep(Duration::from_millis(20));
    count.stop();
    let JobAnswer::Counted(answer) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert!(answer.last > counted && answer.differ == 0, "{answer:?} after {counted}");
    assert_eq!(device_interrupts(&ram, 1), 1, "the interrupt came along");
    let read = Job::Read { hpa: REGISTERS, width: AccessWidth::Dword };
    assert!(second.machine.job(1, read, LIMIT).is_ok());
    assert_eq!(second.heard.deaths(), []);
}

/// Lets a machine go on as others while its vCPUs are in the middle of sweeps, until these are done; how often it moved.
fn sweep_over_machines(vcpus: u32, first_turn: u64) -> u64 {
    let mut rig = Rig::running(vcpus);
    let free = rig.machine.free_ram();
    let (len_bytes, rounds) = (2 * MIB, 40);
    let base = |vcpu: u32| Hpa(free.base.0 + u64::from(vcpu) * 4 * MIB);
    let job = |vcpu| Job::Sweep { hpa: base(vcpu), len_bytes, stride_bytes: 8, rounds, access: SweepAccess::Write };
    for vcpu in 0..vcpus {
        rig.machine.start_job(vcpu, job(vcpu)).expect("a job");
    }
    let mut moves = 0;
    let mut under_way: Vec<_> = (0..vcpus).collect();
    while !under_way.is_empty() {
        std::thread::sleep(some_us(first_turn + moves, 3_000));
        rig = moved(rig);
        moves += 1;
        under_way.retain(|vcpu| rig.machine.adopt_job(*vcpu, job(*vcpu)).is_some());
        rig.machine.run();
        assert!(moves < 2_000, "the sweeps get on");
    }
    for vcpu in 0..vcpus {
        let mut bytes = vec![0; len_bytes as usize];
        rig.ram.memory.read(base(vcpu).0, &mut bytes).expect("RAM");
        let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        assert_eq!(words.filter(|word| *word != rounds - 1).count(), 0, "every word is of the last round");
        // It does the next job as if nothing had been.
        let (hpa, seed) = (base(vcpu), moves);
        assert_eq!(rig.machine.job(vcpu, Job::Fill { hpa, len_bytes, seed }, LIMIT), Ok(JobAnswer::Done));
        let check = rig.machine.job(vcpu, Job::Check { hpa, len_bytes, seed }, LIMIT);
        assert_eq!(check, Ok(JobAnswer::FirstWrong(None)));
    }
    assert_eq!(rig.heard.deaths(), []);
    moves
}

#[test]
fn sweeps_go_on_over_machines_that_are_left_at_any_moment() {
    needs_kvm!();
    let moves: u64 = (0..4).map(|turn| sweep_over_machines(1 + turn as u32 % 2, 1_000 * turn)).sum();
    assert!(moves >= 12, "{moves}");
}

/// A register that sees whether a store is lost or comes twice, over any number of machines.
#[derive(Default)]
struct Ascending {
    last: AtomicU64,
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
    }

    fn port_read(&self, _: u16, _: &mut [u8]) {}

    fn port_write(&self, _: u16, _: &[u8]) {}
}

/// The access that a vCPU was about has retired when it is saved: its successor neither repeats nor leaves it out.
#[test]
fn stores_to_a_register_are_not_lost_or_doubled_between_machines() {
    needs_kvm!();
    let register = Arc::new(Ascending::default());
    let rig = |ram| Rig::with_exits(1, ram, None, Arc::clone(&register) as _, Arc::new(Recorder::default()));
    let mut first = rig(Arc::new(Shown::new(RAM_LEN_BYTES)));
    first.machine.boot(0).expect("a boot");
    first.machine.run();
    let job = Job::Count { hpa: REGISTERS, first: 1 };
    first.machine.start_job(0, job.clone()).expect("a job");
    for turn in 0..30 {
        std::thread::sleep(some_us(turn, 2_000));
        first.machine.pause();
        let state = stored(&first.machine.save().expect("a state"));
        let ram = first.ram.copied();
        drop(first);
        first = rig(ram);
        first.machine.load(&state, 0).expect("a load");
        first.machine.run();
    }
    let count = first.machine.adopt_job(0, job).expect("the job under way");
    count.stop();
    let JobAnswer::Counted(counted) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert_eq!((counted.differ, register.wrong.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(counted.last, register.last.load(Ordering::Relaxed));
}

/// What a device writes to an irqfd is in the local APIC when the write returns, so that a save right after has it.
#[test]
fn interrupts_sent_just_before_a_save_come_along() {
    needs_kvm!();
    let mut rig = Rig::running(2);
    let job = Job::Count { hpa: rig.machine.free_ram().base, first: 1 };
    rig.machine.start_job(0, job.clone()).expect("a job");
    let message = |vcpu: u64| Message { address: 0xfee0_0000 | vcpu << 12, data: guest::place::VECTOR_DEVICES };
    let mut untaken = 0;
    for turn in 0..40 {
        let sender = Interrupts::new(Arc::clone(&rig.vm));
        let seen = [0, 1].map(|vcpu| device_interrupts(&rig.ram, vcpu));
        // So that they have their routes, as those of a device that has worked for a while.
        (0..2).for_each(|vcpu| sender.send(message(vcpu)));
        wait_until("both took it", || {
            [0, 1].iter().all(|vcpu| device_interrupts(&rig.ram, *vcpu) > seen[*vcpu as usize])
        });
        std::thread::sleep(some_us(turn, 500));
        let seen = [0, 1].map(|vcpu| device_interrupts(&rig.ram, vcpu));
        if turn % 2 == 0 {
            rig.machine.pause();
        }
        (0..2).for_each(|vcpu| sender.send(message(vcpu)));
        rig.machine.pause();
        untaken += [0, 1].iter().filter(|vcpu| device_interrupts(&rig.ram, **vcpu) == seen[**vcpu as usize]).count();
        rig = moved(rig);
        rig.machine.run();
        let taken = || [0, 1].map(|vcpu| device_interrupts(&rig.ram, vcpu));
        wait_until("both took it", || taken() == seen.map(|seen| seen + 1));
        assert_eq!((sender.lost(), rig.machine.adopt_job(0, job.clone()).is_some()), (0, true));
    }
    assert!(untaken >= 40, "{untaken} of 80 were still on their way");
}

/// A guest that sleeps until a time wakes in its next machine, also if the time came in between.
#[test]
fn a_timer_that_expires_while_nobody_runs_wakes_the_guest() {
    needs_kvm!();
    let driver = || Some(GuestDriver { policy: driver::Policy::Accept, busy: Vec::new() });
    let first = Rig::new(1, Arc::new(Shown::new(RAM_LEN_BYTES)), driver());
    first.machine.boot(0).expect("a boot");
    first.machine.run();
    // Without a device it looks again each second.
    first.heard.wait_word(|word| matches!(word, GuestWord::Failed(_)));
    std::thread::sleep(Duration::from_millis(20));
    first.machine.pause();
    let early = stored(&first.machine.save().expect("a state"));
    std::thread::sleep(Duration::from_millis(1_200));
    let late = stored(&first.machine.save().expect("a state"));
    for state in [early, late] {
        let second = Rig::new(1, first.ram.copied(), driver());
        second.machine.load(&state, 0).expect("a load");
        assert!(matches!(second.machine.guest_word(), Some(GuestWord::Failed(_))));
        let seen = interrupts(&second.ram, 0);
        second.machine.run();
        wait_until("it wakes, and sleeps and wakes again", || interrupts(&second.ram, 0) >= seen + 2);
    }
}

#[test]
fn a_machine_goes_back_to_what_it_was() {
    needs_kvm!();
    let rig = Rig::running(2);
    let free = rig.machine.free_ram();
    let job =
        Job::Sweep { hpa: free.base, len_bytes: 2 * MIB, stride_bytes: 8, rounds: 400, access: SweepAccess::Write };
    rig.machine.start_job(0, job.clone()).expect("a job");
    std::thread::sleep(Duration::from_millis(2));
    rig.machine.pause();
    let state = stored(&rig.machine.save().expect("a state"));
    let mut memory = vec![0; RAM_LEN_BYTES as usize];
    rig.ram.memory.read(0, &mut memory).expect("RAM");
    for turn in 0..10 {
        let sweep = rig.machine.adopt_job(0, job.clone()).expect("the job under way");
        rig.machine.run();
        if turn % 3 == 0 {
            // All of it, and another one.
            sweep.wait(LIMIT).expect("an answer");
            let other = Job::Count { hpa: Hpa(free.base.0 + 4 * MIB), first: 1 };
            rig.machine.start_job(1, other).expect("a job");
        }
        std::thread::sleep(some_us(turn, 4_000));
        rig.machine.pause();
        rig.ram.memory.write(0, &memory).expect("RAM");
        rig.machine.load(&state, 0).expect("a load");
    }
    let sweep = rig.machine.adopt_job(0, job).expect("the job under way");
    rig.machine.run();
    assert!(matches!(sweep.wait(LIMIT), Ok(JobAnswer::Ticks(_))));
    assert_eq!(rig.ram.memory.read_u64(free.base.0 + 2 * MIB - 8), Ok(399));
    let read = Job::Read { hpa: free.base, width: AccessWidth::Qword };
    assert_eq!(rig.machine.job(1, read, LIMIT), Ok(JobAnswer::Value(399)), "the other is not at its count any more");
    assert_eq!(rig.heard.deaths(), []);
}

#[test]
fn a_state_of_more_vcpus_is_refused() {
    needs_kvm!();
    let ram = Arc::new(Shown::new(RAM_LEN_BYTES));
    let two = Rig::new(2, Arc::clone(&ram), None);
    two.machine.boot(0).expect("a boot");
    let state = two.machine.save().expect("a state");
    let one = Rig::new(1, ram, None);
    let error = one.machine.load(&state, 0).unwrap_err().to_string();
    assert_eq!(error, "the state is of 2 vCPUs, the machine has 1: start it with as many");
}

/// Where things are in the bytes of a state.
const KIND: usize = 4;
const FREE_RAM: usize = 24;
const FIRST_CPUID: usize = 56;
const CPUID_ENTRY: usize = 28;
const REGS_LEN: usize = 144;

#[test]
fn a_state_that_does_not_fit_is_refused_before_anything_changes() {
    needs_kvm!();
    let rig = Rig::new(1, Arc::new(Shown::new(RAM_LEN_BYTES)), None);
    rig.machine.boot(0).expect("a boot");
    let state = rig.machine.save().expect("a state");
    let bytes = state.to_bytes();
    let refused = |spoil: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        spoil(&mut bytes);
        let state = MachineState::from_bytes(MACHINE_STATE_VERSION, &bytes).expect("a state");
        rig.machine.load(&state, 0).unwrap_err()
    };
    assert_eq!(
        refused(&|bytes| bytes[0] = 9).to_string(),
        "the state is of a guest image of ABI 9, and this build's images are of ABI 1: use the build that wrote it"
    );
    let other = refused(&|bytes| bytes[KIND] = if bytes[KIND] == 1 { 0 } else { 1 });
    let is_known = state.virtualization() != vm::Virtualization::Unknown;
    assert!(!is_known || matches!(other, MachineError::Load(LoadError::Virtualization { .. })), "{other}");
    let other = refused(&|bytes| bytes[FREE_RAM + 3] = 0x10).to_string();
    assert!(other.contains("from 0x10600000 on alone, and one of this machine 0x2a00000 from 0x1600000 on"), "{other}");
    // All features in ECX of leaf 1.
    let leaf_1 = (0..).map(|index| FIRST_CPUID + index * CPUID_ENTRY).find(|at| bytes[*at..*at + 4] == [1, 0, 0, 0]);
    let at = leaf_1.expect("leaf 1") + 20;
    let other = refused(&|bytes| bytes[at..at + 4].fill(0xff)).to_string();
    assert!(other.starts_with("vCPU 0 has seen what this host does not have: bits 0x"), "{other}");
    assert!(other.contains("of ECX of CPUID 0x1.0; load it on a host with the same features"), "{other}");
    assert_eq!(stored(&rig.machine.save().expect("a state")).vcpus(), 1);
}

/// Registers that no vCPU can have.
#[test]
fn what_kvm_refuses_is_named_and_the_machine_boots_again() {
    needs_kvm!();
    let rig = Rig::new(1, Arc::new(Shown::new(RAM_LEN_BYTES)), None);
    rig.machine.boot(0).expect("a boot");
    let state = rig.machine.save().expect("a state");
    let bytes = state.to_bytes();
    let entries = u64::from_le_bytes(bytes[FIRST_CPUID - 8..FIRST_CPUID].try_into().expect("8 bytes")) as usize;
    let sregs = FIRST_CPUID + entries * CPUID_ENTRY + REGS_LEN;
    let (cr0, xsave) = (sregs + 8 * 24 + 2 * 16, sregs + 312);
    let header = xsave + 512;
    for (what, at, value) in [("special registers", cr0, [1, 0, 0, 0]), ("FPU", header + 8, [0xff; 4])] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&value);
        let state = MachineState::from_bytes(MACHINE_STATE_VERSION, &bytes).expect("a state");
        let refused = rig.machine.load(&state, 0);
        assert!(
            matches!(&refused, Err(MachineError::Load(LoadError::Part { what: part, .. })) if *part == what),
            "{refused:?}"
        );
    }
    let mut last = bytes.clone();
    let run_state = last.len() - 4;
    last[run_state..].fill(0x77);
    let state = MachineState::from_bytes(MACHINE_STATE_VERSION, &last).expect("a state");
    let refused = rig.machine.load(&state, 0).unwrap_err().to_string();
    assert!(refused.starts_with("KVM does not take the run state of vCPU 0: "), "{refused}");
    rig.machine.boot(0).expect("a boot");
    rig.machine.run();
    let read = Job::Read { hpa: rig.machine.free_ram().base, width: AccessWidth::Dword };
    assert!(rig.machine.job(0, read, LIMIT).is_ok());
}
