//! The thread's loop: enter the guest, answer its exit, look.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kvm_bindings::{KVM_INTERNAL_ERROR_EMULATION, kvm_regs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use wire::Hpa;

use super::control::{self, Control, ImmediateExit, Next};
use super::death::{DeathReason, Registers, VcpuDeath};
use crate::counters::ExitCounters;
use crate::exits::Exits;

/// How often an instruction that KVM could not carry out is tried again with the same registers. A slot that is being
/// replaced is not there for some microseconds, and an instruction that KVM cannot interpret must not end a guest that meets
/// the gap.
const RETRIES: u32 = 64;
const RETRY_PAUSE: Duration = Duration::from_micros(200);

/// The instruction that could not be carried out, and how often it was tried.
#[derive(Default)]
struct Stuck {
    registers: kvm_regs,
    tries: u32,
}

impl Stuck {
    /// Whether it is worth another try.
    fn try_again(&mut self, registers: kvm_regs) -> bool {
        self.tries = if self.registers == registers { self.tries + 1 } else { 1 };
        self.registers = registers;
        self.tries <= RETRIES
    }
}

/// What a vCPU's thread tells the machine.
pub(crate) trait VcpuEvents: Send + Sync {
    /// Who answers exits.
    fn exits(&self) -> &dyn Exits;

    /// A port of the machine's own was written; an error is the guest's last word.
    fn own_port(&self, vcpu: u32, port: u16, registers: &dyn Fn() -> Registers) -> OwnPort;

    /// It ended by itself.
    fn died(&self, death: VcpuDeath);
}

/// What a write to a port led to.
pub(crate) enum OwnPort {
    /// It is no port of the machine's own.
    Foreign,
    /// It was taken.
    Taken,
    /// The guest is at its end.
    Death(DeathReason, Box<Registers>),
}

/// What an entry led to.
enum Exit {
    /// It was answered; the guest is to see the answer.
    Answered,
    /// A signal or the flag.
    Interrupted,
    /// The instruction is to be tried again, unless it was too often.
    Again(DeathReason),
    /// The end.
    Death(DeathReason, Option<Box<Registers>>),
}

pub(super) struct Entry {
    number: u32,
    fd: Arc<Mutex<VcpuFd>>,
    control: Arc<Control>,
    counters: Arc<ExitCounters>,
    events: Arc<dyn VcpuEvents>,
}

impl Entry {
    pub(super) fn new(
        number: u32,
        fd: Arc<Mutex<VcpuFd>>,
        control: Arc<Control>,
        counters: Arc<ExitCounters>,
        events: Arc<dyn VcpuEvents>,
    ) -> Self {
        Self { number, fd, control, counters, events }
    }

    /// The thread.
    pub(super) fn run(self, immediate_exit: &ImmediateExit) {
        self.control.begin();
        // Whoever started the thread may have blocked it.
        control::accept_signal();
        let ended = catch_unwind(AssertUnwindSafe(|| self.enter_until_the_end(immediate_exit)));
        let death = ended.unwrap_or_else(|panic| Some((DeathReason::Panic(panic_text(&*panic)), None)));
        if let Some((reason, registers)) = death {
            let registers = registers.unwrap_or_else(|| Box::new(Registers::read(&self.locked())));
            self.control.end();
            self.events.died(VcpuDeath { vcpu: self.number, reason, registers });
        }
        self.control.end();
    }

    fn enter_until_the_end(&self, immediate_exit: &ImmediateExit) -> Option<(DeathReason, Option<Box<Registers>>)> {
        let mut stuck = Stuck::default();
        loop {
            // Before the look: a wish that comes after it sets the flag again.
            immediate_exit.clear();
            let next = self.control.look();
            match next {
                Next::Enter => {}
                // The guest sees the answer, and runs no further than that.
                Next::Retire => immediate_exit.set(),
                Next::End => return None,
            }
            match self.enter() {
                Exit::Answered => self.control.set_pending(true),
                Exit::Interrupted => {
                    self.counters.interrupted.count();
                    self.control.set_pending(false);
                }
                Exit::Again(reason) => {
                    self.control.set_pending(false);
                    self.counters.retries.count();
                    let registers = self.locked().get_regs().unwrap_or_default();
                    if !stuck.try_again(registers) {
                        return Some((reason, None));
                    }
                    thread::sleep(RETRY_PAUSE);
                }
                Exit::Death(reason, registers) => return Some((reason, registers)),
            }
        }
    }

    fn enter(&self) -> Exit {
        let mut fd = self.locked();
        let (exits, counters) = (self.events.exits(), &self.counters);
        let reason = match fd.run() {
            Ok(VcpuExit::MmioRead(hpa, to)) => {
                counters.mmio_reads.count();
                exits.mmio_read(Hpa(hpa), to);
                return Exit::Answered;
            }
            Ok(VcpuExit::MmioWrite(hpa, from)) => {
                counters.mmio_writes.count();
                exits.mmio_write(Hpa(hpa), from);
                return Exit::Answered;
            }
            Ok(VcpuExit::IoIn(port, to)) => {
                counters.port_reads.count();
                port_read(exits, port, to);
                return Exit::Answered;
            }
            Ok(VcpuExit::IoOut(port, from)) => {
                counters.port_writes.count();
                let from = from.to_vec();
                return self.port_write(&fd, port, &from);
            }
            Ok(VcpuExit::Intr) => return Exit::Interrupted,
            Ok(VcpuExit::Shutdown) => DeathReason::Shutdown,
            Ok(VcpuExit::FailEntry(reason, cpu)) => DeathReason::FailEntry { reason, cpu },
            Ok(VcpuExit::InternalError) => return internal_error(&mut fd),
            Ok(VcpuExit::MemoryFault { gpa, .. }) => {
                return Exit::Again(DeathReason::MemoryFault { hpa: Some(Hpa(gpa)) });
            }
            Ok(exit) => DeathReason::UnknownExit(format!("{exit:?}")),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => return Exit::Interrupted,
                libc::EFAULT => return Exit::Again(DeathReason::MemoryFault { hpa: None }),
                code => DeathReason::Kvm(code),
            },
        };
        Exit::Death(reason, None)
    }

    fn port_write(&self, fd: &VcpuFd, port: u16, from: &[u8]) -> Exit {
        match self.events.own_port(self.number, port, &|| Registers::read(fd)) {
            OwnPort::Taken => Exit::Answered,
            OwnPort::Death(reason, registers) => Exit::Death(reason, Some(registers)),
            OwnPort::Foreign => {
                if is_one_access(from.len()) {
                    self.events.exits().port_write(port, from);
                }
                Exit::Answered
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, VcpuFd> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// String instructions come with all their bytes; nothing here has a port for them.
fn is_one_access(len: usize) -> bool {
    matches!(len, 1 | 2 | 4)
}

fn port_read(exits: &dyn Exits, port: u16, to: &mut [u8]) {
    if is_one_access(to.len()) {
        exits.port_read(port, to);
    } else {
        to.fill(0xff);
    }
}

fn internal_error(fd: &mut VcpuFd) -> Exit {
    let run = fd.get_kvm_run();
    // SAFETY: the exit's reason is an internal error, so this is the field that the kernel has filled.
    let suberror = unsafe { run.__bindgen_anon_1.internal }.suberror;
    let reason = DeathReason::InternalError { suberror };
    if suberror == KVM_INTERNAL_ERROR_EMULATION { Exit::Again(reason) } else { Exit::Death(reason, None) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest that meets a gap now and then, for hours, is not stuck.
    #[test]
    fn an_instruction_that_got_on_has_all_its_tries_again() {
        let registers = |rcx| kvm_regs { rcx, ..Default::default() };
        let mut stuck = Stuck::default();
        assert!((0..1_000).all(|rcx| stuck.try_again(registers(rcx))));
        assert!((0..RETRIES).all(|_| stuck.try_again(registers(7))));
        assert!(!stuck.try_again(registers(7)));
    }
}
