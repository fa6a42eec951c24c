//! Guests on KVM: what their processors see by themselves, and what they cannot do to anybody else.
//!
//! Where there is no `/dev/kvm` these tests say so and pass, unless `DCD_REQUIRE_KVM` is set, as it is in CI.

use std::process::Command;
use std::time::{Duration, Instant};

use actors::{Accel, Fatal, GuestProgram, MachineHandle};
use driver::{Bus, Host, Policy};
use journal::Durability;
use serde_json::json;
use vm::{AccessWidth, Counted, Job, JobAnswer, RunningJob, SweepAccess, Watched};
use wire::{Dpa, Hpa, Opcode};

use crate::program::{GIB, MIB, TAG0, TAG1, add_arguments, release_arguments};
use crate::traffic;
use crate::vm::{DeviceMemory, InProcess, Wanted, update};

const PATIENCE: Duration = Duration::from_secs(30);
const ONES: u64 = u64::MAX;

/// Whether there is KVM here.
pub(crate) fn is_there() -> bool {
    match vm::probe() {
        Ok(_) => true,
        Err(error) => {
            assert!(std::env::var_os("DCD_REQUIRE_KVM").is_none(), "DCD_REQUIRE_KVM is set: {error}");
            eprintln!("not run: {error}");
            false
        }
    }
}

/// A guest with so many processors, and a driver in this process whose accesses are instructions of the first.
struct OnKvm {
    vm: InProcess,
    bus: Box<dyn Bus>,
    host: Host,
}

impl OnKvm {
    fn start(vcpus: u32, wanted: Wanted) -> Self {
        let vm = InProcess::start(Wanted { accel: Accel::Kvm { vcpus }, ..wanted });
        let mut bus: Box<dyn Bus> = Box::new(vm.vm.instruction_bus().expect("a guest on KVM"));
        let host = Host::probe(&mut *bus, &vm.vm.bus().platform_map(), Policy::Accept).expect("a device");
        Self { vm, bus, host }
    }

    /// A backend as long as these extents, which the host accepts.
    fn accepted(&mut self, id: &str, tag: &str, extents: &[(u64, u64)]) {
        self.vm.object_add(id, tag, extents.iter().map(|extent| extent.1).sum());
        self.vm.qmp("cxl-add-dynamic-capacity", add_arguments(tag, extents)).expect("an offer");
        self.host.on_interrupt(&mut *self.bus).expect("an answer");
        assert_eq!(self.vm.state(tag), "accepted");
    }

    fn released(&mut self, tag: &str) {
        self.vm.qmp("cxl-release-dynamic-capacity", release_arguments(tag)).expect("asked");
        self.host.on_interrupt(&mut *self.bus).expect("an answer");
        assert_eq!(self.vm.state(tag), "released");
    }

    fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        self.host.mailbox().execute(&mut *self.bus, opcode, payload).expect("taken")
    }

    fn hpa(&self, dpa: u64) -> Hpa {
        self.host.hpa_of(Dpa(dpa)).expect("decoded")
    }

    fn machine(&self) -> MachineHandle {
        self.vm.vm.machine().expect("a guest on KVM")
    }

    fn begin(&self, vcpu: u32, job: Job) -> RunningJob {
        self.machine().start_job(vcpu, job).expect("a job")
    }

    fn done(&self, vcpu: u32, job: Job) -> JobAnswer {
        self.machine().job(vcpu, job, PATIENCE).expect("an answer")
    }

    fn end(self) {
        drop((self.bus, self.host));
        self.vm.end();
    }
}

fn watched(job: &RunningJob) -> Watched {
    match job.wait(PATIENCE) {
        Ok(JobAnswer::Watched(watched)) => watched,
        other => panic!("{other:?}"),
    }
}

fn counted(job: &RunningJob) -> Counted {
    job.stop();
    match job.wait(PATIENCE) {
        Ok(JobAnswer::Counted(counted)) => counted,
        other => panic!("{other:?}"),
    }
}

/// `query-cpus-fast` once said of every guest that it has no vCPUs: nobody could give their threads cores of their own.
#[test]
fn management_finds_the_threads_of_the_vcpus() {
    if !is_there() {
        return;
    }
    let guest = OnKvm::start(2, Wanted::default());
    let ask = |command, arguments| guest.vm.qmp(command, arguments).expect("an answer");
    assert_eq!(ask("query-kvm", json!({})), json!({"enabled": true, "present": true}));
    let vcpus = ask("query-cpus-fast", json!({}));
    let vcpus = vcpus.as_array().expect("a list");
    assert_eq!(vcpus.len(), 2);
    for (number, vcpu) in vcpus.iter().enumerate() {
        assert_eq!((&vcpu["cpu-index"], &vcpu["target"]), (&json!(number), &json!("x86_64")));
        let name = std::fs::read_to_string(format!("/proc/self/task/{}/comm", vcpu["thread-id"])).expect("a thread");
        assert_eq!(name.trim(), format!("vcpu{number}"));
        let asked = json!({"path": vcpu["qom-path"], "property": "type"});
        assert_eq!(ask("qom-get", asked), "host-x86_64-cpu");
    }
    let listed = ask("qom-list", json!({"path": "/machine/unattached"}));
    assert_eq!(listed[2], json!({"name": "device[1]", "type": "child<host-x86_64-cpu>"}));
    guest.end();

    let soft = InProcess::start(Wanted::default());
    assert_eq!(soft.qmp("query-kvm", json!({})).expect("an answer")["enabled"], false);
    assert_eq!(soft.qmp("query-cpus-fast", json!({})).expect("an answer"), json!([]));
    soft.end();
}

#[test]
fn a_guest_writes_an_extent_with_its_own_stores_and_the_operator_reads_it() {
    if !is_there() {
        return;
    }
    let mut guest = OnKvm::start(1, Wanted::default());
    guest.accepted("tm0", TAG0, &[(GIB, 64 * MIB)]);
    let (hpa, len_bytes, seed) = (guest.hpa(GIB), 64 * MIB, 7);
    let exits = || guest.machine().exit_counts()[0].accesses();
    let before = exits();
    assert_eq!(guest.done(0, Job::Fill { hpa, len_bytes, seed }), JobAnswer::Done);
    assert!(exits() - before < 10, "{} exits for 64 MiB", exits() - before);
    let bytes = guest.vm.backend_bytes("tm0", 8 * MIB, 4096);
    let expected: Vec<_> = (0..4096).map(|at| vm::pattern_byte(seed, 8 * MIB + at)).collect();
    assert_eq!(bytes, expected);
    assert_eq!(guest.done(0, Job::Check { hpa, len_bytes, seed }), JobAnswer::FirstWrong(None));
    let behind = Hpa(hpa.0 + len_bytes);
    assert_eq!(guest.done(0, Job::Read { hpa: behind, width: AccessWidth::Qword }), JobAnswer::Value(ONES));
    guest.end();
}

/// A release takes the guest's access away before its answer leaves: whoever reads in a loop on another processor sees
/// the bytes until then, and ones for ever after.
#[test]
fn after_the_answer_of_a_release_nobody_sees_the_bytes() {
    if !is_there() {
        return;
    }
    let mut guest = OnKvm::start(2, Wanted::default());
    for round in 0..20 {
        guest.accepted("tm0", TAG0, &[(0, 4 * MIB)]);
        let hpa = guest.hpa(2 * MIB);
        let value = 0x1234_0000 + round;
        guest.bus.write64(hpa, value);
        let reader = guest.begin(1, Job::Watch { hpa, until: ONES, allowed: vec![value] });
        guest.released(TAG0);
        // Whatever is loaded from now on is loaded after the answer.
        let late = guest.done(0, Job::Watch { hpa, until: ONES, allowed: vec![value] });
        let JobAnswer::Watched(late) = late else { panic!("{late:?}") };
        assert_eq!((late.loads, late.last), (1, ONES));
        let seen = watched(&reader);
        assert_eq!((seen.others, seen.last), (0, ONES), "{seen:?}");
        guest.vm.qmp("object-del", serde_json::json!({"id": "tm0"})).expect("free");
    }
    guest.end();
}

/// A part goes while another processor stores into what stays: it never reads ones and never loses a store.
#[test]
fn a_partial_release_never_disturbs_the_half_that_stays() {
    if !is_there() {
        return;
    }
    let mut guest = OnKvm::start(2, Wanted::default());
    guest.accepted("tm0", TAG0, &[(0, 128 * MIB)]);
    let writer = guest.begin(1, Job::Count { hpa: guest.hpa(64 * MIB), first: 1 });
    for n in 0..16 {
        for dpa in [n * 2 * MIB, (63 - n) * 2 * MIB] {
            if dpa != 64 * MIB {
                guest.send(Opcode::RELEASE_DC, &update(&[(dpa, 2 * MIB)], 0));
                assert_eq!(guest.bus.read64(guest.host.hpa_of(Dpa(dpa)).expect("decoded")), ONES);
            }
        }
    }
    let counted = counted(&writer);
    assert_eq!((counted.differ, counted.first_different), (0, None));
    assert!(counted.last > 1_000, "{counted:?}");
    let last = u64::from_le_bytes(guest.vm.backend_bytes("tm0", 64 * MIB, 8).try_into().expect("8 bytes"));
    assert_eq!(last, counted.last, "every store is in the backend");
    guest.end();
}

/// A guest that writes into the payload and the registers while commands run: each command is what was there when its
/// doorbell rang, copied once.
#[test]
fn a_guest_that_scribbles_into_the_payload_harms_only_its_own_commands() {
    if !is_there() {
        return;
    }
    let mut guest = OnKvm::start(3, Wanted { durability: Durability::Process, ..Wanted::default() });
    let low = guest.bus.config_read(guest.host.bdf(), 0x18, driver::Width::Dword);
    let device_bar = u64::from(low & !0xf);
    let payload = guest.begin(1, Job::Count { hpa: Hpa(device_bar + 0x1000), first: 1 });
    let control = guest.begin(2, Job::Count { hpa: Hpa(device_bar + 0x1008), first: 1 });
    let mut taken = 0;
    for opcode in [0x4000, 0x4800, 0x4801, 0x0100, 0x0400, 0x4802, 0x4803].into_iter().cycle().take(300) {
        let payload = match opcode {
            0x4802 | 0x4803 => update(&[(0, 2 * MIB)], 0),
            0x4800 => vec![8, 0],
            0x4801 => vec![1, 0, 0, 0, 0, 0, 0, 0],
            0x0100 => vec![4],
            _ => Vec::new(),
        };
        taken += u32::from(guest.host.mailbox().execute(&mut *guest.bus, Opcode(opcode), &payload).is_ok());
    }
    assert!(taken > 50, "only {taken} commands came through");
    counted(&payload);
    counted(&control);
    // Alone again, it is a device as before.
    guest.accepted("tm0", TAG0, &[(0, 2 * MIB)]);
    guest.end();
}

#[test]
fn a_guest_fault_ends_the_vm_and_leaves_its_journal() {
    if !is_there() {
        return;
    }
    let mut guest = OnKvm::start(2, Wanted::default());
    guest.accepted("tm0", TAG0, &[(0, 2 * MIB)]);
    let last = guest.vm.vm.journal_position().0;
    // Beyond everything that the guest's page tables show.
    guest.begin(1, Job::Read { hpa: Hpa(1 << 45), width: AccessWidth::Qword });
    let mut fatal = guest.vm.vm.fatal();
    let reason = guest.vm.runtime.block_on(async {
        let raised = tokio::time::timeout(PATIENCE, fatal.wait_for(Option::is_some)).await.expect("in time");
        raised.expect("a VM").clone().expect("a reason")
    });
    let Fatal::Vcpu { last: after, death } = &reason else { panic!("{reason}") };
    assert_eq!((*after, death.vcpu, death.registers.cr2), (last, 1, 1 << 45));
    let told = reason.to_string();
    assert!(told.contains("a page fault") && told.contains("rip="), "{told}");
    let OnKvm { vm, bus, host } = guest;
    drop((bus, host));
    assert_eq!(vm.close().last().map(|record| record.stamp.seq), Some(last), "the journal is whole");
}

/// More extents than KVM has slots: every one is there, whoever serves it.
#[test]
fn a_hundred_thousand_extents_are_all_there() {
    if !is_there() {
        return;
    }
    const EXTENTS: u64 = 100_000;
    const STRIDE: u64 = 4 * MIB;
    let wanted =
        Wanted { memory: DeviceMemory::PlainOf(512 * GIB), mailbox_payload_bytes: Some(1 << 20), ..Wanted::default() };
    let guest = OnKvm::start(1, wanted);
    // The driver of this process adds them: it is the number that matters here.
    let mut bus = guest.vm.vm.bus();
    let host = &guest.host;
    for first in (0..EXTENTS).step_by(4_000) {
        let extents: Vec<_> = (first..first + 4_000).map(|n| (n * STRIDE, 2 * MIB)).collect();
        guest.vm.qmp("cxl-add-dynamic-capacity", add_arguments("", &extents)).expect("an offer");
        for part in extents.chunks(1_000) {
            let more = u8::from(part.last() != extents.last());
            host.mailbox().execute(&mut bus, Opcode::ADD_DC_RESPONSE, &update(part, more)).expect("accepted");
        }
        clear_events(&mut bus, host);
    }
    let counts = guest.vm.vm.slot_counts().expect("a guest on KVM");
    assert!(u64::from(counts.in_use) > u64::from(counts.limit) / 2, "{counts:?}");
    assert!(counts.in_use <= counts.limit && u64::from(counts.limit) < EXTENTS, "{counts:?}");
    for n in (0..EXTENTS).step_by(997) {
        let hpa = guest.hpa(n * STRIDE + 2 * MIB - 8);
        guest.done(0, Job::Write { hpa, width: AccessWidth::Qword, value: n });
        assert_eq!(guest.vm.backend_bytes("dc", n * STRIDE + 2 * MIB - 8, 8), n.to_le_bytes());
        assert_eq!(guest.done(0, Job::Read { hpa, width: AccessWidth::Qword }), JobAnswer::Value(n));
        assert_eq!(guest.done(0, Job::Read { hpa: Hpa(hpa.0 + 8), width: AccessWidth::Qword }), JobAnswer::Value(ONES));
    }
    let query = guest.vm.qmp("query-cxl-dynamic-capacity", serde_json::json!({"path": "cxl-vmem0"})).expect("a query");
    let trapped = &query["window"]["slots"]["trapped"][0];
    assert_eq!(trapped["reason"], "limit", "{}", query["window"]);
    assert!(trapped["pieces"].as_u64().expect("a number") > 60_000, "{trapped}");
    // Not decided again: laws after each of so many records take minutes.
    drop(bus);
    let OnKvm { vm, bus, host } = guest;
    drop((bus, host));
    vm.close();
}

/// Reads all records and clears them, up to 255 at a time.
fn clear_events(bus: &mut dyn Bus, host: &Host) {
    loop {
        let answer = host.mailbox().execute(bus, Opcode::GET_EVENT_RECORDS, &[4]).expect("records");
        let handles: Vec<_> = answer[32..].chunks(128).map(|record| [record[0x14], record[0x15]]).collect();
        if handles.is_empty() {
            return;
        }
        for some in handles.chunks(255) {
            let payload = [&[4, 0, some.len() as u8, 0, 0, 0], some.as_flattened()].concat();
            host.mailbox().execute(bus, Opcode::CLEAR_EVENT_RECORDS, &payload).expect("cleared");
        }
    }
}

#[test]
fn two_vms_in_one_process_see_their_own_devices() {
    if !is_there() {
        return;
    }
    let mut guests = [OnKvm::start(2, Wanted::default()), OnKvm::start(1, Wanted { regions: 2, ..Wanted::default() })];
    for (seed, guest) in (1..).zip(&mut guests) {
        guest.accepted("tm0", if seed == 1 { TAG0 } else { TAG1 }, &[(0, 8 * MIB)]);
        let hpa = guest.hpa(0);
        guest.done(0, Job::Fill { hpa, len_bytes: 8 * MIB, seed });
    }
    for (seed, guest) in (1..).zip(&guests) {
        let check = Job::Check { hpa: guest.hpa(0), len_bytes: 8 * MIB, seed };
        assert_eq!(guest.done(0, check), JobAnswer::FirstWrong(None));
        assert_eq!(guest.vm.backend_bytes("tm0", 5, 1), [vm::pattern_byte(seed, 5)]);
    }
    guests.into_iter().for_each(OnKvm::end);
}

#[test]
fn stop_and_cont_hold_the_guest_where_it_is() {
    if !is_there() {
        return;
    }
    let mut guest = OnKvm::start(2, Wanted::default());
    guest.accepted("tm0", TAG0, &[(0, 2 * MIB)]);
    let writer = guest.begin(1, Job::Count { hpa: guest.hpa(0), first: 1 });
    let number = || u64::from_le_bytes(guest.vm.backend_bytes("tm0", 0, 8).try_into().expect("8 bytes"));
    for _ in 0..10 {
        guest.vm.qmp("stop", serde_json::json!({})).expect("stopped");
        let deadline = Instant::now() + PATIENCE;
        let mut before = number();
        // The pause follows the answer on a way of its own.
        loop {
            std::thread::sleep(Duration::from_millis(2));
            let now = number();
            if now == before {
                break;
            }
            assert!(Instant::now() < deadline, "it goes on");
            before = now;
        }
        guest.vm.qmp("cont", serde_json::json!({})).expect("running");
        while number() == before {
            assert!(Instant::now() < deadline, "it does not go on");
            std::thread::yield_now();
        }
    }
    assert_eq!(counted(&writer).differ, 0);
    guest.end();
}

#[test]
fn the_journal_of_any_traffic_of_a_guest_on_kvm_decides_again() {
    if !is_there() {
        return;
    }
    for seed in 1..=2 {
        traffic::run(seed, GuestProgram::from(Policy::Accept), Accel::Kvm { vcpus: 1 });
    }
}

const LIVES: usize = 200;

/// In a process of its own: its descriptors, threads and memory are nobody else's.
#[test]
fn two_hundred_lives_leave_nothing_behind() {
    if !is_there() {
        return;
    }
    let this = std::env::current_exe().expect("a path");
    let alone = ["--exact", "kvm::two_hundred_lives_alone", "--ignored", "--nocapture"];
    let output = Command::new(this).args(alone).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "two_hundred_lives_leave_nothing_behind runs it, in a process of its own"]
fn two_hundred_lives_alone() {
    let mut after_twenty = None;
    for life in 1..=LIVES {
        let mut guest = OnKvm::start(1, Wanted { durability: Durability::None, ..Wanted::default() });
        guest.accepted("tm0", TAG0, &[(0, 4 * MIB)]);
        let hpa = guest.hpa(0);
        let sweep = Job::Sweep { hpa, len_bytes: 4 * MIB, stride_bytes: 4096, rounds: 1, access: SweepAccess::Write };
        assert!(matches!(guest.done(0, sweep), JobAnswer::Ticks(_)));
        let OnKvm { vm, bus, host } = guest;
        drop((bus, host));
        vm.close();
        if life == 20 {
            after_twenty = Some((entries("fd"), entries("task"), mapped_kib()));
        }
    }
    let (fds, threads, kib) = after_twenty.expect("more than twenty");
    assert_eq!((entries("fd"), entries("task")), (fds, threads), "descriptors, threads");
    assert!(mapped_kib() < kib + 64 * 1024, "address space grew from {kib} KiB to {} KiB", mapped_kib());
}

fn entries(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("a directory").count()
}

/// Address space in KiB: memory that is not unmapped shows there, touched or not.
fn mapped_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmSize:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
