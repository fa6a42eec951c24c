//! Snapshots: what a VM was, it is again, in this process and in others.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::{Accel, GuestProgram, Loading, RestoreOptions, SaveForm, SaveRequest, Saved, SnapshotError};
use driver::Policy;
use vm::{AccessWidth, Job, JobAnswer};
use wire::Hpa;

use crate::kvm;
use crate::program::{GIB, MIB, TAG0, TAG1, add_arguments, printed};
use crate::vm::{InProcess, Wanted};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn save(vm: &InProcess, name: &str, form: SaveForm) -> Result<Saved, SnapshotError> {
    let request = SaveRequest { name: name.parse().expect("a name"), form, by_reference: vec![] };
    vm.runtime.block_on(vm.vm.save_snapshot(request, Arc::new(|_, _| ())))
}

pub(crate) fn restore(snapshot: PathBuf, loading: Loading) -> Option<RestoreOptions> {
    Some(RestoreOptions { snapshot, loading })
}

/// Where the snapshots of a VM of a test are.
pub(crate) fn snapshots(vm: &InProcess) -> PathBuf {
    vm.dir.path().join("journal/snapshots")
}

/// A VM whose guest, the image's driver, has accepted an extent of 64 MiB at the window's begin.
pub(crate) fn with_extent(vcpus: u32) -> InProcess {
    let accel = Accel::Kvm { vcpus };
    let vm = InProcess::start(Wanted { accel, guest: GuestProgram::from(Policy::Accept), ..Wanted::default() });
    accept(&vm, "tm0", TAG0, 0);
    vm
}

/// The guest accepts a backend of 64 MiB at a device-physical address.
pub(crate) fn accept(vm: &InProcess, id: &str, tag: &str, dpa: u64) {
    vm.object_add(id, tag, 64 * MIB);
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(tag, &[(dpa, 64 * MIB)])).expect("an offer");
    wait_for(|| vm.state(tag) == "accepted");
}

pub(crate) fn wait_for(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it takes too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn window(vm: &InProcess) -> Hpa {
    vm.vm.window().base()
}

pub(crate) fn job(vm: &InProcess, vcpu: u32, job: Job) -> JobAnswer {
    vm.vm.machine().expect("a guest on KVM").job(vcpu, job, PATIENCE).expect("an answer")
}

pub(crate) fn fill(vm: &InProcess, at: Hpa, seed: u64) {
    assert_eq!(job(vm, 0, Job::Fill { hpa: at, len_bytes: 64 * MIB, seed }), JobAnswer::Done);
}

pub(crate) fn assert_filled(vm: &InProcess, at: Hpa, seed: u64) {
    let check = Job::Check { hpa: at, len_bytes: 64 * MIB, seed };
    assert_eq!(job(vm, 0, check), JobAnswer::FirstWrong(None));
}

#[test]
fn a_restored_guest_sees_its_bytes_and_answers_what_is_offered_next() {
    if !kvm::is_there() {
        return;
    }
    for loading in [Loading::Eager, Loading::Lazy] {
        let vm = with_extent(1);
        fill(&vm, window(&vm), 7);
        let saved = save(&vm, "first", SaveForm::Full).expect("saved");
        assert!(saved.parent.is_none() && saved.contents_bytes >= 64 * MIB, "{saved:?}");
        eprintln!("{loading:?}: pause {:?}, {} bytes", saved.pause, saved.contents_bytes);
        // What comes after the snapshot is not in it.
        fill(&vm, window(&vm), 8);
        let path = snapshots(&vm).join("first");
        let other = InProcess::start(Wanted {
            accel: Accel::Kvm { vcpus: 1 },
            guest: GuestProgram::from(Policy::Accept),
            restore: restore(path, loading),
            ..Wanted::default()
        });
        assert_eq!(other.state(TAG0), "accepted");
        assert_filled(&other, window(&other), 7);
        assert_filled(&vm, window(&vm), 8);
        // Its next event, interrupt, mailbox commands and accesses.
        accept(&other, "tm1", TAG1, 64 * MIB);
        let behind = Hpa(window(&other).0 + 64 * MIB);
        fill(&other, behind, 9);
        assert_filled(&other, behind, 9);
        other.end();
        vm.end();
    }
}

#[test]
fn a_second_snapshot_copies_what_has_changed_and_is_as_whole_as_the_first() {
    if !kvm::is_there() {
        return;
    }
    let vm = with_extent(1);
    fill(&vm, window(&vm), 1);
    save(&vm, "full", SaveForm::Incremental).expect("saved");
    let at = Hpa(window(&vm).0 + 5 * MIB);
    job(&vm, 0, Job::Write { hpa: at, width: AccessWidth::Qword, value: 0x1234 });
    let saved = save(&vm, "next", SaveForm::Incremental).expect("saved");
    assert_eq!(saved.parent.as_deref(), Some("full"));
    assert!(saved.contents_bytes < 4 * MIB, "{saved:?}");
    let other = InProcess::start(Wanted {
        accel: Accel::Kvm { vcpus: 1 },
        guest: GuestProgram::from(Policy::Accept),
        restore: restore(snapshots(&vm).join("next"), Loading::Lazy),
        ..Wanted::default()
    });
    let read = |at| job(&other, 0, Job::Read { hpa: at, width: AccessWidth::Qword });
    assert_eq!(read(at), JobAnswer::Value(0x1234));
    job(&other, 0, Job::Write { hpa: at, width: AccessWidth::Qword, value: vm::pattern_word(1, 5 * MIB / 8) });
    assert_filled(&other, window(&other), 1);
    other.end();
    vm.end();
}

#[test]
fn a_loaded_snapshot_takes_the_vm_back_and_keeps_what_was_until_then() {
    if !kvm::is_there() {
        return;
    }
    let vm = with_extent(2);
    fill(&vm, window(&vm), 1);
    let saved = save(&vm, "before", SaveForm::Full).expect("saved");
    fill(&vm, window(&vm), 2);
    accept(&vm, "tm1", TAG1, 64 * MIB);
    let loaded = vm.runtime.block_on(vm.vm.load_snapshot("before")).expect("loaded");
    assert_eq!(loaded.last, saved.last);
    assert_eq!(vm.qmp("query-memdev", serde_json::json!({})).expect("a list").as_array().map(Vec::len), Some(1));
    assert_filled(&vm, window(&vm), 1);
    // The same again, in the timeline that begins there.
    accept(&vm, "tm1", TAG1, 64 * MIB);
    let past = vm.dir.path().join("journal/past/000001");
    assert!(journal::read(&past).expect("an ordinary journal").last > saved.last);
    vm.end();
}

/// Seen as: the journal named the one that it had superseded, which began behind the records that were asked for.
#[test]
fn a_journal_that_goes_back_behind_the_begin_of_another_names_the_one_that_has_its_past() {
    let vm = InProcess::start(Wanted { durability: journal::Durability::Process, ..Wanted::default() });
    save(&vm, "early", SaveForm::Full).expect("saved");
    vm.object_add("tm0", TAG0, 4 * MIB);
    save(&vm, "late", SaveForm::Full).expect("saved");
    vm.object_add("tm1", TAG1, 4 * MIB);
    let dir = vm.dir.path().join("journal");
    let mut pasts = Vec::new();
    for name in ["late", "early", "late", "late"] {
        let loaded = vm.runtime.block_on(vm.vm.load_snapshot(name)).expect("loaded");
        vm.object_add("more", TAG1, 4 * MIB);
        assert_eq!(journal::sealed_files(&dir).expect("listable")[0].last, loaded.last, "it begins there");
        pasts.push(loaded.past.expect("a past"));
    }
    assert_eq!(pasts, ["past/000001", "past/000002", "past/000003", "past/000004"], "where each was moved to");
    let home = vm.dir.path().to_owned();
    let told = |journal: &str| printed(&["replay", home.join(journal).to_str().expect("a path")]);
    let begins = |name: &str, holder: &str| format!(": restored from snapshot {name} of {holder}\n");
    for (journal, name, holder) in [
        ("journal/past/000002", "late", "past/000001"),
        // Behind the begin of 000002.
        ("journal/past/000003", "early", "past/000001"),
        // 000003 begins early, and has what is new since; 000004 has nothing that the last one shares with it.
        ("journal/past/000004", "late", "past/000003"),
    ] {
        assert!(told(journal).contains(&begins(name, holder)), "{journal}: {}", told(journal));
    }
    // Asked in one that is past, it is found beside it.
    let path = home.join("journal/past/000002");
    let why = printed(&["why", "backends.tm0.created", "--journal", path.to_str().expect("a path")]);
    let there = home.join("journal/past/000001");
    let asked = format!("ask there: dcd why backends.tm0.created --journal {} --at ", there.display());
    let command = why.lines().find_map(|line| line.strip_prefix("ask there: dcd ")).expect("a command");
    assert!(why.contains(&asked), "{why}");
    let answered = printed(&command.split(' ').collect::<Vec<_>>());
    assert!(answered.contains("object-add tm0"), "{answered}");
    vm.end();
}

#[test]
fn a_pulse_is_not_noticed() {
    if !kvm::is_there() {
        return;
    }
    let vm = with_extent(2);
    fill(&vm, window(&vm), 3);
    for round in 0..10 {
        vm.runtime.block_on(vm.vm.pulse()).expect("pulsed");
        assert_filled(&vm, window(&vm), 3);
        if round == 4 {
            accept(&vm, "tm1", TAG1, 64 * MIB);
        }
    }
    vm.end();
}

/// The path of the snapshot in which the test below finds its VM.
const SNAPSHOT: &str = "DCD_TEST_SNAPSHOT";
const SWEPT_BYTES: u64 = GIB;
const SEED: u64 = 11;

/// Two VMs of one process; one is saved in the middle of its guest's sweep, and another process ends the sweep.
#[test]
fn a_sweep_that_was_begun_here_ends_in_another_process_with_every_byte_right() {
    if !kvm::is_there() {
        return;
    }
    let bystander = with_extent(1);
    fill(&bystander, window(&bystander), 5);
    let accel = Accel::Kvm { vcpus: 1 };
    let vm = InProcess::start(Wanted { accel, guest: GuestProgram::from(Policy::Accept), ..Wanted::default() });
    vm.object_add("tm0", TAG0, SWEPT_BYTES);
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, SWEPT_BYTES)])).expect("an offer");
    wait_for(|| vm.state(TAG0) == "accepted");
    let sweep = Job::Fill { hpa: window(&vm), len_bytes: SWEPT_BYTES, seed: SEED };
    let running = vm.vm.machine().expect("a guest on KVM").start_job(0, sweep).expect("a job");
    wait_for(|| vm.backend_bytes("tm0", 4 * MIB, 8) != [0; 8]);
    let saved = save(&vm, "midway", SaveForm::Full).expect("saved");
    let is_midway = running.wait(Duration::ZERO).is_err();
    eprintln!("midway: {is_midway}; {saved:?}");
    assert!(is_midway, "the sweep had ended before the snapshot: {saved:?}");
    let status = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "restoring::the_other_process", "--include-ignored", "--nocapture"])
        .env(SNAPSHOT, snapshots(&vm).join("midway"))
        .status();
    assert!(status.expect("a process").success(), "the other process has failed");
    running.wait(PATIENCE).expect("the sweep ends here too");
    assert_filled(&bystander, window(&bystander), 5);
    bystander.end();
    vm.end();
}

#[test]
#[ignore = "it is the other process of the test above"]
fn the_other_process() {
    let Some(snapshot) = env::var_os(SNAPSHOT) else { return };
    let vm = InProcess::start(Wanted {
        accel: Accel::Kvm { vcpus: 1 },
        guest: GuestProgram::from(Policy::Accept),
        restore: restore(Path::new(&snapshot).to_owned(), Loading::Lazy),
        ..Wanted::default()
    });
    let sweep = Job::Fill { hpa: window(&vm), len_bytes: SWEPT_BYTES, seed: SEED };
    let machine = vm.vm.machine().expect("a guest on KVM");
    let running = machine.adopt_job(0, sweep).expect("the sweep is under way");
    assert_eq!(running.wait(PATIENCE).expect("its end"), JobAnswer::Done);
    let check = Job::Check { hpa: window(&vm), len_bytes: SWEPT_BYTES, seed: SEED };
    assert_eq!(job(&vm, 0, check), JobAnswer::FirstWrong(None));
    drop(machine);
    accept(&vm, "tm1", TAG1, SWEPT_BYTES);
    vm.end();
}
