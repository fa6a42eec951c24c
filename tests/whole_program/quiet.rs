//! Quiet: whatever comes while a VM is saved, loaded or pulsed waits its turn, and nothing slips in between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actors::{Accel, GuestProgram, Loading, RunState, SaveForm};
use driver::Policy;
use journal::Durability;
use memory::HostMemory;
use serde_json::{Value, json};
use snapshot::{Snapshot, Store};
use vm::{Job, JobAnswer};

use crate::kvm;
use crate::plug::call;
use crate::program::{Client, MIB, Program, TAG0, TAG1, add_arguments, printed, release_arguments};
use crate::restoring::{accept, fill, job, restore, save, snapshots, wait_for, window};
use crate::traffic::Dice;
use crate::vm::{InProcess, Wanted};

const PATIENCE: Duration = Duration::from_secs(60);
const SEED: u64 = 31;

fn started(accel: Accel) -> InProcess {
    InProcess::start(Wanted {
        accel,
        free_ports: 1,
        guest: GuestProgram::from(Policy::Accept),
        durability: Durability::Process,
        ..Wanted::default()
    })
}

/// Seen as: a pulse in the middle of a save ended the slots by which the save knew what the guest writes, and what the guest
/// wrote in its next life was not in the snapshot.
#[test]
fn a_pulse_never_falls_into_a_save() {
    if !kvm::is_there() {
        return;
    }
    const SWEPT_BYTES: u64 = 512 * MIB;
    let vm = started(Accel::Kvm { vcpus: 1 });
    vm.object_add("tm0", TAG0, SWEPT_BYTES);
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, SWEPT_BYTES)])).expect("an offer");
    wait_for(|| vm.state(TAG0) == "accepted");
    let sweep = Job::Fill { hpa: window(&vm), len_bytes: SWEPT_BYTES, seed: SEED };
    // All of its pages are there, so that there is something to copy.
    assert_eq!(job(&vm, 0, Job::Fill { hpa: window(&vm), len_bytes: SWEPT_BYTES, seed: SEED + 1 }), JobAnswer::Done);
    drop(vm.vm.machine().expect("a guest on KVM").start_job(0, sweep.clone()).expect("a job"));
    let saved = thread::scope(|scope| {
        let saving = scope.spawn(|| save(&vm, "swept", SaveForm::Full).expect("saved"));
        while !saving.is_finished() {
            vm.runtime.block_on(vm.vm.pulse()).expect("pulsed");
        }
        saving.join().expect("saved")
    });
    eprintln!("{saved:?}");
    let other = InProcess::start(Wanted {
        accel: Accel::Kvm { vcpus: 1 },
        guest: GuestProgram::from(Policy::Accept),
        free_ports: 1,
        restore: restore(snapshots(&vm).join("swept"), Loading::Lazy),
        ..Wanted::default()
    });
    // It may have been done when it was saved.
    if let Some(running) = other.vm.machine().expect("a guest on KVM").adopt_job(0, sweep) {
        assert_eq!(running.wait(PATIENCE).expect("its end"), JobAnswer::Done);
    }
    let check = Job::Check { hpa: window(&other), len_bytes: SWEPT_BYTES, seed: SEED };
    assert_eq!(job(&other, 0, check), JobAnswer::FirstWrong(None));
    other.end();
    vm.end();
}

/// What changes in a guest between two links of a chain: by its processors, its driver, its operators, its resets, its
/// devices, its lives.
fn change(vm: &InProcess, dice: &mut Dice) {
    let device = json!({"driver": "cxl-type3", "id": "d1", "dc-regions-total-size": 256 * MIB});
    match dice.roll(7) {
        0 => drop(call(vm, "system_reset", json!({}))),
        1 => {
            call(vm, "device_add", device).expect("plugged");
            call(vm, "device_del", json!({"id": "d1", "force": true})).expect("unplugged");
        }
        2 => vm.runtime.block_on(vm.vm.pulse()).expect("pulsed"),
        3 => {
            // A page here and there, of the window and of RAM, by whoever is on the bus.
            let mut bus = vm.vm.bus();
            let at = wire::Hpa(window(vm).0 + dice.roll(64 * MIB / 8) * 8);
            driver::Bus::write(&mut bus, at, &dice.roll(u64::MAX).to_le_bytes());
        }
        4 => {
            drop(call(vm, "cxl-release-dynamic-capacity", release_arguments(TAG0)));
            wait_for(|| vm.state(TAG0) == "released");
            call(vm, "cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, 64 * MIB)])).expect("an offer");
            wait_for(|| vm.state(TAG0) == "accepted");
        }
        5 => {
            drop(call(vm, "object-del", json!({"id": "tm1"})));
            drop(call(vm, "object-add", backend("tm1", TAG1, 4 * MIB)));
        }
        _ => {
            // The guest answers its next events; a reset before may have left it at its begin.
            let served = || vm.runtime.block_on(vm.vm.guest()).expect("a VM");
            wait_for(|| served().is_some_and(|guest| matches!(guest, actors::Guest::Serving { .. })));
        }
    }
}

fn backend(id: &str, tag: &str, size_bytes: u64) -> Value {
    json!({"qom-type": "memory-backend-ram", "id": id, "size": size_bytes, "tag": tag})
}

/// Whatever has changed the guest since the link before.
#[test]
fn a_link_of_a_chain_has_every_byte_of_its_moment() {
    if !kvm::is_there() {
        return;
    }
    let vm = started(Accel::Kvm { vcpus: 2 });
    accept(&vm, "tm0", TAG0, 0);
    let mut dice = Dice(0x5eed << 20);
    for link in 0..6 {
        fill(&vm, window(&vm), link);
        for _ in 0..3 {
            change(&vm, &mut dice);
        }
        wait_for(|| vm.state(TAG0) == "accepted");
        vm.runtime.block_on(vm.vm.set_run_state(RunState::Paused)).expect("a VM");
        let linked = save(&vm, &format!("link{link}"), SaveForm::Incremental).expect("saved");
        assert_eq!(linked.parent.is_some(), link > 0);
        let store = Store::open(&snapshots(&vm)).expect("a store");
        check_link(&vm, &store.snapshot(&linked.name.parse().expect("a name")).expect("whole"));
        vm.runtime.block_on(vm.vm.set_run_state(RunState::Running)).expect("a VM");
    }
    vm.end();
}

/// The link is what the memories are now.
pub(crate) fn check_link(vm: &InProcess, link: &Snapshot) {
    for memory in link.memories() {
        let now = match memory.id.as_str().strip_prefix("backend-") {
            None => Arc::clone(vm.vm.platform().ram()),
            Some(id) => vm.runtime.block_on(vm.vm.memory_of(id)).expect("a VM").expect("a backend"),
        };
        let saved = HostMemory::anonymous(memory.len_bytes).expect("memory");
        link.load(&memory.id, &saved, &mut |_, _| ()).expect("its bytes");
        assert_eq!(difference(&saved, &now), None, "{} of {}", memory.id, link.name());
    }
}

/// The first page in which two memories differ.
fn difference(one: &HostMemory, other: &HostMemory) -> Option<u64> {
    let ranges = |memory: &HostMemory| memory.data_ranges().expect("ranges").into_iter();
    let pages: BTreeSet<u64> = ranges(one).chain(ranges(other)).flat_map(|range| range.step_by(4096)).collect();
    let page = |memory: &HostMemory, at: u64| {
        let mut bytes = [0; 4096];
        memory.read(at, &mut bytes).expect("inside");
        bytes
    };
    pages.into_iter().find(|at| page(one, *at) != page(other, *at))
}

/// Seen as: a write to the MSI-X table that came when a reset was decided and before it showed was in the device's state and in
/// none of its registers; the next pulse found them to differ, and ended the VM.
#[test]
fn a_write_and_a_reset_never_cross() {
    let vm = InProcess::start(Wanted {
        guest: GuestProgram::from(Policy::Accept),
        // A reset shows when it is on the disk, which leaves room for a write.
        durability: Durability::Disk,
        ..Wanted::default()
    });
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..2 {
            let (vm, is_over) = (&vm, &is_over);
            scope.spawn(move || {
                let mut dice = Dice(number << 33 | 5);
                while !is_over.load(Ordering::Relaxed) {
                    let mut bus = vm.vm.bus();
                    let at = wire::Hpa(platform::MMIO_BASE.0 + dice.roll(0x3_0000 / 4) * 4);
                    driver::Bus::write(&mut bus, at, &dice.roll(u64::MAX).to_le_bytes()[..4]);
                }
            });
        }
        for _ in 0..40 {
            call(&vm, "system_reset", json!({})).expect("reset");
            let pulsed = vm.runtime.block_on(vm.vm.pulse());
            is_over.store(pulsed.is_err(), Ordering::Relaxed);
            pulsed.expect("registers and state agree");
            thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    vm.end();
}

/// What somebody does again and again.
type Deed<'a> = (&'static str, Box<dyn Fn(&mut Dice) -> Result<(), String> + Sync + 'a>);

fn deeds(vm: &InProcess) -> Vec<Deed<'_>> {
    let ask = move |command: &str, arguments: Value| call(vm, command, arguments).map(drop);
    let snapshot = |dice: &mut Dice| format!("s{}", dice.roll(3));
    let device = json!({"driver": "cxl-type3", "id": "d1", "dc-regions-total-size": 256 * MIB});
    let long = json!({"qom-type": "memory-backend-ram", "id": "long", "size": 64 * MIB, "prealloc": true});
    vec![
        ("stop", Box::new(move |_| ask("stop", json!({})).and(ask("cont", json!({}))))),
        ("reset", Box::new(move |_| ask("system_reset", json!({})))),
        ("plug", Box::new(move |_| ask("device_add", device.clone()))),
        ("unplug", Box::new(move |_| ask("device_del", json!({"id": "d1", "force": true})))),
        ("prealloc", Box::new(move |_| ask("object-add", long.clone()).and(ask("object-del", json!({"id": "long"}))))),
        ("add", Box::new(move |_| ask("cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, 4 * MIB)])))),
        ("release", Box::new(move |_| ask("cxl-release-dynamic-capacity", release_arguments(TAG0)))),
        ("pulse", Box::new(move |_| vm.runtime.block_on(vm.vm.pulse()).map_err(|error| error.to_string()))),
        (
            "save",
            Box::new(move |dice| {
                let form = if dice.roll(2) == 0 { SaveForm::Full } else { SaveForm::Incremental };
                save(vm, &snapshot(dice), form).map(drop).map_err(|error| error.to_string())
            }),
        ),
        (
            "load",
            Box::new(move |dice| {
                let loaded = vm.runtime.block_on(vm.vm.load_snapshot(&snapshot(dice)));
                loaded.map(drop).map_err(|error| error.to_string())
            }),
        ),
        (
            "delete",
            Box::new(move |dice| {
                let deleted = vm.runtime.block_on(vm.vm.delete_snapshot(&snapshot(dice)));
                deleted.map_err(|error| error.to_string())
            }),
        ),
        (
            "kick",
            Box::new(move |_| {
                if let Some(machine) = vm.vm.machine() {
                    machine.kick(0);
                }
                Ok(())
            }),
        ),
    ]
}

/// How long everything is done at once.
const RACE: Duration = Duration::from_secs(3);

/// All at once, again and again: nothing waits for ever, the VM does not stop, and its guest serves what comes then.
#[test]
fn everything_at_once_waits_its_turn() {
    for accel in [Accel::Soft, Accel::Kvm { vcpus: 2 }] {
        if accel != Accel::Soft && !kvm::is_there() {
            continue;
        }
        let vm = started(accel);
        vm.object_add("tm0", TAG0, 4 * MIB);
        let deeds = deeds(&vm);
        let (is_over, done) = (AtomicBool::new(false), deeds.iter().map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        thread::scope(|scope| {
            for (number, ((name, deed), done)) in (1..).zip(deeds.iter().zip(&done)) {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut dice = Dice(number << 30);
                    while !is_over.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        match deed(&mut dice) {
                            Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                            Err(refused) => assert!(!refused.contains("the VM has stopped"), "{name}: {refused}"),
                        }
                        assert!(begun.elapsed() < PATIENCE, "{name} took {:?}", begun.elapsed());
                        thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            thread::sleep(RACE);
            is_over.store(true, Ordering::Relaxed);
        });
        let done: Vec<_> = deeds.iter().zip(&done).map(|((name, _), n)| (*name, n.load(Ordering::Relaxed))).collect();
        drop(deeds);
        eprintln!("{accel}: {done:?}");
        // Whether there is something to offer or to release is up to the others.
        assert!(done.iter().all(|(name, n)| *n > 0 || ["add", "release"].contains(name)), "{done:?}");
        assert_eq!(*vm.vm.fatal().borrow(), None);
        vm.qmp("cont", json!({})).expect("running");
        call(&vm, "system_reset", json!({})).expect("reset");
        vm.object_add("after", TAG1, 4 * MIB);
        call(&vm, "cxl-add-dynamic-capacity", add_arguments(TAG1, &[(8 * MIB, 4 * MIB)])).expect("an offer");
        wait_for(|| vm.state(TAG1) == "accepted");
        vm.end();
    }
}

/// Offers and releases until the program is gone.
fn cycle_to_the_end(mut client: Client) {
    let asked = |answer: Option<Result<Value, String>>| answer.is_some();
    let backend = backend("tm0", TAG0, 2 * MIB);
    let mut goes_on = asked(client.try_execute("object-add", backend));
    while goes_on {
        goes_on = asked(client.try_execute("cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, 2 * MIB)])))
            && asked(client.try_execute("cxl-release-dynamic-capacity", release_arguments(TAG0)));
    }
}

/// A life that had just begun would be nobody's to stop: its guest would run on without a journal.
#[test]
fn no_life_begins_when_the_vm_has_ended() {
    let mut dice = Dice(91 << 20);
    for _ in 0..20 {
        let InProcess { runtime, vm, service, bus, dir } = started(Accel::Soft);
        drop((service, bus));
        thread::scope(|scope| {
            // Until there is nothing left to pulse.
            scope.spawn(|| while runtime.block_on(vm.pulse()).is_ok() {});
            thread::sleep(Duration::from_micros(dice.roll(20_000)));
            runtime.block_on(vm.clone().shutdown());
        });
        let mut bus = vm.bus();
        assert_eq!(driver::Bus::read64(&mut bus, wire::Hpa(0)), u64::MAX, "its guest has no memory any more");
        drop(dir);
    }
}

/// Seen as: the guest still ran when the actors had ended, and its doorbell stopped a VM that was about to end well.
#[test]
fn a_program_that_is_told_to_end_ends_cleanly_whatever_it_is_about() {
    let mut dice = Dice(77 << 20);
    for round in 0..8 {
        let dir = tempfile::tempdir().expect("a directory");
        let program = Program::start(dir.path(), &["--pulse", "1", "--durability", "process", "--memory", "256M"]);
        let (mut client, journal) = (program.client(), program.journal());
        let job = |id: &str| json!({"job-id": id, "tag": "s0"});
        client.execute("snapshot-save", job("j0")).expect("begun");
        let traffic = program.client();
        let said = thread::scope(|scope| {
            scope.spawn(|| cycle_to_the_end(traffic));
            thread::sleep(Duration::from_millis(20 + dice.roll(60)));
            client.execute("snapshot-load", job("j1")).expect("begun");
            thread::sleep(Duration::from_micros(dice.roll(20_000)));
            program.terminate_saying()
        });
        assert!(!said.contains("ERROR") && !said.contains("--pulse"), "round {round}: {said}");
        let replayed = printed(&["replay", journal.to_str().expect("a path")]);
        assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
    }
}
