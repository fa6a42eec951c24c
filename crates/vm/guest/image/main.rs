//! The guest: `crates/driver` on a processor of its own, and jobs that the host asks for.
//!
//! ```text
//!  host sets registers ─▶ start (ring 3) ─┬─ vCPU 0 with a policy: rounds of the driver, jobs in between
//!                                         └─ any other: jobs, parked in between
//! ```
//!
//! Everything but the stubs in `ring0` runs in ring 3, with memory mapped to itself and every port open. What cannot go
//! on is told to the host, by a fault's frame or a panic's text. Deliberately absent: a kernel.
#![no_std]
#![no_main]

extern crate alloc;

mod access;
mod bus;
mod clock;
mod jobs;
mod pages;
mod ring0;
mod rounds;
mod runtime_functions;

use core::panic::PanicInfo;

use driver::Policy;
use guest::place::PORT_PANIC;
use guest::{BOOT_MAGIC, place};
use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Manual;

use crate::access::tell;
use crate::pages::{Boot, Vcpu};

#[global_allocator]
static HEAP: TalcLock<RawSpinlock, Manual> = TalcLock::new(Manual);

/// Where the host lets each vCPU begin, in ring 3 with its own stack and its number as the first argument.
// SAFETY: no other symbol of this program has the name.
#[unsafe(no_mangle)]
extern "C" fn start(number: u32) -> ! {
    let (boot, vcpu) = (Boot, Vcpu::new(number));
    let page = boot.page();
    assert_eq!(page.magic, BOOT_MAGIC, "the host has filled no boot page of this ABI");
    if number == 0 {
        let (base, len) = (page.heap_base as *mut u8, page.heap_len_bytes as usize);
        // SAFETY: the host gives these bytes to the heap and to nothing else, and only vCPU 0 claims them.
        let claimed = unsafe { HEAP.lock().claim(base, len) };
        assert!(claimed.is_some(), "a heap of {len} bytes is too small");
        if let Some(policy) = page.policy.checked_sub(1).and_then(|index| Policy::ALL.get(index as usize)) {
            rounds::run(boot, vcpu, *policy);
        }
    }
    loop {
        let seen = vcpu.interrupts();
        jobs::serve(vcpu);
        vcpu.park(seen, 0);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let vcpu = Vcpu::new(this_vcpu());
    vcpu.write_panic(info);
    tell(PORT_PANIC);
    loop {
        vcpu.park(vcpu.interrupts(), 0);
    }
}

/// Each vCPU has a stack of its own.
fn this_vcpu() -> u32 {
    let here = 0u8;
    let offset = (&raw const here as u64).saturating_sub(place::RING3_STACKS_SEEN_AT);
    (offset / place::RING3_STACK_STRIDE_BYTES) as u32
}
