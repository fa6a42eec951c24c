//! What the host asks of a vCPU.

use alloc::vec;
use core::mem::offset_of;

use driver::{Bus, HpaRange, Mailbox};
use guest::place::{JOB_DATA_LEN_BYTES, PORT_DONE};
use guest::{JobKind, JobPage, NO_ANSWER, NONE_WRONG, WATCHED_VALUES_MAX, pattern_byte, pattern_word};

use crate::access::{Wide, load, pieces, port_in, port_out, store, tell, ticks};
use crate::bus::Hardware;
use crate::pages::{Boot, Vcpu};

use wire::{Hpa, Opcode};

type Results = [u64; 8];
type Arguments = [u64; 8];

/// Does the job that is asked for, if there is one.
pub(crate) fn serve(vcpu: Vcpu) {
    let asked = vcpu.job(offset_of!(JobPage, asked));
    if asked == vcpu.job(offset_of!(JobPage, done)) {
        return;
    }
    let number = vcpu.job(offset_of!(JobPage, kind));
    let arguments: Arguments =
        core::array::from_fn(|index| vcpu.job(offset_of!(JobPage, arguments) + index * size_of::<u64>()));
    let Some(kind) = JobKind::from_number(number) else { panic!("job {asked} is of kind {number}, which is none") };
    let results = run(vcpu, asked, kind, arguments);
    for (index, result) in results.into_iter().enumerate() {
        vcpu.set_job(offset_of!(JobPage, results) + index * size_of::<u64>(), result);
    }
    vcpu.set_job(offset_of!(JobPage, done), asked);
    tell(PORT_DONE);
}

fn run(vcpu: Vcpu, number: u64, kind: JobKind, arguments: Arguments) -> Results {
    let [a, b, c, d, ..] = arguments;
    match kind {
        JobKind::Read => return first(load(a, width(b))),
        JobKind::PortRead => return first(port_in(a as u16, width(b))),
        JobKind::Check => return first(check(a, b, c)),
        JobKind::SweepRead => return sweep_read(a, b, c, d),
        JobKind::SweepWrite => return first(sweep_write(a, b, c, d)),
        JobKind::Watch => return watch(vcpu, number, arguments),
        JobKind::Count => return count(vcpu, number, a, b),
        JobKind::Command => return command(vcpu, arguments),
        JobKind::Write => store(a, width(b), c),
        JobKind::CopyOut => copy(a, vcpu.job_data(), data_len(b), a),
        JobKind::CopyIn => copy(vcpu.job_data(), a, data_len(b), a),
        JobKind::PortWrite => port_out(a as u16, width(b), c),
        JobKind::Fill => fill(a, b, c),
    }
    [0; 8]
}

fn first(value: u64) -> Results {
    [value, 0, 0, 0, 0, 0, 0, 0]
}

fn width(bytes: u64) -> Wide {
    let Some(wide) = Wide::from_bytes(bytes) else { panic!("no access is {bytes} bytes wide") };
    wide
}

fn data_len(len: u64) -> u64 {
    assert!(len <= JOB_DATA_LEN_BYTES, "{len} bytes do not fit into the job data");
    len
}

/// Copies with the accesses that are natural at `aligned_at`, the end that may be a register.
fn copy(from: u64, to: u64, len: u64, aligned_at: u64) {
    for (offset, wide) in pieces(aligned_at, len) {
        store(to + offset, wide, load(from + offset, wide));
    }
}

fn fill(address: u64, len: u64, seed: u64) {
    for index in 0..len / 8 {
        store(address + 8 * index, Wide::Qword, pattern_word(seed, index));
    }
    for offset in len / 8 * 8..len {
        store(address + offset, Wide::Byte, pattern_byte(seed, offset).into());
    }
}

fn check(address: u64, len: u64, seed: u64) -> u64 {
    for index in 0..len / 8 {
        let wrong = load(address + 8 * index, Wide::Qword) ^ pattern_word(seed, index);
        if wrong != 0 {
            return 8 * index + u64::from(wrong.trailing_zeros()) / 8;
        }
    }
    let is_wrong = |offset: &u64| load(address + offset, Wide::Byte) != u64::from(pattern_byte(seed, *offset));
    (len / 8 * 8..len).find(is_wrong).unwrap_or(NONE_WRONG)
}

fn sweep_read(address: u64, len: u64, stride: u64, rounds: u64) -> Results {
    let (mut sum, begun) = (0u64, ticks());
    for _ in 0..rounds {
        let mut offset = 0;
        while offset < len {
            sum = sum.wrapping_add(load(address + offset, Wide::Qword));
            offset += stride.max(1);
        }
    }
    [ticks() - begun, sum, 0, 0, 0, 0, 0, 0]
}

fn sweep_write(address: u64, len: u64, stride: u64, rounds: u64) -> u64 {
    let begun = ticks();
    for round in 0..rounds {
        let mut offset = 0;
        while offset < len {
            store(address + offset, Wide::Qword, round);
            offset += stride.max(1);
        }
    }
    ticks() - begun
}

/// As the driver sends it; a device that answers no is an answer.
fn command(vcpu: Vcpu, arguments: Arguments) -> Results {
    let [base, size_bytes, opcode, at, len, ..] = arguments;
    let mut bus = Hardware::new(Boot, vcpu);
    let mut payload = vec![0; len as usize];
    bus.read(Hpa(at), &mut payload);
    let Ok(mailbox) = Mailbox::open(&mut bus, HpaRange { base: Hpa(base), size_bytes }) else {
        return first(NO_ANSWER);
    };
    let begun = ticks();
    let answered = mailbox.execute(&mut bus, Opcode(opcode as u16), &payload);
    let took = ticks() - begun;
    match answered {
        Ok(answer) => [0, answer.len() as u64, took, 0, 0, 0, 0, 0],
        Err(error) => [error.refusal().map_or(NO_ANSWER, |code| code as u64), 0, took, 0, 0, 0, 0, 0],
    }
}

fn watch(vcpu: Vcpu, number: u64, arguments: Arguments) -> Results {
    let [address, until, values, known @ ..] = arguments;
    let known = &known[..WATCHED_VALUES_MAX.min(values as usize)];
    let (mut loads, mut others, mut first_other) = (0, 0, 0);
    let mut of_each = [0u64; WATCHED_VALUES_MAX];
    loop {
        // Before the load: what the last load sees is not older than the word that stops it.
        let is_stopped = vcpu.is_stopped(number);
        let value = load(address, Wide::Qword);
        loads += 1;
        match known.iter().position(|known| *known == value) {
            Some(index) => of_each[index] += 1,
            None if value == until => {}
            None => {
                first_other = if others == 0 { value } else { first_other };
                others += 1;
            }
        }
        if is_stopped || value == until {
            return [loads, others, first_other, value, of_each[0], of_each[1], of_each[2], of_each[3]];
        }
    }
}

fn count(vcpu: Vcpu, number: u64, address: u64, begin: u64) -> Results {
    let (mut value, mut differ, mut first_different) = (begin, 0, 0);
    loop {
        let is_stopped = vcpu.is_stopped(number);
        store(address, Wide::Qword, value);
        let seen = load(address, Wide::Qword);
        if seen != value {
            first_different = if differ == 0 { seen } else { first_different };
            differ += 1;
        }
        if is_stopped {
            return [value, differ, first_different, 0, 0, 0, 0, 0];
        }
        value = value.wrapping_add(1);
    }
}
