//! How a vCPU ended that nobody stopped.

use std::fmt;

use kvm_ioctls::VcpuFd;
use wire::Hpa;

/// A vCPU that ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuDeath {
    /// Which.
    pub vcpu: u32,
    /// Why.
    pub reason: DeathReason,
    /// Its registers then.
    pub registers: Box<Registers>,
}

/// Why a vCPU ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeathReason {
    /// The guest met an exception that it does not handle.
    GuestFault {
        /// The exception's vector.
        vector: u64,
        /// Its error code; 0 where it has none.
        error_code: u64,
    },
    /// The guest panicked, and said this.
    GuestPanic(String),
    /// An exception without a handler, thrice.
    Shutdown,
    /// The processor did not take the guest's state.
    FailEntry {
        /// The processor's reason.
        reason: u64,
        /// The host's processor.
        cpu: u32,
    },
    /// KVM could not go on.
    InternalError {
        /// KVM's number for it; 1: an instruction that it cannot interpret.
        suberror: u32,
    },
    /// Memory of this process that a slot shows is not there.
    MemoryFault {
        /// Where the guest would see it, if KVM says.
        hpa: Option<Hpa>,
    },
    /// KVM came back with something that no guest of ours does.
    UnknownExit(String),
    /// KVM refused to run it, with this error number.
    Kvm(i32),
    /// The vCPU's thread panicked in this process, and said this.
    Panic(String),
}

/// The registers of a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    pub general: [u64; 15],
    /// The instruction.
    pub rip: u64,
    /// The stack.
    pub rsp: u64,
    /// The flags.
    pub rflags: u64,
    /// The code segment; its lowest two bits are the ring.
    pub cs: u64,
    /// The stack segment.
    pub ss: u64,
    /// The address of the last page fault.
    pub cr2: u64,
    /// The page tables.
    pub cr3: u64,
}

const NAMES: [&str; 15] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

impl Registers {
    /// As KVM has them; zeros where it does not say.
    pub(super) fn read(fd: &VcpuFd) -> Self {
        let (regs, sregs) = (fd.get_regs().unwrap_or_default(), fd.get_sregs().unwrap_or_default());
        Self {
            general: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.r8, regs.r9, regs.r10,
                regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            rip: regs.rip,
            rsp: regs.rsp,
            rflags: regs.rflags,
            cs: sregs.cs.selector.into(),
            ss: sregs.ss.selector.into(),
            cr2: sregs.cr2,
            cr3: sregs.cr3,
        }
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rip={:#x} rsp={:#x} rflags={:#x} cs={:#x} ss={:#x}",
            self.rip, self.rsp, self.rflags, self.cs, self.ss
        )?;
        write!(f, " cr2={:#x} cr3={:#x}", self.cr2, self.cr3)?;
        NAMES.iter().zip(self.general).try_for_each(|(name, value)| write!(f, " {name}={value:#x}"))
    }
}

impl fmt::Display for DeathReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestFault { vector, error_code } => {
                write!(f, "the guest met {} (vector {vector}, error code {error_code:#x})", exception(*vector))
            }
            Self::GuestPanic(text) => write!(f, "the guest panicked: {text}"),
            Self::Shutdown => f.write_str("the guest met an exception while it met another, and shut down"),
            Self::FailEntry { reason, cpu } => write!(f, "processor {cpu} did not enter the guest: reason {reason:#x}"),
            Self::InternalError { suberror: 1 } => f.write_str("KVM cannot interpret the guest's instruction"),
            Self::InternalError { suberror } => write!(f, "KVM could not go on: internal error {suberror}"),
            Self::MemoryFault { hpa: Some(hpa) } => write!(f, "there is no memory behind the slot at {hpa}"),
            Self::MemoryFault { hpa: None } => f.write_str("there is no memory behind the slot that the guest touched"),
            Self::UnknownExit(exit) => write!(f, "KVM came back with {exit}"),
            Self::Kvm(code) => write!(f, "KVM refused to run it: {}", std::io::Error::from_raw_os_error(*code)),
            Self::Panic(text) => write!(f, "its thread panicked: {text}"),
        }
    }
}

impl fmt::Display for VcpuDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vCPU {} ended: {}; {}", self.vcpu, self.reason, self.registers)
    }
}

fn exception(vector: u64) -> &'static str {
    match vector {
        0 => "a division by zero",
        1 => "a debug exception",
        2 => "a non-maskable interrupt",
        3 => "a breakpoint",
        6 => "an invalid instruction",
        8 => "a double fault",
        10..=12 => "a segment fault",
        13 => "a general protection fault",
        14 => "a page fault",
        16 | 19 => "a floating-point exception",
        17 => "a misaligned access",
        18 => "a machine check",
        _ => "an exception",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_says_who_why_and_where() {
        let registers = Registers { rip: 0x20_1234, cr2: 0xdead_0000, ..Registers::default() };
        let reason = DeathReason::GuestFault { vector: 14, error_code: 6 };
        let text = VcpuDeath { vcpu: 3, reason, registers: Box::new(registers) }.to_string();
        assert!(
            text.starts_with("vCPU 3 ended: the guest met a page fault (vector 14, error code 0x6); rip=0x201234 ")
        );
        assert!(text.contains(" cr2=0xdead0000 ") && text.ends_with(" r15=0x0"), "{text}");
    }
}
