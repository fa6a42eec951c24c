//! One byte that is another, one file that is shorter or gone: told with the file's name, or of no effect.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use snapshot::{SnapshotName, Store};

use crate::sample::*;

/// What reading all of a snapshot came to. A wrong byte without an error is a failed test.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Right,
    Refused,
}

/// Reads a snapshot with every reading there is; an error must name the file.
fn read(store: &Store, expected: &Expected, file: &str, what: &str) -> (Outcome, Outcome) {
    let named = |said: &str| assert!(said.contains(&format!("'{file}'")), "{what}: {said}");
    let loaded = match read_all(store, expected) {
        Ok(snapshot) => {
            assert!(snapshot.is_some(), "{what} of '{file}' is not seen");
            Outcome::Right
        }
        Err(error) => {
            named(&said(&error));
            Outcome::Refused
        }
    };
    let verified = match store.snapshot(&expected.name).and_then(|snapshot| snapshot.verify(&mut |_, _| ())) {
        Ok(()) => Outcome::Right,
        Err(error) => {
            named(&said(&error));
            Outcome::Refused
        }
    };
    (loaded, verified)
}

/// The places in a file that are tried: all of those that say something, and a sample of a memory's bytes.
fn places(path: &Path, step: usize) -> Vec<u64> {
    let len_bytes = path.metadata().expect("there").len();
    let is_contents = path.extension().is_some_and(|extension| extension == "contents");
    (0..len_bytes).step_by(if is_contents { step } else { 1 }).chain([len_bytes - 1]).collect()
}

/// Flips a bit at each place of each file of one snapshot, and reads the one that stands on top.
fn flip(store: &Store, of: &SnapshotName, top: &Expected, step: usize) {
    for path in files(store.path(), of) {
        let file_name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let file = File::options().read(true).write(true).open(&path).expect("there");
        for at in places(&path, step) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("readable");
            file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).expect("writable");
            let (loaded, verified) = read(store, top, &file_name, &format!("byte {at}"));
            assert_eq!(verified, Outcome::Refused, "byte {at} of '{file_name}' is not seen");
            let is_free = file_name.ends_with(".contents") || (file_name == "parts" && *of != top.name);
            assert!(is_free || loaded == Outcome::Refused, "byte {at} of '{file_name}'");
            file.write_all_at(&byte, at).expect("writable");
        }
        assert_eq!(read(store, top, &file_name, "repaired"), (Outcome::Right, Outcome::Right));
    }
}

/// Cuts each file of one snapshot at each place, lets it grow by a byte, and takes it away.
fn cut(store: &Store, of: &SnapshotName, top: &Expected, step: usize) {
    for path in files(store.path(), of) {
        let file_name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let whole = std::fs::read(&path).expect("readable");
        let file = File::options().write(true).open(&path).expect("there");
        let refused = |what: &str| {
            assert_eq!(read(store, top, &file_name, what), (Outcome::Refused, Outcome::Refused), "{what}");
        };
        file.set_len(whole.len() as u64 + 1).expect("longer");
        refused("a byte more");
        for len_bytes in places(&path, step).into_iter().rev().filter(|at| *at < whole.len() as u64) {
            file.set_len(len_bytes).expect("shorter");
            refused(&format!("cut at {len_bytes}"));
        }
        std::fs::remove_file(&path).expect("removable");
        refused("missing");
        std::fs::write(&path, &whole).expect("writable");
        // Holes are lost now, as they are in copies; nothing depends on them.
        assert_eq!(read(store, top, &file_name, "repaired"), (Outcome::Right, Outcome::Right));
    }
}

fn sweep(step: usize) {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    flip(&store, &full.name, &full, step);
    flip(&store, &full.name, &next, step);
    flip(&store, &next.name, &next, step);
    cut(&store, &full.name, &full, step);
    cut(&store, &full.name, &next, step);
    cut(&store, &next.name, &next, step);
}

#[test]
fn every_byte_that_says_something_and_a_sample_of_the_memories() {
    sweep(37);
}

#[test]
#[ignore = "a minute: every byte of the memories too, by hand"]
fn every_byte_and_every_cut() {
    sweep(1);
}

#[test]
fn a_listing_names_what_is_damaged_and_goes_on() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    std::fs::remove_file(store.path().join("full/ram.contents")).expect("removable");
    std::fs::create_dir(store.path().join("empty")).expect("makeable");
    std::fs::create_dir(store.path().join("no name")).expect("makeable");
    std::fs::write(store.path().join("file"), "x").expect("writable");
    std::os::unix::fs::symlink("full", store.path().join("link")).expect("makeable");
    let listed: Vec<_> = store
        .list()
        .expect("listable")
        .into_iter()
        .map(|listed| match listed {
            snapshot::Listed::Whole { manifest, disk_bytes } => format!("{}: {}", manifest.name, disk_bytes > 0),
            snapshot::Listed::Damaged { name, error } => format!("{name}! {}", said(&error)),
            other => format!("{other:?}"),
        })
        .collect();
    let [empty, file, damaged, link, next_one, unnamed] = &listed[..] else { panic!("{listed:#?}") };
    assert!(empty.contains("'manifest.json'"), "{empty}");
    assert!(file.starts_with("file! ") && link.starts_with("link! "), "{file} {link}");
    assert!(damaged.contains("'full'") && damaged.contains("'ram.contents'"), "{damaged}");
    assert!(next_one.starts_with("next! ") && next_one.contains(&damaged["full! ".len()..]), "{next_one}");
    assert!(unnamed.contains("' '"), "{unnamed}");
    // It can be removed, damaged as it is, once none is built on it.
    assert!(store.delete(&full.name).is_err());
    store.delete(&next.name).expect("deleted");
    store.delete(&full.name).expect("deleted");
    store.delete(&name("empty")).expect("deleted");
}
