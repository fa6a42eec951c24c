//! Real vCPUs. The tests need /dev/kvm and say so where there is none; with DCD_REQUIRE_KVM=1 that is a failure.

mod deaths;
mod dirty;
mod discovery;
mod interrupts;
mod jobs;
mod life;
mod rig;
mod slots;
mod states;
