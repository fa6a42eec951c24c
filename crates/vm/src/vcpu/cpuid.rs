//! What a vCPU says that it can do, and whether a host can do as much.
//!
//! A guest that has looked once relies on what it saw. So the entries are kept with its registers, and on another host it sees
//! the same ones again, if that host has all the features in them. Deliberately absent: caches, topology and names, of which
//! nothing depends on the host.

use std::fmt;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

/// One of the registers that CPUID fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A register of CPUID, with features that the guest saw and the host lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeatures {
    function: u32,
    index: u32,
    register: Register,
    bits: u32,
}

impl fmt::Display for MissingFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, index, register, bits } = self;
        write!(f, "bits {bits:#x} of {register} of CPUID {function:#x}.{index}")
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        })
    }
}

impl Register {
    fn of(self, entry: &kvm_cpuid_entry2) -> u32 {
        match self {
            Self::Eax => entry.eax,
            Self::Ebx => entry.ebx,
            Self::Ecx => entry.ecx,
            Self::Edx => entry.edx,
        }
    }
}

/// Function, index, and register whose bits are features (SDM volume 2, CPUID; APM volume 3, appendix E; KVM's own).
const FEATURES: [(u32, u32, Register); 20] = [
    (1, 0, Register::Ecx),
    (1, 0, Register::Edx),
    (7, 0, Register::Ebx),
    (7, 0, Register::Ecx),
    (7, 0, Register::Edx),
    (7, 1, Register::Eax),
    (7, 1, Register::Ebx),
    (7, 1, Register::Ecx),
    (7, 1, Register::Edx),
    (7, 2, Register::Edx),
    (0xd, 0, Register::Eax),
    (0xd, 0, Register::Edx),
    (0xd, 1, Register::Eax),
    (0xd, 1, Register::Ecx),
    (0x4000_0001, 0, Register::Eax),
    (0x8000_0001, 0, Register::Ecx),
    (0x8000_0001, 0, Register::Edx),
    (0x8000_0007, 0, Register::Edx),
    (0x8000_0008, 0, Register::Ebx),
    (0x8000_0021, 0, Register::Eax),
];

/// What a vCPU says, as the host keeps it.
pub(crate) fn read(fd: &VcpuFd) -> Result<Vec<kvm_cpuid_entry2>, errno::Error> {
    Ok(fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES)?.as_slice().iter().map(settled).collect())
}

/// Makes a vCPU say what it said when it was saved.
pub(super) fn write(fd: &VcpuFd, entries: &[kvm_cpuid_entry2]) -> Result<(), errno::Error> {
    if read(fd)? == entries {
        return Ok(());
    }
    let entries = CpuId::from_entries(entries).map_err(|_| errno::Error::new(libc::E2BIG))?;
    fd.set_cpuid2(&entries)
}

/// The first features that `seen` has and `offered` lacks.
pub(crate) fn missing(seen: &[kvm_cpuid_entry2], offered: &[kvm_cpuid_entry2]) -> Option<MissingFeatures> {
    let value = |entries: &[kvm_cpuid_entry2], function, index, register: Register| {
        let entry = entries.iter().find(|entry| entry.function == function && entry.index == index);
        entry.map_or(0, |entry| register.of(entry))
    };
    FEATURES.into_iter().find_map(|(function, index, register)| {
        let bits = value(seen, function, index, register) & !value(offered, function, index, register);
        (bits != 0).then_some(MissingFeatures { function, index, register, bits })
    })
}

/// An entry without what follows from other registers of the vCPU, and changes with them: OSXSAVE, MONITOR, whether the
/// local APIC is on, OSPKE, and the length of the XSAVE area in use.
fn settled(entry: &kvm_cpuid_entry2) -> kvm_cpuid_entry2 {
    let mut entry = *entry;
    match (entry.function, entry.index) {
        (1, _) => {
            entry.ecx &= !(1 << 27 | 1 << 3);
            entry.edx &= !(1 << 9);
        }
        (7, 0) => entry.ecx &= !(1 << 4),
        (0xd, 0 | 1) => entry.ebx = 0,
        _ => {}
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ecx, ..Default::default() }
    }

    #[test]
    fn what_a_host_lacks_is_named() {
        let seen = [entry(1, 0, 0x8000_0201), entry(7, 0, 0x10), entry(4, 1, 0xff)];
        assert_eq!(missing(&seen, &seen), None);
        assert_eq!(missing(&seen, &[entry(1, 0, u32::MAX), entry(7, 0, u32::MAX)]), None, "more is no matter");
        let missing = |offered: &[_]| missing(&seen, offered).map(|missing| missing.to_string());
        assert_eq!(
            missing(&[entry(1, 0, 1), entry(7, 0, 0x10)]).as_deref(),
            Some("bits 0x80000200 of ECX of CPUID 0x1.0")
        );
        assert_eq!(missing(&[entry(1, 0, u32::MAX)]).as_deref(), Some("bits 0x10 of ECX of CPUID 0x7.0"));
    }

    #[test]
    fn what_other_registers_decide_is_no_difference() {
        let on = |ecx| settled(&entry(1, 0, ecx));
        assert_eq!(on(1 << 27 | 1 << 3 | 1), on(1));
        assert_ne!(on(3), on(1));
    }
}
