//! Flattening: a snapshot of a chain is as it was, and needs none below it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use snapshot::{Base, Contents, SnapshotError, Step, Store};

use crate::sample::*;

/// A third one on top of the two.
fn third(store: &Store, next: &Expected) -> Expected {
    let ram = memory(LEN_BYTES);
    ram.write(0, &next.ram).expect("inside");
    fill(&ram, 2, 9);
    let next = store.snapshot(&next.name).expect("there");
    let mut draft = store.begin(&name("third"), Some(&next)).expect("begun");
    let mut writer = draft.contents(&id("ram"), LEN_BYTES, Base::Parent).expect("begun");
    let changed = 2 * PAGE..3 * PAGE;
    writer.copy(&ram, std::slice::from_ref(&changed)).expect("copied");
    draft.part("state", 7, b"third".to_vec()).expect("taken");
    draft.finish(vec![writer], &mut |_| ()).expect("finished");
    Expected { name: name("third"), ram: bytes(&ram), parts: vec![("state".into(), b"third".to_vec())] }
}

fn assert_right(store: &Store, expected: &Expected) {
    let snapshot = read_all(store, expected).expect("readable").expect("right");
    snapshot.verify(&mut |_, _| ()).expect("whole");
    for bridged_bytes in [0, u64::MAX] {
        assert!(mapped(&snapshot, &id("ram"), LEN_BYTES, bridged_bytes) == expected.ram, "{}", expected.name);
    }
}

fn flatten(store: &Store, what: &str) -> Result<(), SnapshotError> {
    store.flatten(&name(what), &mut |_| ()).map(drop)
}

fn names(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(store.path()).expect("listable");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn a_flattened_snapshot_is_as_it_was_and_needs_no_other() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let was = store.snapshot(&next.name).expect("there").manifest().clone();
    let mut steps = Vec::new();
    let flattened = store.flatten(&next.name, &mut |step| steps.push(step)).expect("flattened");
    assert_eq!(steps.last(), Some(&Step::Sync));
    assert_eq!(flattened.chain().count(), 1);
    let is = flattened.manifest();
    assert_eq!((is.parent.as_ref(), is.created_ms), (None, was.created_ms));
    assert_eq!(flattened.about(), [("build".into(), "a test".into()), ("formerly".into(), was.id.to_string())]);
    assert!(is.id != was.id && is.is_or_was(was.id) && is.is_or_was(is.id));
    let contents: Vec<_> = is.memories.iter().map(|memory| memory.contents.clone()).collect();
    assert_eq!(contents, [Contents::Reference { path: "/some/where".into() }, Contents::Copied(Base::Zeros)]);
    let parts: Vec<_> = flattened.parts().map(|part| (part.name.as_str(), part.version)).collect();
    assert_eq!(parts, [("state", 7), ("empty", 1)]);
    drop(flattened);
    assert_eq!(names(&store), ["full", "next"]);
    store.delete(&full.name).expect("nothing is built on it");
    assert_right(&store, &next);
    // Once more changes nothing.
    let id = store.flatten(&next.name, &mut |_| ()).expect("as it is").id();
    assert_eq!(store.snapshot(&next.name).expect("there").id(), id);
}

#[test]
fn what_is_built_on_a_flattened_one_stays_so() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let third = third(&store, &next);
    let said_of = |what: &Expected| said(&store.delete(&what.name).expect_err("a parent"));
    let path = store.path().join("next");
    assert_eq!(
        said_of(&full),
        format!(
            "snapshot 'full' cannot be deleted: it is the parent of 'next'; delete what is built on it first, or make it \
             independent: dcd snapshot flatten {}",
            path.display()
        )
    );
    flatten(&store, "next").expect("flattened");
    store.delete(&full.name).expect("deleted");
    [&next, &third].iter().for_each(|expected| assert_right(&store, expected));
    assert!(said_of(&next).contains("parent of 'third'"));
    // One can still be built on either, and what was is found by who reads again.
    let open = store.snapshot(&third.name).expect("there");
    let chain: Vec<_> = open.chain().map(|manifest| manifest.name.to_string()).collect();
    assert_eq!(chain, ["third", "next"]);
    let ram = memory(LEN_BYTES);
    drop(finish(store.begin(&name("fourth"), Some(&open)).expect("begun"), &ram, Base::Parent).expect("finished"));
    drop(open);
    flatten(&store, "third").expect("flattened");
    store.delete(&next.name).expect("deleted");
    assert_right(&store, &third);
    store.snapshot(&name("fourth")).and_then(|fourth| fourth.verify(&mut |_, _| ())).expect("whole");
}

/// Who reads a snapshot reads those below it by their directories.
#[test]
fn it_is_not_replaced_while_it_or_one_on_it_is_open() {
    let (_dir, store) = store();
    let [_, next] = chain_of_two(&store);
    let third = third(&store, &next);
    for open in [&next, &third] {
        let open = store.snapshot(&open.name).expect("there");
        let refused = flatten(&store, "next");
        assert!(matches!(&refused, Err(SnapshotError::InUse { snapshot }) if *snapshot == open.name().to_string()));
        open.verify(&mut |_, _| ()).expect("whole");
        assert_eq!(open.chain().count(), if *open.name() == next.name { 2 } else { 3 });
        assert_eq!(names(&store), ["full", "next", "third"]);
    }
    // Two at once: the other one finds it being written, or as it is to be.
    let mut other = None;
    let flattened = store.flatten(&next.name, &mut |step| {
        if step == Step::Parts {
            other = Some(flatten(&store, "next"));
        }
    });
    assert!(matches!(other, Some(Err(SnapshotError::BeingWritten { .. }))), "{other:?}");
    drop(flattened.expect("flattened"));
    [&next, &third].iter().for_each(|expected| assert_right(&store, expected));
}

#[test]
fn what_is_damaged_below_is_named_and_nothing_is_replaced() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let was = store.snapshot(&next.name).expect("there").id();
    for of in [&full, &next] {
        let path = store.path().join(of.name.as_str()).join("ram.contents");
        let file = File::options().read(true).write(true).open(&path).expect("there");
        // A byte that is copied in both. Before, and where it is sooner or later than it is copied.
        let at = if of.name == full.name { 5 } else { PAGE + 5 };
        let mut good = [0];
        file.read_exact_at(&mut good, at).expect("readable");
        let refused = |damage_at: Option<Step>| {
            let damaged = store.flatten(&next.name, &mut |step| {
                if Some(step) == damage_at {
                    file.write_all_at(&[0xee], at).expect("writable");
                }
            });
            let error = damaged.map(drop).expect_err("refused");
            assert!(said(&error).contains("'ram.contents' is damaged"), "{error}");
            assert!(said(&error).contains(&format!("snapshot '{}'", of.name)), "{error}");
            file.write_all_at(&good, at).expect("writable");
        };
        let total_bytes = LEN_BYTES - 2 * PAGE;
        let steps = [Step::Copy { done_bytes: PAGE, total_bytes }, Step::Runs, Step::Manifest];
        steps.into_iter().for_each(|step| refused(Some(step)));
        file.write_all_at(&[0xee], at).expect("writable");
        refused(None);
    }
    assert_eq!(store.snapshot(&next.name).expect("there").id(), was);
    assert_eq!(names(&store), ["full", "next"]);
    assert_right(&store, &next);
}

#[test]
fn a_snapshot_that_became_another_meanwhile_stays() {
    let (_dir, store) = store();
    let [_, next] = chain_of_two(&store);
    let ram = memory(LEN_BYTES);
    drop(finish(store.begin(&name("other"), None).expect("begun"), &ram, Base::Zeros).expect("finished"));
    let path = |what: &str| store.path().join(what);
    let error = store.flatten(&next.name, &mut |step| {
        if step == Step::Name {
            fs::rename(path("next"), path("kept")).expect("movable");
        }
    });
    assert!(matches!(error, Err(SnapshotError::NotThere { .. })), "{error:?}");
    fs::rename(path("kept"), path("next")).expect("movable");
    assert_eq!(names(&store), ["full", "next", "other"]);
    assert_right(&store, &next);
}

#[test]
fn only_flattening_says_what_it_was() {
    let (_dir, store) = store();
    let mut draft = store.begin(&name("a"), None).expect("begun");
    assert!(matches!(draft.about("formerly", &"0".repeat(64)), Err(SnapshotError::Twice { .. })));
}
