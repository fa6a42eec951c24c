//! All that a vCPU is while it stands still, in a form that can be kept.
//!
//! ```text
//!  save  run state ─▶ registers, XSAVE, XCRs, debug ─▶ CPUID ─▶ local APIC ─▶ MSRs ─▶ events
//!  load  CPUID ─▶ special registers, registers, XCRs, XSAVE, debug ─▶ local APIC ─▶ MSRs, time last ─▶ events ─▶ run state
//! ```
//!
//! Model specific registers are those that KVM lists and lets read; on the way back one that has its value already is left
//! alone, because some can be read but not written. What was sent to the vCPU before the save is in its local APIC then: a
//! message by an irqfd is put there by whoever writes the eventfd. A timer that has expired and was not delivered expires
//! again at the load, by KVM. Deliberately absent: nested virtualization, and XSAVE areas of more than 4 KiB.

use driver::HpaRange;
use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

use super::cpuid::{self, MissingFeatures};
use super::msrs;
use crate::vm::Virtualization;

/// Words of an XSAVE area.
pub(crate) const XSAVE_WORDS: usize = 1024;

/// A vCPU that stands still.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VcpuState {
    pub(crate) cpuid: Vec<kvm_cpuid_entry2>,
    pub(crate) regs: kvm_regs,
    pub(crate) sregs: kvm_sregs,
    pub(crate) xsave: [u32; XSAVE_WORDS],
    pub(crate) xcrs: Option<kvm_xcrs>,
    pub(crate) debug_regs: kvm_debugregs,
    pub(crate) msrs: Vec<kvm_msr_entry>,
    pub(crate) lapic: kvm_lapic_state,
    pub(crate) events: kvm_vcpu_events,
    pub(crate) mp_state: kvm_mp_state,
}

/// Why a machine does not take a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Host and guest of the state agreed on something else.
    #[error(
        "the state is of a guest image of ABI {saved}, and this build's images are of ABI {known}: use the build that wrote it"
    )]
    GuestAbi {
        /// The state's.
        saved: u32,
        /// This build's.
        known: u32,
    },
    /// The state is of another kind of KVM.
    #[error("the state was saved on {saved}, and this host has {here}: load it on a host of that kind")]
    Virtualization {
        /// Where it was saved.
        saved: Virtualization,
        /// Here.
        here: Virtualization,
    },
    /// The state has another number of vCPUs.
    #[error("the state is of {saved} vCPUs, the machine has {vcpus}: start it with as many")]
    Vcpus {
        /// vCPUs of the state.
        saved: usize,
        /// vCPUs of the machine.
        vcpus: usize,
    },
    /// The guest of the state has its RAM laid out for another machine.
    #[error(
        "the guest of the state leaves {:#x} bytes of RAM from {} on alone, and one of this machine {:#x} from {} on: give it the memory and the windows that it had",
        saved.size_bytes, saved.base, here.size_bytes, here.base
    )]
    Layout {
        /// What the state's guest leaves alone.
        saved: HpaRange,
        /// What a guest of this machine does.
        here: HpaRange,
    },
    /// The host's processor can less.
    #[error("vCPU {vcpu} has seen what this host does not have: {missing}; load it on a host with the same features")]
    Features {
        /// Which vCPU.
        vcpu: u32,
        /// The features.
        missing: MissingFeatures,
    },
    /// KVM refuses a part.
    #[error("KVM does not take the {what} of vCPU {vcpu}: {reason}")]
    Part {
        /// Which vCPU.
        vcpu: u32,
        /// The part.
        what: &'static str,
        /// What it said.
        reason: String,
    },
    /// KVM refuses a model specific register.
    #[error("KVM does not take {value:#x} for model specific register {index:#x} of vCPU {vcpu}")]
    Msr {
        /// Which vCPU.
        vcpu: u32,
        /// The register.
        index: u32,
        /// Its value.
        value: u64,
    },
}

/// All that `fd` is. `kept` are the model specific registers that there may be.
pub(crate) fn save(fd: &VcpuFd, kept: &[u32]) -> Result<VcpuState, errno::Error> {
    Ok(VcpuState {
        // First: it makes KVM put what is on its way to the vCPU into the other parts.
        mp_state: fd.get_mp_state()?,
        cpuid: cpuid::read(fd)?,
        regs: fd.get_regs()?,
        sregs: fd.get_sregs()?,
        xsave: fd.get_xsave()?.region,
        // Where the host has none, the guest has none.
        xcrs: fd.get_xcrs().ok(),
        debug_regs: fd.get_debug_regs()?,
        lapic: fd.get_lapic()?,
        msrs: msrs::read(fd, kept),
        events: fd.get_vcpu_events()?,
    })
}

/// Makes `fd` what another was.
pub(crate) fn load(fd: &VcpuFd, vcpu: u32, state: &VcpuState) -> Result<(), LoadError> {
    let part = |what, done: Result<(), errno::Error>| {
        done.map_err(|error| LoadError::Part { vcpu, what, reason: error.to_string() })
    };
    let VcpuState { cpuid, regs, sregs, xsave, xcrs, debug_regs, msrs, lapic, events, mp_state } = state;
    part("CPUID", cpuid::write(fd, cpuid))?;
    part("special registers", fd.set_sregs(sregs))?;
    part("registers", fd.set_regs(regs))?;
    if let Some(xcrs) = xcrs {
        part("extended control registers", fd.set_xcrs(xcrs))?;
    }
    let xsave = kvm_xsave { region: *xsave, ..Default::default() };
    // SAFETY: no feature whose state needs more than the 4 KiB of this struct is enabled for this process.
    part("FPU", unsafe { fd.set_xsave(&xsave) })?;
    part("debug registers", fd.set_debug_regs(debug_regs))?;
    part("local APIC", fd.set_lapic(lapic))?;
    let refused = |kvm_msr_entry { index, data, .. }| LoadError::Msr { vcpu, index, value: data };
    msrs::write(fd, msrs).map_err(refused)?;
    part("pending events", fd.set_vcpu_events(events))?;
    part("run state", fd.set_mp_state(*mp_state))
}
