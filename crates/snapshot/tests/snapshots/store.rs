//! Directories of snapshots: names, locks, leftovers, parents.

use snapshot::{Base, Holder, Listed, SnapshotError, Step, Store};

use crate::sample::*;

fn listed(store: &Store) -> Vec<String> {
    let word = |listed: Listed| match listed {
        Listed::Whole { manifest, .. } => manifest.name.to_string(),
        Listed::Unfinished { name, holder: Holder::Alive } => format!("{name} is written"),
        Listed::Unfinished { name, holder: Holder::Dead } => format!("{name} was written"),
        Listed::Leaving { name, holder: Holder::Alive } => format!("{name} is removed"),
        Listed::Leaving { name, holder: Holder::Dead } => format!("{name} was removed"),
        Listed::Damaged { name, error } => format!("{name}: {error}"),
    };
    store.list().expect("listable").into_iter().map(word).collect()
}

#[test]
fn a_draft_is_no_snapshot_until_it_has_its_name() {
    let (_dir, store) = store();
    let ram = memory(LEN_BYTES);
    fill(&ram, 0, 1);
    let mut draft = store.begin(&name("a"), None).expect("begun");
    assert_eq!(listed(&store), ["a is written"]);
    assert!(matches!(store.snapshot(&name("a")), Err(SnapshotError::NotThere { .. })));
    assert!(matches!(store.begin(&name("a"), None), Err(SnapshotError::BeingWritten { .. })));
    assert_eq!(store.sweep().expect("swept"), Vec::<String>::new());
    let mut writer = draft.contents(&id("ram"), LEN_BYTES, Base::Zeros).expect("begun");
    let range = 0..LEN_BYTES;
    writer.copy(&ram, std::slice::from_ref(&range)).expect("copied");
    let mut steps = Vec::new();
    let finished = draft.finish(vec![writer], &mut |step| {
        let expected = if step == Step::Sync { "a" } else { "a is written" };
        assert_eq!(listed(&store), [expected], "{step:?}");
        // From the rename to its sync the store is locked.
        assert!(step == Step::Sync || store.sweep().expect("swept").is_empty(), "{step:?}");
        steps.push(step);
    });
    let total_bytes = PAGE;
    assert_eq!(
        steps,
        [
            Step::Contents { done_bytes: 0, total_bytes },
            Step::Contents { done_bytes: PAGE, total_bytes },
            Step::Runs,
            Step::Parts,
            Step::Manifest,
            Step::Name,
            Step::Sync
        ]
    );
    let files: Vec<_> = files(store.path(), finished.expect("finished").name());
    let names: Vec<_> = files.iter().map(|path| path.file_name().expect("a name").to_string_lossy()).collect();
    assert_eq!(names, ["manifest.json", "parts", "ram.contents", "runs"]);
    assert!(matches!(store.begin(&name("a"), None), Err(SnapshotError::Exists { .. })));
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    let (_dir, store) = store();
    let mut draft = store.begin(&name("a"), None).expect("begun");
    draft.contents(&id("ram"), LEN_BYTES, Base::Zeros).expect("begun");
    drop(draft);
    assert_eq!(listed(&store), Vec::<String>::new());
    // Nor does one whose writer is not given back.
    let mut draft = store.begin(&name("a"), None).expect("begun");
    let writer = draft.contents(&id("ram"), LEN_BYTES, Base::Zeros).expect("begun");
    let error = draft.finish(vec![], &mut |_| ()).expect_err("not given back");
    assert!(said(&error).contains("the writer of memory 'ram' was not given back"), "{error}");
    let mut other = store.begin(&name("a"), None).expect("begun");
    let own = other.contents(&id("ram"), LEN_BYTES, Base::Zeros).expect("begun");
    let error = other.finish(vec![own, writer], &mut |_| ()).expect_err("another's");
    assert!(said(&error).contains("belongs to another draft"), "{error}");
    assert_eq!(listed(&store), Vec::<String>::new());
}

#[test]
fn what_is_open_or_below_another_stays() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let error = store.delete(&full.name).expect_err("a parent");
    assert!(said(&error).contains("it is the parent of 'next'"), "{error}");
    let open = store.snapshot(&next.name).expect("there");
    assert!(matches!(store.delete(&next.name), Err(SnapshotError::InUse { .. })));
    // A draft holds its parent.
    let draft = store.begin(&name("third"), Some(&open)).expect("begun");
    drop(open);
    assert!(matches!(store.delete(&next.name), Err(SnapshotError::InUse { .. })));
    drop(draft);
    store.delete(&next.name).expect("deleted");
    store.delete(&full.name).expect("deleted");
    assert!(matches!(store.delete(&full.name), Err(SnapshotError::NotThere { .. })));
    assert_eq!(std::fs::read_dir(store.path()).expect("listable").count(), 0);
}

#[test]
fn what_dead_processes_left_is_swept() {
    let (_dir, store) = store();
    let [_, next] = chain_of_two(&store);
    for left in ["a.part", "b.gone", "next.gone"] {
        std::fs::create_dir(store.path().join(left)).expect("makeable");
        std::fs::write(store.path().join(left).join("ram.contents"), "x").expect("writable");
    }
    std::fs::write(store.path().join("c.part"), "not ours").expect("writable");
    assert_eq!(listed(&store), ["a was written", "b was removed", "c was written", "full", "next", "next was removed"]);
    // What stands in the way of a draft or of deleting is removed by these, too.
    drop(store.begin(&name("a"), None).expect("begun"));
    store.delete(&next.name).expect("deleted");
    assert_eq!(store.sweep().expect("swept"), ["b.gone"]);
    assert_eq!(listed(&store), ["c was written", "full"]);
}

/// Makes a directory in that of all snapshots, with a file in it.
fn directory_with(store: &Store, dir: &str, file: &str) -> std::path::PathBuf {
    let (dir, bytes) = (store.path().join(dir), "thesis");
    std::fs::create_dir_all(&dir).expect("makeable");
    std::fs::write(dir.join(file), bytes).expect("writable");
    dir.join(file)
}

/// Seen as: `dcd snapshot delete Documents` removed a directory of documents, and `save w` a `w.part`.
#[test]
fn a_directory_of_somebodys_is_not_removed() {
    let (_dir, store) = store();
    let [_, next] = chain_of_two(&store);
    let documents = directory_with(&store, "Documents", "a.txt");
    let error = said(&store.delete(&name("Documents")).expect_err("somebody's"));
    let expected = "/Documents is not removed: 'a.txt' in it is no file that a snapshot has, and is somebody's";
    assert!(error.contains(expected), "{error}");
    let part = directory_with(&store, "w.part", "a.txt");
    let error = said(&store.begin(&name("w"), None).expect_err("somebody's"));
    assert!(error.contains("/w.part is not removed: 'a.txt' in it"), "{error}");
    let gone = directory_with(&store, "next.gone", "a.txt");
    let error = said(&store.delete(&next.name).expect_err("somebody's"));
    assert!(error.contains("/next.gone is not removed: 'a.txt' in it"), "{error}");
    // Others are swept all the same.
    directory_with(&store, "z.part", "ram.contents");
    std::fs::create_dir(store.path().join("empty.part")).expect("makeable");
    assert_eq!(store.sweep().expect("swept"), ["empty.part", "z.part"]);
    for file in [&documents, &part, &gone] {
        assert_eq!(std::fs::read_to_string(file).expect("there"), "thesis", "{}", file.display());
    }
    assert!(read_all(&store, &next).expect("readable").is_some());
}

#[test]
fn what_is_in_the_way_of_removing_is_named_and_nothing_is_changed() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let dir = store.path().join("next");
    let refused = |what: &str| {
        for error in
            [store.delete(&next.name).expect_err(what), store.flatten(&next.name, &mut |_| ()).expect_err(what)]
        {
            assert!(matches!(error, SnapshotError::Foreign { .. }) && said(&error).contains(what), "{error}");
        }
        assert!(read_all(&store, &next).expect("readable").is_some(), "{what}");
    };
    for note in ["notes", ".hidden.contents", "a b.contents", "PARTS"] {
        let note_path = directory_with(&store, "next", note);
        refused(&format!("'{note}' in it is no file that a snapshot has"));
        std::fs::remove_file(note_path).expect("removable");
    }
    std::fs::create_dir(dir.join("x.contents")).expect("makeable");
    refused("'x.contents' in it is a directory");
    std::fs::remove_dir(dir.join("x.contents")).expect("removable");
    std::os::unix::fs::symlink("/etc/passwd", dir.join("x.contents")).expect("makeable");
    refused("'x.contents' in it is a symbolic link");
    std::fs::remove_file(dir.join("x.contents")).expect("removable");
    // One that is damaged, or of which little is left, goes.
    directory_with(&store, "next", "old.contents");
    std::fs::write(dir.join("manifest.json"), "{}").expect("writable");
    store.delete(&next.name).expect("deleted");
    std::fs::remove_file(store.path().join("full/manifest.json")).expect("removable");
    store.delete(&full.name).expect("deleted");
    assert_eq!(listed(&store), Vec::<String>::new());
}

/// Seen as: "cannot make '.'".
#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let (_dir, store) = store();
    std::fs::remove_dir(store.path()).expect("removable");
    let error = said(&store.begin(&name("b"), None).expect_err("nowhere"));
    let expected = format!("snapshot 'b': cannot make '{}/b.part': No such file", store.path().display());
    assert!(error.contains(&expected), "{error}");
}

/// Seen as: a list called a snapshot whole that could not be loaded, because its parent was gone, or was another.
#[test]
fn one_is_only_whole_with_all_that_it_is_built_on() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let ram = memory(LEN_BYTES);
    let open = store.snapshot(&next.name).expect("there");
    let third = store.begin(&name("third"), Some(&open)).expect("begun");
    drop(finish(third, &ram, Base::Parent).expect("finished"));
    drop(open);
    assert_eq!(listed(&store), ["full", "next", "third"]);
    // What opening says of it.
    let refused = |snapshot: &str| format!("{snapshot}: {}", store.snapshot(&name(snapshot)).expect_err("refused"));
    std::fs::rename(store.path().join("full"), store.path().join(".kept")).expect("movable");
    assert!(refused("next").contains("'next' is built on 'full'") && refused("next").contains("there is no snapshot"));
    assert_eq!(listed(&store), [refused("next"), refused("third")]);
    drop(finish(store.begin(&full.name, None).expect("begun"), &ram, Base::Zeros).expect("finished"));
    assert!(refused("next").contains("but the 'full' that is there has id"));
    assert_eq!(listed(&store), ["full".to_owned(), refused("next"), refused("third")]);
    std::fs::write(store.path().join("full/manifest.json"), "{").expect("writable");
    assert_eq!(listed(&store), [refused("full"), refused("next"), refused("third")]);
    std::fs::remove_dir_all(store.path().join("full")).expect("removable");
    std::fs::rename(store.path().join(".kept"), store.path().join("full")).expect("movable");
    assert_eq!(listed(&store), ["full", "next", "third"]);
    // One that was flattened is still the one.
    drop(store.flatten(&next.name, &mut |_| ()).expect("flattened"));
    assert_eq!(listed(&store), ["full", "next", "third"]);
}

#[test]
fn a_parent_is_the_right_one() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    // Another one under the same name.
    std::fs::rename(store.path().join("full"), store.path().join("kept")).expect("movable");
    let open = |snapshot: &Expected| said(&store.snapshot(&snapshot.name).expect_err("refused"));
    assert!(open(&next).contains("'next' is built on 'full'") && open(&next).contains("there is no snapshot 'full'"));
    let ram = memory(LEN_BYTES);
    let other = finish(store.begin(&full.name, None).expect("begun"), &ram, Base::Zeros).expect("finished");
    let error = store.snapshot(&next.name).expect_err("refused");
    let SnapshotError::OtherParent { found, wanted, .. } = &error else { panic!("{error}") };
    assert_eq!(*found, other.id());
    assert!(said(&error).contains(&wanted.to_string()) && said(&error).contains(&found.to_string()));
    // Deleting that one does `next` no harm.
    drop(other);
    store.delete(&full.name).expect("deleted");
    let kept = said(&store.snapshot(&name("kept")).expect_err("refused"));
    assert!(kept.contains("its name is 'full'; name the directory so again"), "{kept}");
    std::fs::rename(store.path().join("kept"), store.path().join("full")).expect("movable");
    assert!(read_all(&store, &next).expect("readable").is_some());
}

#[test]
fn a_parent_that_is_replaced_while_a_draft_is_written_is_seen() {
    let (_dir, store) = store();
    let ram = memory(LEN_BYTES);
    let full = finish(store.begin(&name("full"), None).expect("begun"), &ram, Base::Zeros).expect("finished");
    let draft = store.begin(&name("next"), Some(&full)).expect("begun");
    std::fs::remove_dir_all(store.path().join("full")).expect("removable");
    let error = finish(draft, &ram, Base::Parent).expect_err("no parent");
    assert!(matches!(error, SnapshotError::Parent { .. }), "{error}");
    assert_eq!(listed(&store), Vec::<String>::new());
}

#[test]
fn a_parent_is_in_the_same_store() {
    let ((_dir, here), (_there_dir, there)) = (store(), store());
    let ram = memory(LEN_BYTES);
    let full = finish(there.begin(&name("full"), None).expect("begun"), &ram, Base::Zeros).expect("finished");
    assert!(matches!(here.begin(&name("next"), Some(&full)), Err(SnapshotError::ForeignParent { .. })));
    // The same directory by another way is the same.
    let again = Store::open(&there.path().join("../snapshots")).expect("there");
    drop(again.begin(&name("next"), Some(&full)).expect("begun"));
}

#[test]
fn what_is_there_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, store) = store();
    let [full, _] = chain_of_two(&store);
    let mode = |path: &std::path::Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&store.path().join("full")), 0o700);
    assert!(files(store.path(), &full.name).iter().all(|path| mode(path) == 0o600));
}
