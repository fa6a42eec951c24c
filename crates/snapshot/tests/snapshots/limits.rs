//! What a snapshot takes, and what is too much for it.

use snapshot::format::{ABOUT_MAX, CHAIN_MAX, PART_NAME_MAX_BYTES};
use snapshot::{Base, SnapshotError};

use crate::sample::*;

/// Bytes of all that no memory is.
fn beside_contents(store: &snapshot::Store, snapshot: &snapshot::Snapshot) -> u64 {
    let files = files(store.path(), snapshot.name());
    let others = files.iter().filter(|path| path.extension().is_none_or(|extension| extension != "contents"));
    others.map(|path| path.metadata().expect("there").len()).sum()
}

#[test]
fn beside_its_bytes_a_snapshot_is_small() {
    use std::os::unix::fs::MetadataExt;
    let (_dir, store) = store();
    let (ram, len_bytes) = (memory(1 << 30), 1u64 << 30);
    // Some 20000 pages here and there: what a guest changes while it runs.
    let mut ranges = Vec::new();
    let mut at = 0u64;
    while at < len_bytes {
        let pages = 1 + at / PAGE * 7919 % 4;
        for page in at / PAGE..(at / PAGE + pages).min(len_bytes / PAGE) {
            ram.write(page * PAGE + 8, &[1]).expect("inside");
        }
        ranges.push(at..(at + pages * PAGE).min(len_bytes));
        at += PAGE * (pages + 1 + at / PAGE * 104_729 % 64);
    }
    assert!(ranges.len() > 5000, "{}", ranges.len());
    let mut draft = store.begin(&name("a"), None).expect("begun");
    draft
        .part("state", 1, (0..50_000u32).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect())
        .expect("taken");
    let mut writer = draft.contents(&id("ram"), len_bytes, Base::Zeros).expect("begun");
    let copied = writer.copy(&ram, &ranges).expect("copied");
    let snapshot = draft.finish(vec![writer], &mut |_| ()).expect("finished");
    let beside = beside_contents(&store, &snapshot);
    assert!(beside <= (64 << 10) + 200_000, "{beside} bytes");
    let contents = store.path().join("a/ram.contents").metadata().expect("there");
    assert_eq!(contents.len(), len_bytes);
    assert!(contents.blocks() * 512 < copied.written_bytes * 2, "{} blocks", contents.blocks());
}

#[test]
fn what_is_too_much_is_told_with_its_numbers() {
    let (_dir, store) = store();
    let mut draft = store.begin(&name("a"), None).expect("begun");
    let many = |error: SnapshotError| {
        assert!(matches!(error, SnapshotError::TooMany { .. }));
        said(&error)
    };
    let long = "x".repeat(5000);
    assert!(
        many(draft.about("a", &long).expect_err("long")).contains("bytes of fact 'a': 5000 are more than the 4096")
    );
    assert!(many(draft.reference(&id("a"), 1, &long).expect_err("long")).contains("path of memory 'a': 5000"));
    assert!(many(draft.contents(&id("a"), u64::MAX, Base::Zeros).expect_err("long")).contains("72057594037927936"));
    assert!(said(&draft.contents(&id("a"), 0, Base::Zeros).expect_err("empty")).contains("0x0 bytes"));
    for number in 0..ABOUT_MAX {
        draft.about(&format!("fact-{number}"), "x").expect("said");
    }
    assert!(many(draft.about("one-more", "x").expect_err("many")).contains("facts: 257 are more than the 256"));
    draft.part("a", 1, vec![]).expect("taken");
    assert!(matches!(draft.part("a", 1, vec![]), Err(SnapshotError::Twice { .. })));
    assert!(matches!(draft.about("fact-0", "x"), Err(SnapshotError::Twice { .. })));
    assert!(matches!(draft.part(&"x".repeat(PART_NAME_MAX_BYTES + 1), 1, vec![]), Err(SnapshotError::Name { .. })));
    assert!(matches!(draft.part("a b", 1, vec![]), Err(SnapshotError::Name { .. })));
    draft.reference(&id("disk"), 1, "x").expect("said");
    assert!(matches!(draft.contents(&id("disk"), 1, Base::Zeros), Err(SnapshotError::Twice { .. })));
}

#[test]
fn a_chain_ends() {
    let (_dir, store) = store();
    let mut last = store.begin(&name("0"), None).expect("begun").finish(vec![], &mut |_| ()).expect("finished");
    for number in 1..CHAIN_MAX {
        let draft = store.begin(&name(&number.to_string()), Some(&last)).expect("begun");
        last = draft.finish(vec![], &mut |_| ()).expect("finished");
    }
    assert_eq!(store.snapshot(last.name()).expect("opens").chain().count(), CHAIN_MAX);
    let error = store.begin(&name("more"), Some(&last)).expect_err("too long");
    assert!(said(&error).contains("more than 256 in a chain; take a full one"), "{error}");
}
