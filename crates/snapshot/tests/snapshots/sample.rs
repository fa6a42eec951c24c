//! Stores and snapshots to test with.

use std::path::{Path, PathBuf};
use std::slice::from_ref;

use memory::HostMemory;
use snapshot::{Base, ContentsId, Draft, Snapshot, SnapshotError, SnapshotName, Store};
use tempfile::TempDir;

pub(crate) const PAGE: u64 = snapshot::format::PAGE_BYTES;

/// Bytes of the sample's memory: its last page is short.
pub(crate) const LEN_BYTES: u64 = 3 * PAGE + 100;

pub(crate) fn name(text: &str) -> SnapshotName {
    text.parse().expect("a name")
}

pub(crate) fn id(text: &str) -> ContentsId {
    text.parse().expect("an id")
}

pub(crate) fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::create(&dir.path().join("snapshots")).expect("a store");
    (dir, store)
}

pub(crate) fn memory(len_bytes: u64) -> HostMemory {
    HostMemory::anonymous(len_bytes).expect("memory")
}

pub(crate) fn fill(memory: &HostMemory, page: u64, byte: u8) {
    let len_bytes = PAGE.min(memory.len_bytes() - page * PAGE);
    memory.write(page * PAGE, &vec![byte; len_bytes as usize]).expect("inside");
}

pub(crate) fn bytes(memory: &HostMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len_bytes() as usize];
    memory.read(0, &mut bytes).expect("inside");
    bytes
}

/// Ends a draft of one memory, all of which is copied.
pub(crate) fn finish(mut draft: Draft, ram: &HostMemory, base: Base) -> Result<Snapshot, SnapshotError> {
    let mut writer = draft.contents(&id("ram"), ram.len_bytes(), base)?;
    writer.copy(ram, from_ref(&(0..ram.len_bytes())))?;
    draft.finish(vec![writer], &mut |_| ())
}

/// What a snapshot should give back.
pub(crate) struct Expected {
    pub(crate) name: SnapshotName,
    pub(crate) ram: Vec<u8>,
    pub(crate) parts: Vec<(String, Vec<u8>)>,
}

/// A snapshot `full` and `next` on top of it: pages of bytes, of zeros, and of zeros where there were bytes.
pub(crate) fn chain_of_two(store: &Store) -> [Expected; 2] {
    let ram = memory(LEN_BYTES);
    fill(&ram, 0, 1);
    fill(&ram, 3, 2);
    let full = store.begin(&name("full"), None).expect("begun");
    let (full, expected_full) = written(full, &ram, Base::Zeros, b"state of full");
    fill(&ram, 0, 0);
    fill(&ram, 1, 3);
    let next = store.begin(&name("next"), Some(&full)).expect("begun");
    let (_, expected_next) = written(next, &ram, Base::Parent, b"state of next, which is longer");
    [expected_full, expected_next]
}

fn written(mut draft: Draft, ram: &HostMemory, base: Base, state: &[u8]) -> (Snapshot, Expected) {
    draft.about("build", "a test").expect("said");
    draft.part("state", 7, state.to_vec()).expect("taken");
    draft.part("empty", 1, vec![]).expect("taken");
    draft.reference(&id("disk"), 1 << 40, "/some/where").expect("said");
    let snapshot = finish(draft, ram, base).expect("finished");
    let parts = vec![("state".to_owned(), state.to_vec()), ("empty".to_owned(), vec![])];
    let expected = Expected { name: snapshot.name().clone(), ram: bytes(ram), parts };
    (snapshot, expected)
}

/// The bytes of a memory as [`Snapshot::load`] gives them.
pub(crate) fn loaded(snapshot: &Snapshot, id: &ContentsId, len_bytes: u64) -> Result<Vec<u8>, SnapshotError> {
    let memory = memory(len_bytes);
    snapshot.load(id, &memory, &mut |_, _| ())?;
    Ok(bytes(&memory))
}

/// The bytes of a memory as a lazy mapping of [`Snapshot::runs`] has them.
pub(crate) fn mapped(snapshot: &Snapshot, id: &ContentsId, len_bytes: u64, bridged_bytes: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; len_bytes as usize];
    let mut end = 0;
    for run in snapshot.runs(id, bridged_bytes).expect("runs") {
        assert!(run.offset_bytes >= end && run.len_bytes > 0 && run.offset_bytes % PAGE == 0, "{run:?}");
        end = run.offset_bytes + run.len_bytes;
        let stretch = &mut bytes[run.offset_bytes as usize..end as usize];
        run.file.read_exact_at(stretch, run.file_offset_bytes).expect("readable");
    }
    bytes
}

/// Opens a snapshot and reads everything of it. `None` if it does not come out as it should, without an error.
pub(crate) fn read_all(store: &Store, expected: &Expected) -> Result<Option<Snapshot>, SnapshotError> {
    let snapshot = store.snapshot(&expected.name)?;
    let mut is_right = loaded(&snapshot, &id("ram"), LEN_BYTES)? == expected.ram;
    for (name, bytes) in &expected.parts {
        is_right &= snapshot.part(name)?.bytes == *bytes;
    }
    Ok(is_right.then_some(snapshot))
}

/// Every file of a snapshot.
pub(crate) fn files(store: &Path, name: &SnapshotName) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.join(name.as_str())).expect("listable");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// An error with all that is behind it.
pub(crate) fn said(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    said
}
