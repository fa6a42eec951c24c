//! Jobs of every kind.

use std::time::Duration;

use vm::{AccessWidth, Job, JobAnswer, JobError, SweepAccess};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{Access, LIMIT, MIB, REGISTERS, Rig};

const WIDTHS: [AccessWidth; 4] = [AccessWidth::Byte, AccessWidth::Word, AccessWidth::Dword, AccessWidth::Qword];

#[test]
fn a_store_to_a_register_is_one_exit_of_its_width() {
    needs_kvm!();
    let rig = Rig::running(1);
    let value = 0x8877_6655_4433_2211;
    for (index, width) in WIDTHS.into_iter().enumerate() {
        let (len, hpa) = (1 << index, Hpa(REGISTERS.0 + 0x100 * index as u64));
        assert_eq!(rig.machine.job(0, Job::Write { hpa, width, value }, LIMIT), Ok(JobAnswer::Done));
        let read = rig.machine.job(0, Job::Read { hpa, width }, LIMIT).expect("an answer");
        assert_eq!(read, JobAnswer::Value(value & u64::MAX >> (64 - 8 * len)));
        let bytes = value.to_le_bytes()[..len].to_vec();
        assert_eq!(rig.exits.take(), [Access::Store { hpa: hpa.0, bytes }, Access::Load { hpa: hpa.0, len }]);
    }
}

#[test]
fn a_port_access_is_one_exit_of_its_width() {
    needs_kvm!();
    let rig = Rig::running(1);
    for (index, width) in WIDTHS.into_iter().take(3).enumerate() {
        let (len, port) = (1 << index, 0xcf8);
        let read = rig.machine.job(0, Job::PortRead { port, width }, LIMIT).expect("an answer");
        assert_eq!(read, JobAnswer::Value(0x0cf8_0cf8 & u64::MAX >> (64 - 8 * len)));
        let value = 0x4433_2211;
        assert_eq!(rig.machine.job(0, Job::PortWrite { port, width, value }, LIMIT), Ok(JobAnswer::Done));
        let bytes = value.to_le_bytes()[..len].to_vec();
        assert_eq!(rig.exits.take(), [Access::In { port, len }, Access::Out { port, bytes }]);
    }
    let counts = rig.machine.exit_counts()[0];
    assert_eq!((counts.port_reads, counts.mmio_reads), (3, 0));
    assert!(counts.port_writes >= 3 + 6, "the three, and one for each job done: {counts:?}");
}

#[test]
fn patterns_are_the_same_on_both_sides() {
    needs_kvm!();
    let rig = Rig::running(1);
    let (at, len_bytes, seed) = (rig.machine.free_ram().base, 3 * MIB + 5, 77);
    assert_eq!(rig.machine.job(0, Job::Fill { hpa: at, len_bytes, seed }, LIMIT), Ok(JobAnswer::Done));
    let mut bytes = vec![0; len_bytes as usize];
    rig.ram.memory.read(at.0, &mut bytes).expect("RAM");
    assert!((0..).zip(&bytes).all(|(offset, byte)| *byte == vm::pattern_byte(seed, offset)));
    let check = Job::Check { hpa: at, len_bytes, seed };
    assert_eq!(rig.machine.job(0, check.clone(), LIMIT), Ok(JobAnswer::FirstWrong(None)));
    for wrong in [len_bytes - 1, 2 * MIB + 3, 0] {
        rig.ram.memory.write(at.0 + wrong, &[!bytes[wrong as usize]]).expect("RAM");
        assert_eq!(rig.machine.job(0, check.clone(), LIMIT), Ok(JobAnswer::FirstWrong(Some(wrong))));
    }
    assert!(rig.exits.take().is_empty(), "RAM is no exit");
}

#[test]
fn copies_to_registers_are_natural_accesses() {
    needs_kvm!();
    let rig = Rig::running(1);
    let hpa = Hpa(REGISTERS.0 + 2);
    let bytes: Vec<u8> = (1..=15).collect();
    assert_eq!(rig.machine.job(0, Job::CopyIn { hpa, bytes: bytes.clone() }, LIMIT), Ok(JobAnswer::Done));
    let len = |access| match access {
        Access::Store { bytes, .. } => bytes.len(),
        other => panic!("{other:?}"),
    };
    let lens: Vec<_> = rig.exits.take().into_iter().map(len).collect();
    assert_eq!(lens, [2, 4, 8, 1]);
    let read = rig.machine.job(0, Job::CopyOut { hpa, len_bytes: 15 }, LIMIT);
    assert_eq!(read, Ok(JobAnswer::Bytes(bytes)));
    let long = Job::CopyOut { hpa, len_bytes: vm::COPY_LEN_BYTES_MAX + 1 };
    assert!(matches!(rig.machine.job(0, long, LIMIT), Err(JobError::Malformed(_))));
}

#[test]
fn sweeps_take_time_and_store_their_round() {
    needs_kvm!();
    let rig = Rig::running(1);
    let hpa = rig.machine.free_ram().base;
    for access in [SweepAccess::Write, SweepAccess::Read] {
        let sweep = Job::Sweep { hpa, len_bytes: MIB, stride_bytes: 64, rounds: 3, access };
        let answer = rig.machine.job(0, sweep, LIMIT).expect("an answer");
        assert!(matches!(answer, JobAnswer::Ticks(ticks) if ticks > 1_000), "{answer:?}");
    }
    assert_eq!(rig.ram.memory.read_u64(hpa.0 + MIB - 64), Ok(2));
}

#[test]
fn one_vcpu_watches_what_another_counts() {
    needs_kvm!();
    let rig = Rig::running(2);
    let hpa = rig.machine.free_ram().base;
    let count = rig.machine.start_job(0, Job::Count { hpa, first: 1 }).expect("a job");
    assert_eq!(rig.machine.start_job(0, Job::Count { hpa, first: 1 }).unwrap_err(), JobError::Busy { vcpu: 0 });
    let watch = Job::Watch { hpa, until: u64::MAX, allowed: vec![0] };
    let watch = rig.machine.start_job(1, watch).expect("a job");
    assert!(matches!(watch.wait(Duration::from_millis(50)), Err(JobError::TimedOut { .. })));
    count.stop();
    let JobAnswer::Counted(counted) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert_eq!((counted.differ, rig.ram.memory.read_u64(hpa.0)), (0, Ok(counted.last)));
    rig.ram.memory.write_u64(hpa.0, u64::MAX).expect("RAM");
    let JobAnswer::Watched(watched) = watch.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert_eq!(watched.last, u64::MAX);
    assert_eq!(watched.loads, watched.others + watched.of_each[0] + 1);
    assert!(watched.others > 1_000, "{watched:?}");
    assert!(matches!(rig.machine.start_job(2, Job::Count { hpa, first: 1 }), Err(JobError::NoVcpu { vcpus: 2, .. })));
}
