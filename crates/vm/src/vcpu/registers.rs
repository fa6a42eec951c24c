//! The registers with which a vCPU begins: 64 bits, ring 3, its own stack, its local APIC on.
//!
//! Entering in ring 3 leaves no ring 0 code to run before the driver. Deliberately absent: real mode, protected mode.

use guest::place::{self, GDT, IDT, VECTOR_SPURIOUS, VECTOR_TIMER, vcpu_block};
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, kvm_dtable, kvm_fpu, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

use crate::guest_memory::{GDT_LIMIT, IDT_LIMIT, KERNEL_CODE, TASK_STATE_LIMIT, USER_CODE, USER_DATA};

/// Protected mode, paging, write protection, alignment checks, native FPU errors (SDM volume 3, 2.5).
const CR0: u64 = 0x8005_0033;
/// Physical address extension, SSE and its exceptions.
const CR4: u64 = 0x620;
/// System calls, 64 bits enabled and active, no-execute.
const EFER: u64 = 0xd01;
/// Interrupts on; bit 1 is always set.
const RFLAGS: u64 = 0x202;

/// All floating-point exceptions masked.
const FPU_CONTROL: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

/// The local APIC in x2APIC mode, whose registers ring 0 writes as model specific ones.
const APIC_BASE_X2APIC: u64 = 0xc00;
/// Registers of the local APIC (SDM volume 3, table 12-1) and what is put there.
const APIC_SPURIOUS: usize = 0xf0;
const APIC_SPURIOUS_ENABLE: u32 = 0x100;
const APIC_TIMER: usize = 0x320;
const APIC_TIMER_DIVIDE: usize = 0x3e0;
const APIC_TIMER_DIVIDE_BY_ONE: u32 = 0b1011;

/// Where a vCPU begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootRegisters {
    pub(crate) vcpu: u32,
    pub(crate) entry: u64,
    pub(crate) root_table: u64,
}

/// Puts a vCPU at its begin, whatever it did before.
pub(crate) fn set_boot_registers(fd: &VcpuFd, boot: BootRegisters) -> Result<(), errno::Error> {
    let mut sregs = fd.get_sregs()?;
    set_segments(&mut sregs, boot.vcpu);
    sregs.cr0 = CR0;
    sregs.cr2 = 0;
    sregs.cr3 = boot.root_table;
    sregs.cr4 = CR4;
    sregs.cr8 = 0;
    sregs.efer = EFER;
    sregs.apic_base |= APIC_BASE_X2APIC;
    sregs.interrupt_bitmap = [0; 4];
    fd.set_sregs(&sregs)?;
    // As if called: the stack is aligned to 16 bytes but for the return address.
    let rsp = place::ring3_stack_end(boot.vcpu) - 8;
    fd.set_regs(&kvm_regs { rip: boot.entry, rsp, rdi: boot.vcpu.into(), rflags: RFLAGS, ..Default::default() })?;
    fd.set_fpu(&kvm_fpu { fcw: FPU_CONTROL, mxcsr: MXCSR, ..Default::default() })?;
    let mut apic = fd.get_lapic()?;
    reset_apic(&mut apic);
    fd.set_lapic(&apic)?;
    fd.set_vcpu_events(&Default::default())?;
    fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
}

fn set_segments(sregs: &mut kvm_sregs, vcpu: u32) {
    let data = segment(USER_DATA, 0b0011);
    sregs.cs = kvm_segment { l: 1, db: 0, ..segment(USER_CODE, 0b1011) };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: vcpu_block(vcpu) + place::TASK_STATE,
        limit: TASK_STATE_LIMIT.into(),
        selector: KERNEL_CODE + 0x10,
        type_: 0b1011,
        present: 1,
        ..Default::default()
    };
    sregs.ldt = kvm_segment { unusable: 1, type_: 0b0010, ..Default::default() };
    sregs.gdt = kvm_dtable { base: GDT, limit: GDT_LIMIT, ..Default::default() };
    sregs.idt = kvm_dtable { base: IDT, limit: IDT_LIMIT, ..Default::default() };
}

/// A flat segment of ring 3.
fn segment(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// Nothing requested, nothing in service, the timer a one-shot of the host's nanoseconds.
fn reset_apic(apic: &mut kvm_lapic_state) {
    // In service, trigger mode, requested: 8 registers of 32 bits each, at 16 bytes' distance.
    (0x100..0x280).step_by(16).for_each(|register| set_apic(apic, register, 0));
    set_apic(apic, 0x80, 0);
    set_apic(apic, APIC_SPURIOUS, APIC_SPURIOUS_ENABLE | VECTOR_SPURIOUS);
    set_apic(apic, APIC_TIMER, VECTOR_TIMER);
    set_apic(apic, APIC_TIMER_DIVIDE, APIC_TIMER_DIVIDE_BY_ONE);
    set_apic(apic, 0x380, 0);
}

fn set_apic(apic: &mut kvm_lapic_state, register: usize, value: u32) {
    for (to, byte) in apic.regs[register..register + 4].iter_mut().zip(value.to_le_bytes()) {
        *to = byte as _;
    }
}
