//! The virtual machine that KVM keeps: its slots, its interrupt controllers, what it can do.
//!
//! ```text
//!  /dev/kvm ─▶ Vm ─┬─ Hypervisor: slots          (memory)
//!                  ├─ Interrupts: MSI by irqfd
//!                  └─ Machine: vCPUs
//! ```
//!
//! It is made before the machine, because slots and interrupts are there before the processors. The local APICs are in the
//! kernel, everything older (PIC, I/O APIC, PIT) is not there at all. Deliberately absent: who decides what is in a slot.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    CpuId, KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY, KVM_X86_QUIRK_SLOT_ZAP_ALL, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use memory::{Hypervisor, SlotAccess, SlotLog, SlotRegion};
use vmm_sys_util::errno;

const DEVICE: &str = "/dev/kvm";
/// Pages that Intel's processors need for guests in real mode, below the end of 4 GiB where nothing else is.
const TASK_STATE_PAGES: usize = 0xfffb_d000;
const IDENTITY_MAP_PAGE: u64 = 0xfffb_c000;
/// Routes that the kernel keeps for an I/O APIC outside it; there is none.
const IO_APIC_PINS: u64 = 24;

/// Why there is no KVM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{DEVICE} cannot be used: {doing}: {reason}")]
pub struct Unavailable {
    /// What was tried.
    pub doing: &'static str,
    /// What the host said.
    pub reason: String,
}

/// Who runs ring 0 of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtualization {
    /// The processor (Intel VMX).
    Vmx,
    /// The processor (AMD SVM).
    Svm,
    /// An interpreter of KVM's; ring 3 is native (kvm_pvm).
    Software,
    /// The host does not say.
    Unknown,
}

/// What this host's KVM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who runs ring 0.
    pub virtualization: Virtualization,
    /// Memory slots of a VM.
    pub slot_limit: u32,
    /// vCPUs of a VM.
    pub vcpu_limit: u32,
    /// Bits of a physical address.
    pub physical_bits: u32,
    /// Whether a slot that goes leaves the others' pages mapped.
    pub slots_go_alone: bool,
}

impl fmt::Display for Virtualization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vmx => "Intel VMX",
            Self::Svm => "AMD SVM",
            Self::Software => "software KVM: ring 0 interpreted, ring 3 native",
            Self::Unknown => "an unknown kind of virtualization",
        })
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} slots, {} bits of physical addresses",
            self.virtualization, self.slot_limit, self.physical_bits
        )
    }
}

/// Opens KVM, creates a VM and a vCPU, and says what it found.
pub fn probe() -> Result<Facts, Unavailable> {
    let vm = Vm::create()?;
    vm.create_vcpu(0).map_err(|error| unavailable("create a vCPU", error))?;
    Ok(vm.facts)
}

/// A virtual machine.
pub struct Vm {
    vm: VmFd,
    facts: Facts,
    cpuid: CpuId,
    /// vCPUs that were made ahead, by their numbers from 0 on; `None` where one has its thread.
    ahead: Mutex<Vec<Option<VcpuFd>>>,
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Vm {
    /// Creates a virtual machine without memory and vCPUs.
    pub fn create() -> Result<Self, Unavailable> {
        let kvm = Kvm::new().map_err(|error| unavailable("open it", error))?;
        let version = kvm.get_api_version();
        if version != kvm_bindings::KVM_API_VERSION as i32 {
            return Err(Unavailable { doing: "ask for its version", reason: format!("it is {version}, not 12") });
        }
        let vm = kvm.create_vm().map_err(|error| unavailable("create a VM", error))?;
        // Only processors without unrestricted guests want these, and they say so later by a vCPU that does not start.
        let _ = vm.set_identity_map_address(IDENTITY_MAP_PAGE);
        let _ = vm.set_tss_address(TASK_STATE_PAGES);
        let split = capability(KVM_CAP_SPLIT_IRQCHIP, IO_APIC_PINS);
        vm.enable_cap(&split).map_err(|error| unavailable("create local APICs", error))?;
        let slots_go_alone = disable_slot_zap_all(&vm);
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let cpuid = cpuid.map_err(|error| unavailable("ask for CPUID", error))?;
        let facts = Facts {
            virtualization: virtualization(),
            slot_limit: kvm.get_nr_memslots() as u32,
            vcpu_limit: kvm.get_max_vcpus() as u32,
            physical_bits: physical_bits(&cpuid),
            slots_go_alone,
        };
        Ok(Self { vm, facts, cpuid, ahead: Mutex::default() })
    }

    /// The same with so many vCPUs, which wait for [`crate::Machine::new`]: for who starts a machine whose state he has yet to
    /// read.
    ///
    /// # Errors
    ///
    /// As [`Vm::create`].
    pub fn create_with(vcpus: u32) -> Result<Self, Unavailable> {
        let vm = Self::create()?;
        let made = (0..vcpus).map(|number| vm.create_vcpu(number).map(Some)).collect::<Result<_, _>>();
        *vm.ahead() = made.map_err(|error| unavailable("create a vCPU", error))?;
        Ok(vm)
    }

    /// What this host's KVM is.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    pub(crate) fn fd(&self) -> &VmFd {
        &self.vm
    }

    fn ahead(&self) -> MutexGuard<'_, Vec<Option<VcpuFd>>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vCPU with its CPUID.
    pub(crate) fn create_vcpu(&self, number: u32) -> Result<VcpuFd, errno::Error> {
        if let Some(vcpu) = self.ahead().get_mut(number as usize).and_then(Option::take) {
            return Ok(vcpu);
        }
        let vcpu = self.vm.create_vcpu(number.into())?;
        let mut cpuid = self.cpuid.clone();
        for entry in cpuid.as_mut_slice() {
            match entry.function {
                1 => entry.ebx = entry.ebx & 0x00ff_ffff | number << 24,
                0xb | 0x1f => entry.edx = number,
                _ => {}
            }
        }
        vcpu.set_cpuid2(&cpuid)?;
        Ok(vcpu)
    }
}

impl Hypervisor for Vm {
    fn slot_limit(&self) -> u32 {
        self.facts.slot_limit
    }

    unsafe fn set_slot(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()> {
        // SAFETY: the caller promises that the memory stays mapped until the slot is cleared or the VM is gone.
        unsafe { self.vm.set_user_memory_region(slot(number, region, log)) }.map_err(io_error)
    }

    unsafe fn set_log(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()> {
        // SAFETY: the caller promises that the region is the slot's: only its flags change.
        unsafe { self.vm.set_user_memory_region(slot(number, region, log)) }.map_err(io_error)
    }

    // Plain: it protects the pages again at once. With KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 that would be a call of its own
    // for each stretch that was copied, which only pays where copying takes much longer than the guest's next store.
    unsafe fn dirty_log(&self, number: u32, len_bytes: u64) -> io::Result<Vec<u64>> {
        // The kernel writes as many bits as the slot has pages: that is why the length is the caller's promise.
        self.vm.get_dirty_log(number, len_bytes as usize).map_err(io_error)
    }

    fn clear_slot(&self, number: u32) -> io::Result<()> {
        let slot = kvm_userspace_memory_region { slot: number, ..Default::default() };
        // SAFETY: a length of 0 shows the guest less memory than before, none of it new.
        unsafe { self.vm.set_user_memory_region(slot) }.map_err(io_error)
    }
}

/// A slot as KVM is told of it.
fn slot(number: u32, region: SlotRegion, log: SlotLog) -> kvm_userspace_memory_region {
    let SlotRegion { hpa, len_bytes, host_address, access } = region;
    let access = match access {
        SlotAccess::ReadWrite => 0,
        SlotAccess::ReadOnly => KVM_MEM_READONLY,
    };
    let log = match log {
        SlotLog::Off => 0,
        SlotLog::On => KVM_MEM_LOG_DIRTY_PAGES,
    };
    kvm_userspace_memory_region {
        slot: number,
        flags: access | log,
        guest_phys_addr: hpa.0,
        memory_size: len_bytes,
        userspace_addr: host_address as u64,
    }
}

pub(crate) fn io_error(error: errno::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

fn unavailable(doing: &'static str, error: errno::Error) -> Unavailable {
    Unavailable { doing, reason: error.to_string() }
}

fn capability(cap: u32, argument: u64) -> kvm_enable_cap {
    kvm_enable_cap { cap, args: [argument, 0, 0, 0], ..Default::default() }
}

/// Without this a slot that goes takes every page of every other slot with it, and the guest faults them all in again.
fn disable_slot_zap_all(vm: &VmFd) -> bool {
    let known = vm.check_extension_raw(KVM_CAP_DISABLE_QUIRKS2.into());
    let quirk = KVM_X86_QUIRK_SLOT_ZAP_ALL;
    known > 0 && known as u32 & quirk != 0 && vm.enable_cap(&capability(KVM_CAP_DISABLE_QUIRKS2, quirk.into())).is_ok()
}

/// The module that runs vCPUs has a folder of its own.
fn virtualization() -> Virtualization {
    let modules =
        [("kvm_intel", Virtualization::Vmx), ("kvm_amd", Virtualization::Svm), ("kvm_pvm", Virtualization::Software)];
    let loaded = modules.into_iter().find(|(name, _)| Path::new("/sys/module").join(name).exists());
    loaded.map_or(Virtualization::Unknown, |(_, kind)| kind)
}

/// CPUID 8000_0008h; 36 where it does not say.
fn physical_bits(cpuid: &CpuId) -> u32 {
    let entry = cpuid.as_slice().iter().find(|entry| entry.function == 0x8000_0008);
    entry.map_or(36, |entry| entry.eax & 0xff)
}
