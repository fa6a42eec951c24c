//! All that runs in ring 0: the stub of every vector, and what they jump to.
//!
//! ```text
//!  vector ≥ 20h  count it in the vCPU page, acknowledge it (x2APIC), iretq
//!  #GP at `hlt`  park: nothing was counted since `seen` ─▶ arm the timer, sti; hlt; then past the `hlt`, iretq
//!  any other     out PORT_FAULT with every register as it was and the frame on the stack; hlt for ever
//! ```
//!
//! On software KVM ring 0 is interpreted, without SSE: assembly only, and few instructions. Deliberately absent: `int`,
//! `syscall`, page faults that are handled.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use guest::VcpuPage;
use guest::place::{IMAGE_MAGIC, PORT_FAULT, RING0_STACK_END, VCPU_PAGE, VECTOR_DEVICES, VECTOR_SPURIOUS};

const STUB_STRIDE_BYTES: usize = 16;
const GENERAL_PROTECTION: u32 = 13;
const FIRST_INTERRUPT: u32 = 0x20;
/// x2APIC registers as model specific registers (SDM volume 3, 12.12.1).
const X2APIC_EOI: u32 = 0x80b;
const X2APIC_TIMER_COUNT: u32 = 0x838;

global_asm!(
    ".pushsection .image_header, \"aw\"",
    ".quad {magic}, stubs, {stride}",
    ".popsection",
    ".pushsection .text.ring0, \"ax\"",
    // Exceptions with an error code push it themselves; the others get a 0, so that all frames are alike.
    ".balign 16",
    "stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign {stride}",
    ".if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21 && vector != 29 && vector != 30",
    "push 0",
    ".endif",
    ".if vector < {first_interrupt}",
    "push vector",
    "jmp fault",
    ".elseif vector == {spurious}",
    "add rsp, 8",
    "iretq",
    ".else",
    "push vector",
    "jmp interrupt",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
    // An interrupt, of ring 3 or of a park. The stack: vector, 0, rip, cs, rflags, rsp, ss.
    "interrupt:",
    "push rax",
    "push rcx",
    "push rdx",
    "mov rax, rsp",
    "and rax, -{block}",
    "inc qword ptr [rax + {interrupts}]",
    "cmp qword ptr [rsp + 24], {devices}",
    "jb 2f",
    "inc qword ptr [rax + {device_interrupts}]",
    "2:",
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, {eoi}",
    "wrmsr",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    // An exception. The stack: vector, error code, rip, cs, rflags, rsp, ss.
    "fault:",
    "cmp qword ptr [rsp], {general_protection}",
    "jne 3f",
    "push rax",
    "lea rax, [rip + park_hlt]",
    "cmp qword ptr [rsp + 24], rax",
    "pop rax",
    "je 4f",
    "3:",
    "out {fault_port}, al",
    "cli",
    "hlt",
    "jmp 3b",
    // A park: rdi is what was counted when ring 3 looked, rsi how long in nanoseconds or 0. Interrupts are off, so what
    // is counted now cannot be missed.
    "4:",
    "add rsp, 16",
    "inc qword ptr [rsp]",
    "mov rax, rsp",
    "and rax, -{block}",
    "cmp qword ptr [rax + {interrupts}], rdi",
    "jne 6f",
    "test esi, esi",
    "jz 5f",
    "mov eax, esi",
    "xor edx, edx",
    "mov ecx, {timer_count}",
    "wrmsr",
    "5:",
    "sti",
    "hlt",
    "cli",
    "test esi, esi",
    "jz 6f",
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, {timer_count}",
    "wrmsr",
    "6:",
    "iretq",
    // Ring 3's way in.
    ".global park",
    "park:",
    "park_hlt:",
    "hlt",
    "ret",
    ".popsection",
    magic = const IMAGE_MAGIC,
    stride = const STUB_STRIDE_BYTES,
    first_interrupt = const FIRST_INTERRUPT,
    spurious = const VECTOR_SPURIOUS,
    block = const RING0_STACK_END,
    interrupts = const VCPU_PAGE as usize + offset_of!(VcpuPage, interrupts),
    device_interrupts = const VCPU_PAGE as usize + offset_of!(VcpuPage, device_interrupts),
    devices = const VECTOR_DEVICES,
    eoi = const X2APIC_EOI,
    timer_count = const X2APIC_TIMER_COUNT,
    general_protection = const GENERAL_PROTECTION,
    fault_port = const PORT_FAULT,
);

/// Sleeps until there is an interrupt, or `limit_ns` (0: none) is over; not at all if more than `seen` were counted.
pub(crate) fn park(seen: u64, limit_ns: u32) {
    // SAFETY: `park` changes rax, rcx and rdx in ring 0 and nothing else, and returns by `ret`.
    unsafe {
        asm!(
            "call park",
            in("rdi") seen,
            in("rsi") u64::from(limit_ns),
            out("rax") _,
            out("rcx") _,
            out("rdx") _,
        );
    }
}
