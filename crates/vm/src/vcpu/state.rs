//! All that a vCPU is while it stands still, in a form that can be kept.
//!
//! Model specific registers are those that KVM lists and lets read; on the way back one that has its value already is left
//! alone, because some can be read but not written. The time stamp counter comes last, so that it has not run far.
//! Deliberately absent: CPUID, which is the host's.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};
use vmm_sys_util::errno;

const TIME_STAMP_COUNTER: u32 = 0x10;
/// Set with the special registers.
const APIC_BASE: u32 = 0x1b;
const EFER: u32 = 0xc000_0080;

/// A vCPU that stands still.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    /// The XSAVE area in words.
    xsave: Vec<u32>,
    xcrs: Option<kvm_xcrs>,
    debug_regs: kvm_debugregs,
    msrs: Vec<kvm_msr_entry>,
    lapic: kvm_lapic_state,
    events: kvm_vcpu_events,
    mp_state: kvm_mp_state,
}

/// Why a vCPU does not take a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
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
    /// The state has another number of vCPUs.
    #[error("the state is of {saved} vCPUs, the machine has {vcpus}: start it with as many")]
    Vcpus {
        /// vCPUs of the state.
        saved: usize,
        /// vCPUs of the machine.
        vcpus: usize,
    },
}

/// All that `fd` is. `msrs` are the model specific registers that there may be.
pub(crate) fn save(fd: &VcpuFd, msrs: &[u32]) -> Result<VcpuState, errno::Error> {
    Ok(VcpuState {
        // First: it makes KVM put what is on its way to the vCPU into the other parts.
        mp_state: fd.get_mp_state()?,
        regs: fd.get_regs()?,
        sregs: fd.get_sregs()?,
        xsave: fd.get_xsave()?.region.to_vec(),
        // Where the host has none, the guest has none.
        xcrs: fd.get_xcrs().ok(),
        debug_regs: fd.get_debug_regs()?,
        lapic: fd.get_lapic()?,
        msrs: msrs.iter().filter_map(|index| Some(msr_entry(*index, get_msr(fd, *index)?))).collect(),
        events: fd.get_vcpu_events()?,
    })
}

/// Makes `fd` what another was.
pub(crate) fn load(fd: &VcpuFd, vcpu: u32, state: &VcpuState) -> Result<(), LoadError> {
    let part = |what, done: Result<(), errno::Error>| {
        done.map_err(|error| LoadError::Part { vcpu, what, reason: error.to_string() })
    };
    part("special registers", fd.set_sregs(&state.sregs))?;
    part("registers", fd.set_regs(&state.regs))?;
    if let Some(xcrs) = &state.xcrs {
        part("extended control registers", fd.set_xcrs(xcrs))?;
    }
    let mut xsave = kvm_xsave::default();
    xsave.region.iter_mut().zip(&state.xsave).for_each(|(to, word)| *to = *word);
    // SAFETY: no feature whose state needs more than the 4 KiB of this struct is enabled for this process.
    part("FPU", unsafe { fd.set_xsave(&xsave) })?;
    part("debug registers", fd.set_debug_regs(&state.debug_regs))?;
    part("local APIC", fd.set_lapic(&state.lapic))?;
    let (time, others): (Vec<_>, Vec<_>) = state.msrs.iter().partition(|msr| msr.index == TIME_STAMP_COUNTER);
    others.into_iter().chain(time).try_for_each(|msr| load_msr(fd, vcpu, msr))?;
    part("pending events", fd.set_vcpu_events(&state.events))?;
    part("run state", fd.set_mp_state(state.mp_state))
}

/// The model specific registers of a vCPU that are worth to be kept, of those that the host lists.
pub(crate) fn readable_msrs(fd: &VcpuFd, listed: &[u32]) -> Vec<u32> {
    let is_separate = |index: u32| index == APIC_BASE || index == EFER;
    listed.iter().copied().filter(|index| !is_separate(*index) && get_msr(fd, *index).is_some()).collect()
}

fn load_msr(fd: &VcpuFd, vcpu: u32, msr: &kvm_msr_entry) -> Result<(), LoadError> {
    if get_msr(fd, msr.index) == Some(msr.data) {
        return Ok(());
    }
    let set = Msrs::from_entries(&[*msr]).ok().and_then(|msrs| fd.set_msrs(&msrs).ok());
    if set == Some(1) { Ok(()) } else { Err(LoadError::Msr { vcpu, index: msr.index, value: msr.data }) }
}

fn get_msr(fd: &VcpuFd, index: u32) -> Option<u64> {
    let mut msrs = Msrs::from_entries(&[msr_entry(index, 0)]).ok()?;
    let read = fd.get_msrs(&mut msrs).ok()?;
    msrs.as_slice().first().filter(|_| read == 1).map(|entry| entry.data)
}

fn msr_entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry { index, data, ..Default::default() }
}
