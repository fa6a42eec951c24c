//! A machine that goes on as another.

use std::sync::Arc;
use std::time::Duration;

use vm::{AccessWidth, Interrupts, Job, JobAnswer, MachineError, MachineState, Message};

use crate::needs_kvm;
use crate::rig::{LIMIT, RAM_LEN_BYTES, REGISTERS, Rig, Shown};

/// What a file does to a state.
fn stored(state: &MachineState) -> MachineState {
    let bytes = serde_json::to_vec(state).expect("bytes");
    serde_json::from_slice(&bytes).expect("a state")
}

#[test]
fn a_counter_goes_on_in_another_machine() {
    needs_kvm!();
    let ram = Arc::new(Shown::new(RAM_LEN_BYTES));
    let first = Rig::new(2, Arc::clone(&ram), None);
    first.machine.boot(0).expect("a boot");
    first.machine.run();
    let job = Job::Count { hpa: first.machine.free_ram().base, first: 1 };
    let hpa = first.machine.free_ram().base;
    first.machine.start_job(0, job.clone()).expect("a job");
    assert!(matches!(first.machine.save(), Err(MachineError::Running)));
    std::thread::sleep(Duration::from_millis(20));
    first.machine.pause();
    // One interrupt that the sleeping vCPU has not taken yet.
    let message = Message { address: 0xfee0_1000, data: guest::place::VECTOR_DEVICES };
    Interrupts::new(Arc::clone(&first.vm)).send(message);
    let state = stored(&first.machine.save().expect("a state"));
    let counted = ram.memory.read_u64(hpa.0).expect("RAM");
    drop(first);

    let second = Rig::new(2, Arc::clone(&ram), None);
    second.machine.load(&state, 0).expect("a load");
    let count = second.machine.adopt_job(0, job).expect("the job under way");
    assert_eq!(ram.memory.read_u64(hpa.0), Ok(counted), "it stands still");
    second.machine.run();
    std::thread::sleep(Duration::from_millis(20));
    count.stop();
    let JobAnswer::Counted(answer) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert!(answer.last > counted && answer.differ == 0, "{answer:?} after {counted}");
    let page = guest::place::vcpu_block(1) + guest::place::VCPU_PAGE;
    let taken = std::mem::offset_of!(guest::VcpuPage, device_interrupts) as u64;
    assert_eq!(ram.memory.read_u64(page + taken), Ok(1), "the interrupt came along");
    let read = Job::Read { hpa: REGISTERS, width: AccessWidth::Dword };
    assert!(second.machine.job(1, read, LIMIT).is_ok());
    assert_eq!(second.heard.deaths(), []);
}

#[test]
fn a_state_of_more_vcpus_is_refused() {
    needs_kvm!();
    let ram = Arc::new(Shown::new(RAM_LEN_BYTES));
    let two = Rig::new(2, Arc::clone(&ram), None);
    two.machine.boot(0).expect("a boot");
    let state = two.machine.save().expect("a state");
    let one = Rig::new(1, ram, None);
    let error = one.machine.load(&state, 0).unwrap_err().to_string();
    assert_eq!(error, "the state is of 2 vCPUs, the machine has 1: start it with as many");
}
