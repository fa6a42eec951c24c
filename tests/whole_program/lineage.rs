//! Lineage: a snapshot is built on the one that was saved or loaded last, over any number of lives, and no page that was written
//! is missing in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use actors::{Accel, GuestProgram, RunState, SaveForm, SaveRequest, Saved, SnapshotError};
use driver::Policy;
use memory::HostMemory;
use snapshot::{Snapshot, Store};
use vm::Job;
use wire::Hpa;

use crate::kvm;
use crate::program::{MIB, TAG0};
use crate::quiet::check_link;
use crate::restoring::{accept, fill, save, snapshots, window};
use crate::traffic::Dice;
use crate::vm::{InProcess, Wanted};

/// So much of RAM is written to, from here on: none of it is the guest's own.
const RAM_AT: Hpa = Hpa(512 * MIB);
const RAM_BYTES: u64 = 16 * MIB;
const WINDOW_BYTES: u64 = 64 * MIB;
/// More than the pages that a guest on KVM writes of itself while little is going on.
const LITTLE_BYTES: u64 = 4 * MIB;

fn accels() -> Vec<Accel> {
    let kvm = kvm::is_there().then_some(Accel::Kvm { vcpus: 2 });
    [Accel::Soft].into_iter().chain(kvm).collect()
}

/// A VM whose guest has accepted an extent of 64 MiB.
fn started(accel: Accel) -> InProcess {
    let vm = InProcess::start(Wanted { accel, guest: GuestProgram::from(Policy::Accept), ..Wanted::default() });
    accept(&vm, "tm0", TAG0, 0);
    vm
}

/// All of the extent is written, by a processor of the guest where it has one.
fn fill_all(vm: &InProcess, seed: u64) {
    if vm.vm.machine().is_some() {
        return fill(vm, window(vm), seed);
    }
    let memory = vm.runtime.block_on(vm.vm.memory_of("tm0")).expect("a VM").expect("a backend");
    let page = [seed as u8 | 1; 4096];
    (0..WINDOW_BYTES).step_by(4096).for_each(|at| memory.write(at, &page).expect("inside"));
}

/// Writes 8 bytes somewhere, as whoever is on the bus does.
fn write_somewhere(vm: &InProcess, dice: &mut Dice) {
    let (base, len_bytes) = if dice.roll(2) == 0 { (RAM_AT, RAM_BYTES) } else { (window(vm), WINDOW_BYTES) };
    let at = Hpa(base.0 + dice.roll(len_bytes / 8) * 8);
    driver::Bus::write(&mut vm.vm.bus(), at, &dice.roll(u64::MAX).to_le_bytes());
}

/// Stops the VM, saves it, and compares every byte of the snapshot with what is there.
fn saved_and_checked(vm: &InProcess, name: &str) -> Saved {
    vm.runtime.block_on(vm.vm.set_run_state(RunState::Paused)).expect("a VM");
    let saved = save(vm, name, SaveForm::Incremental).expect("saved");
    let store = Store::open(&snapshots(vm)).expect("a store");
    check_link(vm, &store.snapshot(&saved.name.parse().expect("a name")).expect("whole"));
    vm.runtime.block_on(vm.vm.set_run_state(RunState::Running)).expect("a VM");
    saved
}

#[test]
fn a_snapshot_after_a_pulse_or_a_load_copies_what_has_changed() {
    for accel in accels() {
        let vm = started(accel);
        fill_all(&vm, 1);
        let first = saved_and_checked(&vm, "first");
        assert!(first.parent.is_none() && first.contents_bytes >= WINDOW_BYTES, "{accel}: {first:?}");
        let mut dice = Dice(7 << 30);
        // Before, and after.
        write_somewhere(&vm, &mut dice);
        (0..3).for_each(|_| vm.runtime.block_on(vm.vm.pulse()).expect("pulsed"));
        write_somewhere(&vm, &mut dice);
        let pulsed = saved_and_checked(&vm, "pulsed");
        assert_eq!(pulsed.parent.as_deref(), Some("first"));
        assert!(pulsed.contents_bytes < LITTLE_BYTES, "{accel}: {pulsed:?}");

        fill_all(&vm, 2);
        vm.runtime.block_on(vm.vm.load_snapshot("first")).expect("loaded");
        write_somewhere(&vm, &mut dice);
        let loaded = saved_and_checked(&vm, "loaded");
        assert_eq!(loaded.parent.as_deref(), Some("first"));
        assert!(loaded.contents_bytes < LITTLE_BYTES, "{accel}: {loaded:?}");
        let again = saved_and_checked(&vm, "again");
        assert_eq!(again.parent.as_deref(), Some("loaded"));
        assert!(again.contents_bytes < LITTLE_BYTES, "{accel}: {again:?}");
        eprintln!("{accel}: {first:?}\n{pulsed:?}\n{loaded:?}\n{again:?}");
        vm.end();
    }
}

/// What a guest had written before a pulse was known only to the slots of its life, and they told it when the last who had hold
/// of them let go: a snapshot that was sooner had the bytes from before.
#[test]
fn a_machine_that_is_held_over_a_pulse_keeps_nothing_back() {
    if !kvm::is_there() {
        return;
    }
    let vm = started(Accel::Kvm { vcpus: 2 });
    fill_all(&vm, 1);
    saved_and_checked(&vm, "first");
    fill_all(&vm, 2);
    let held = vm.vm.machine();
    vm.runtime.block_on(vm.vm.pulse()).expect("pulsed");
    let next = saved_and_checked(&vm, "next");
    assert!(next.contents_bytes >= WINDOW_BYTES, "{next:?}");
    drop(held);
    let last = saved_and_checked(&vm, "last");
    assert!(last.contents_bytes < LITTLE_BYTES, "what is gone is not called dirty once more: {last:?}");
    vm.end();
}

/// Processors sweep and a driver writes here and there, all the while.
#[test]
fn a_link_after_any_lives_has_every_byte_of_its_moment() {
    for accel in accels() {
        let vm = started(accel);
        let is_over = AtomicBool::new(false);
        let mut newest = None;
        thread::scope(|scope| {
            let (vm, is_over) = (&vm, &is_over);
            scope.spawn(move || {
                let mut dice = Dice(0xabc << 18);
                while !is_over.load(Ordering::Relaxed) {
                    write_somewhere(vm, &mut dice);
                    // Others have tests to run, too.
                    thread::sleep(Duration::from_micros(30));
                }
            });
            let mut dice = Dice(0x51ee9 << 9);
            let mut names: Vec<String> = Vec::new();
            for round in 0..6 {
                for _ in 0..1 + dice.roll(3) {
                    sweep(vm, &mut dice);
                    live_on(vm, &mut dice, &names, &mut newest);
                }
                let name = format!("link{round}");
                let saved = saved_and_checked(vm, &name);
                assert_eq!(saved.parent, newest, "{accel}");
                (newest, names) = (Some(name.clone()), names.into_iter().chain([name]).collect());
            }
            is_over.store(true, Ordering::Relaxed);
        });
        vm.end();
    }
}

/// A processor of the guest begins to write to all of the extent.
fn sweep(vm: &InProcess, dice: &mut Dice) {
    if let Some(machine) = vm.vm.machine() {
        let sweep = Job::Fill { hpa: window(vm), len_bytes: WINDOW_BYTES, seed: dice.roll(u64::MAX) };
        // It may still be about another.
        drop(machine.start_job(1, sweep));
    }
    thread::sleep(Duration::from_micros(dice.roll(20_000)));
}

/// A next life, of the same memory or of another.
fn live_on(vm: &InProcess, dice: &mut Dice, names: &[String], newest: &mut Option<String>) {
    match names {
        [_, ..] if dice.roll(3) == 0 => {
            let name = &names[dice.roll(names.len() as u64) as usize];
            vm.runtime.block_on(vm.vm.load_snapshot(name)).expect("loaded");
            *newest = Some(name.clone());
        }
        _ => vm.runtime.block_on(vm.vm.pulse()).expect("pulsed"),
    }
    thread::sleep(Duration::from_micros(dice.roll(20_000)));
}

/// Pages of RAM and of the extent are counted up one after the other while they are saved: at any moment those in front are one
/// ahead of those behind, or none is. What is dirty in the pause was once only compared of guests that had been stopped before.
#[test]
fn what_is_written_while_it_is_saved_is_all_of_one_moment() {
    for accel in accels() {
        let vm = started(accel);
        let places = shuffled([RAM_AT, window(&vm)].into_iter().flat_map(pages_of).collect());
        let (is_over, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        let saved = thread::scope(|scope| {
            let (vm, places, is_over, rounds) = (&vm, &places, &is_over, &rounds);
            scope.spawn(move || {
                let mut bus = vm.vm.bus();
                while !is_over.load(Ordering::Relaxed) {
                    let count = rounds.fetch_add(1, Ordering::Relaxed) + 1;
                    for place in places {
                        driver::Bus::write(&mut bus, *place, &count.to_le_bytes());
                    }
                }
            });
            let of_another_round = |name: String| {
                let before = rounds.load(Ordering::Relaxed);
                while rounds.load(Ordering::Relaxed) < before + 2 {
                    thread::sleep(Duration::from_micros(100));
                }
                save(vm, &name, SaveForm::Incremental)
            };
            let saved: Result<Vec<_>, _> = (0..8).map(|link| of_another_round(format!("link{link}"))).collect();
            is_over.store(true, Ordering::Relaxed);
            saved.expect("saved")
        });
        let store = Store::open(&snapshots(&vm)).expect("a store");
        let mut last = 0;
        for Saved { name, .. } in saved {
            let counts = counts_in(&store.snapshot(&name.parse().expect("a name")).expect("whole"));
            let (first, behind) = (counts[0], counts[counts.len() - 1]);
            assert!(first > last && first - behind <= 1, "{accel}, {name}: {first} in front and {behind} behind");
            let step = counts.partition_point(|count| *count == first);
            let late = counts[step..].iter().position(|count| *count != behind);
            assert_eq!(late, None, "{accel}, {name}: behind page {step} another moment");
            last = first;
        }
        vm.end();
    }
}

const COUNTED_BYTES: u64 = 4 * MIB;

/// In an order of which who copies one after the other cannot keep ahead, nor behind.
fn shuffled<T: Copy>(pages: Vec<T>) -> Vec<T> {
    (0..pages.len()).map(|n| pages[n * 977 % pages.len()]).collect()
}

fn pages_of(base: Hpa) -> impl Iterator<Item = Hpa> {
    (0..COUNTED_BYTES).step_by(4096).map(move |at| Hpa(base.0 + at))
}

/// What stands in the pages that are counted, in their order.
fn counts_in(link: &Snapshot) -> Vec<u64> {
    let of_memory = |of_ram: bool, base: u64| {
        let is_it = |memory: &&snapshot::Memory| (memory.id.as_str() == "ram") == of_ram;
        let memory = link.memories().iter().find(is_it).expect("it is there");
        let bytes = HostMemory::anonymous(memory.len_bytes).expect("memory");
        link.load(&memory.id, &bytes, &mut |_, _| ()).expect("its bytes");
        let count = |place: Hpa| {
            let mut count = [0; 8];
            bytes.read(place.0, &mut count).expect("inside");
            u64::from_le_bytes(count)
        };
        pages_of(Hpa(base)).map(count).collect::<Vec<_>>()
    };
    shuffled([of_memory(true, RAM_AT.0), of_memory(false, 0)].concat())
}

/// Saves as long as it was asked less than so many times whether that is wanted.
fn save_until(vm: &InProcess, name: &str, asked: u64, by_reference: &[&str]) -> Result<Saved, SnapshotError> {
    let by_reference = by_reference.iter().map(|id| (*id).to_owned()).collect();
    let request = SaveRequest { name: name.parse().expect("a name"), form: SaveForm::Incremental, by_reference };
    let left = AtomicU64::new(asked);
    let is_wanted = move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    vm.runtime.block_on(vm.vm.save_snapshot_while(request, Arc::new(|_, _| ()), Arc::new(is_wanted)))
}

/// Seen as: a name that was there, a backend that cannot be by reference, and a job that was cancelled each made the next save
/// a full one.
#[test]
fn a_save_that_is_refused_or_cancelled_takes_nothing() {
    for accel in accels() {
        let vm = started(accel);
        fill_all(&vm, 1);
        saved_and_checked(&vm, "first");
        let mut dice = Dice(3 << 20);
        write_somewhere(&vm, &mut dice);
        let refused = |name: &str, by_reference: &[&str]| {
            save_until(&vm, name, u64::MAX, by_reference).expect_err("refused").to_string()
        };
        assert!(refused("first", &[]).contains("there is a snapshot 'first'"));
        assert!(refused("new", &["nobody"]).contains("there is no such backend"));
        assert!(refused("new", &["tm0"]).contains("it is no file"));
        let next = saved_and_checked(&vm, "next");
        assert_eq!(next.parent.as_deref(), Some("first"), "{accel}");
        assert!(next.contents_bytes < LITTLE_BYTES, "{accel}: {next:?}");

        // Whatever it had taken by then.
        fill_all(&vm, 2);
        for asked in 0..3 {
            let error = save_until(&vm, "never", asked, &[]).expect_err("not wanted");
            assert!(matches!(error, SnapshotError::Unwanted), "{accel}, {asked}: {error}");
            assert!(!snapshots(&vm).join("never").exists(), "{accel}, {asked}");
            write_somewhere(&vm, &mut dice);
        }
        let last = saved_and_checked(&vm, "last");
        assert_eq!(last.parent.as_deref(), Some("next"), "{accel}");
        assert!(last.contents_bytes >= WINDOW_BYTES, "{accel}: {last:?}");
        let again = saved_and_checked(&vm, "again");
        assert!(again.contents_bytes < LITTLE_BYTES, "{accel}: {again:?}");
        // Nor does one that cannot be deleted count as gone.
        vm.runtime.block_on(vm.vm.delete_snapshot("next")).expect_err("a parent");
        assert_eq!(saved_and_checked(&vm, "end").parent.as_deref(), Some("again"), "{accel}");
        vm.end();
    }
}

#[test]
fn a_failed_save_or_load_leaves_nothing_that_is_built_on_half() {
    let vm = started(Accel::Soft);
    saved_and_checked(&vm, "first");
    fill_all(&vm, 3);
    save(&vm, "first", SaveForm::Incremental).expect_err("there is one");
    let next = saved_and_checked(&vm, "next");
    assert_eq!(next.parent.as_deref(), Some("first"));
    vm.runtime.block_on(vm.vm.load_snapshot("nobody")).expect_err("there is none");
    fill_all(&vm, 4);
    assert_eq!(saved_and_checked(&vm, "last").parent.as_deref(), Some("next"));
    // One that is loaded and deleted: the next is built on nothing.
    vm.runtime.block_on(vm.vm.load_snapshot("last")).expect("loaded");
    vm.runtime.block_on(vm.vm.delete_snapshot("last")).expect("deleted");
    assert_eq!(saved_and_checked(&vm, "new").parent, None);
    vm.end();
}
