//! What is written comes back, through chains.

use std::slice::from_ref;

use proptest::prelude::*;
use snapshot::{Base, Contents, Snapshot, SnapshotError, Store};

use crate::sample::*;

#[test]
fn a_snapshot_gives_back_all_of_it() {
    let (_dir, store) = store();
    for expected in chain_of_two(&store) {
        let snapshot = read_all(&store, &expected).expect("readable").expect("right");
        assert_eq!(snapshot.about(), [("build".to_owned(), "a test".to_owned())]);
        let [disk, ram] = snapshot.memories() else { panic!("two") };
        assert_eq!((disk.id.as_str(), disk.len_bytes), ("disk", 1 << 40));
        assert_eq!(disk.contents, Contents::Reference { path: "/some/where".into() });
        assert_eq!((ram.id.as_str(), ram.len_bytes), ("ram", LEN_BYTES));
        let parts: Vec<_> = snapshot.parts().map(|part| (part.name.as_str(), part.version)).collect();
        assert_eq!(parts, [("state", 7), ("empty", 1)]);
        for bridged_bytes in [0, PAGE, u64::MAX] {
            assert_eq!(mapped(&snapshot, &id("ram"), LEN_BYTES, bridged_bytes), expected.ram);
        }
        let mut heard = Vec::new();
        snapshot.verify(&mut |done, total| heard.push((done, total))).expect("whole");
        assert_eq!(heard.last().map(|(done, total)| done == total), Some(true), "{heard:?}");
    }
    let next = store.snapshot(&name("next")).expect("there");
    let names: Vec<_> = next.chain().map(|manifest| manifest.name.as_str()).collect();
    assert_eq!(names, ["next", "full"]);
}

#[test]
fn runs_are_of_the_newest_and_none_of_zeros() {
    let (_dir, store) = store();
    chain_of_two(&store);
    let next = store.snapshot(&name("next")).expect("there");
    let stretches = |bridged_bytes| {
        let runs = next.runs(&id("ram"), bridged_bytes).expect("runs");
        runs.iter().map(|run| (run.offset_bytes, run.len_bytes)).collect::<Vec<_>>()
    };
    // Page 0 became zeros, which only `next` says; page 3 is the short one, which `next` has since all was copied.
    assert_eq!(stretches(0), [(PAGE, PAGE), (3 * PAGE, 100)]);
    assert_eq!(stretches(PAGE - 1), [(PAGE, PAGE), (3 * PAGE, 100)]);
    assert_eq!(stretches(PAGE), [(PAGE, 2 * PAGE + 100)]);
}

#[test]
fn a_gap_where_the_file_has_hidden_bytes_is_not_bridged() {
    let (_dir, store) = store();
    let ram = memory(3 * PAGE);
    (0..3).for_each(|page| fill(&ram, page, 1));
    let full = finish(store.begin(&name("full"), None).expect("begun"), &ram, Base::Zeros).expect("finished");
    fill(&ram, 1, 0);
    let mut draft = store.begin(&name("next"), Some(&full)).expect("begun");
    let mut writer = draft.contents(&id("ram"), 3 * PAGE, Base::Parent).expect("begun");
    writer.copy(&ram, from_ref(&(PAGE..2 * PAGE))).expect("copied");
    let next = draft.finish(vec![writer], &mut |_| ()).expect("finished");
    assert_eq!(next.runs(&id("ram"), u64::MAX).expect("runs").len(), 2);
    assert_eq!(mapped(&next, &id("ram"), 3 * PAGE, u64::MAX), bytes(&ram));
    assert_eq!(loaded(&next, &id("ram"), 3 * PAGE).expect("loaded"), bytes(&ram));
}

#[test]
fn what_is_copied_again_counts() {
    let (_dir, store) = store();
    let ram = memory(4 * PAGE);
    (0..4).for_each(|page| fill(&ram, page, 1));
    let mut draft = store.begin(&name("a"), None).expect("begun");
    let mut writer = draft.contents(&id("ram"), 4 * PAGE, Base::Zeros).expect("begun");
    writer.copy(&ram, from_ref(&(0..4 * PAGE))).expect("copied");
    fill(&ram, 1, 0);
    fill(&ram, 2, 9);
    writer.copy(&ram, &[PAGE..PAGE + 1, 3 * PAGE - 1..3 * PAGE]).expect("copied");
    // A writer can be sent to a thread.
    let writer = std::thread::spawn(move || writer).join().expect("back");
    let snapshot = draft.finish(vec![writer], &mut |_| ()).expect("finished");
    assert_eq!(loaded(&snapshot, &id("ram"), 4 * PAGE).expect("loaded"), bytes(&ram));
    snapshot.verify(&mut |_, _| ()).expect("whole");
}

/// A backend may go and one of the same id come: it is not built on the old one's bytes.
#[test]
fn a_memory_on_zeros_hides_the_parents() {
    let (_dir, store) = store();
    let ram = memory(2 * PAGE);
    fill(&ram, 0, 1);
    let full = finish(store.begin(&name("full"), None).expect("begun"), &ram, Base::Zeros).expect("finished");
    fill(&ram, 0, 0);
    fill(&ram, 1, 2);
    let next = finish(store.begin(&name("next"), Some(&full)).expect("begun"), &ram, Base::Zeros).expect("finished");
    assert_eq!(loaded(&next, &id("ram"), 2 * PAGE).expect("loaded"), bytes(&ram));
    let last = finish(store.begin(&name("last"), Some(&next)).expect("begun"), &ram, Base::Parent).expect("finished");
    assert_eq!(loaded(&last, &id("ram"), 2 * PAGE).expect("loaded"), bytes(&ram));
}

#[test]
fn a_memory_is_only_built_on_one_that_is_there() {
    let (_dir, store) = store();
    chain_of_two(&store);
    let parent = store.snapshot(&name("next")).expect("there");
    let mut draft = store.begin(&name("third"), Some(&parent)).expect("begun");
    let mut refused = |what: &str, len_bytes| {
        let error = draft.contents(&id(what), len_bytes, Base::Parent).expect_err("refused");
        assert!(matches!(error, SnapshotError::NoBase { .. }));
        said(&error)
    };
    assert!(refused("else", 5).contains("'next' has no memory 'else'"));
    assert!(refused("disk", 1 << 40).contains("'next' has it by reference only"));
    assert!(refused("ram", 5).contains(&format!("in 'next' it has {LEN_BYTES} bytes")));
    let mut draft = store.begin(&name("fourth"), None).expect("begun");
    assert!(said(&draft.contents(&id("ram"), 5, Base::Parent).expect_err("refused")).contains("there is no parent"));
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let (_dir, store) = store();
    chain_of_two(&store);
    let snapshot = store.snapshot(&name("next")).expect("there");
    let load = |what: &str, len_bytes| said(&loaded(&snapshot, &id(what), len_bytes).expect_err("refused"));
    assert!(load("rom", 5).contains("no memory 'rom'; it has 'disk', 'ram'"));
    assert!(load("disk", 5).contains("in '/some/where'"));
    assert!(load("ram", 5).contains(&format!("{LEN_BYTES} bytes there, and 5 here")));
    assert!(said(&snapshot.part("x").expect_err("refused")).contains("no part 'x'; it has 'state', 'empty'"));
}

#[test]
fn work_can_go_to_other_threads() {
    fn check<T: Send>() {}
    check::<Store>();
    check::<snapshot::Draft>();
    check::<snapshot::ContentsWriter>();
    // Several memories are loaded at once.
    fn check_shared<T: Send + Sync>() {}
    check_shared::<Snapshot>();
}

/// A write of a byte to some pages; zero pages come of zero bytes.
type Writes = Vec<(u64, u64, u8)>;

const PAGES: u64 = 24;

fn writes() -> impl Strategy<Value = Writes> {
    prop::collection::vec((0..PAGES, 1u64..6, prop_oneof![Just(0u8), any::<u8>()]), 0..8)
}

fn apply(ram: &memory::HostMemory, writes: &Writes) -> Vec<std::ops::Range<u64>> {
    let mut ranges = Vec::new();
    for (first, count, byte) in writes {
        let last = PAGES.min(first + count);
        (*first..last).for_each(|page| fill(ram, page, *byte));
        ranges.push(first * PAGE..(last * PAGE).min(ram.len_bytes()));
    }
    ranges
}

/// Takes a snapshot of what was written, some of it while it was copied.
fn take(
    store: &Store,
    number: usize,
    below: Option<&Snapshot>,
    ram: &memory::HostMemory,
    writes: [&Writes; 2],
) -> Snapshot {
    let mut draft = store.begin(&name(&format!("layer-{number}")), below).expect("begun");
    let base = if below.is_some() { Base::Parent } else { Base::Zeros };
    let mut writer = draft.contents(&id("ram"), ram.len_bytes(), base).expect("begun");
    for writes in writes {
        let ranges = apply(ram, writes);
        writer.copy(ram, &ranges).expect("copied");
    }
    draft.finish(vec![writer], &mut |_| ()).expect("finished")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chains_of_three_come_back(
        layers in prop::collection::vec((writes(), writes()), 3),
        short in 0..PAGE,
        flattened in prop::collection::vec(0..3usize, 0..4),
    ) {
        let (_dir, store) = store();
        let ram = memory(PAGES * PAGE - short);
        let (mut taken, mut expected) = (Vec::<Snapshot>::new(), Vec::new());
        for (number, (before, meanwhile)) in layers.iter().enumerate() {
            taken.push(take(&store, number, taken.last(), &ram, [before, meanwhile]));
            expected.push(bytes(&ram));
        }
        for (written, expected) in taken.iter().zip(&expected) {
            written.verify(&mut |_, _| ()).expect("whole");
            let read = store.snapshot(written.name()).expect("there");
            prop_assert_eq!(read.id(), written.id());
            prop_assert!(loaded(&read, &id("ram"), ram.len_bytes()).expect("loaded") == *expected);
            for bridged_bytes in [0, 2 * PAGE, u64::MAX] {
                prop_assert!(mapped(&read, &id("ram"), ram.len_bytes(), bridged_bytes) == *expected);
            }
        }
        // Whichever are flattened, in whatever order.
        drop(taken);
        for number in flattened {
            drop(store.flatten(&name(&format!("layer-{number}")), &mut |_| ()).expect("flattened"));
            for (number, expected) in expected.iter().enumerate() {
                let read = store.snapshot(&name(&format!("layer-{number}"))).expect("there");
                read.verify(&mut |_, _| ()).expect("whole");
                prop_assert!(loaded(&read, &id("ram"), ram.len_bytes()).expect("loaded") == *expected);
                prop_assert!(mapped(&read, &id("ram"), ram.len_bytes(), 2 * PAGE) == *expected);
            }
        }
    }
}
