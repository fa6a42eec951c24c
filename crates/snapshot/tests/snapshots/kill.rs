//! A process that is killed at any step of finishing leaves no snapshot, or a whole one.

use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, getpid, kill_process};
use snapshot::{Base, Holder, Listed, Store};

use crate::sample::*;

const DIR: &str = "SNAPSHOT_TEST_DIR";
const KILL_AT: &str = "SNAPSHOT_TEST_KILL_AT";

/// What the killed process does: it is this test program, asked for this test.
#[test]
fn a_process_that_kills_itself() {
    let (Ok(dir), Ok(kill_at)) = (std::env::var(DIR), std::env::var(KILL_AT)) else { return };
    let (store, kill_at) = (Store::open(Path::new(&dir)).expect("there"), kill_at.parse::<usize>().expect("a number"));
    let parent = store.snapshot(&name("full")).expect("there");
    let ram = memory(LEN_BYTES);
    fill(&ram, 1, 5);
    let mut draft = store.begin(&name("next"), Some(&parent)).expect("begun");
    draft.part("state", 1, vec![1; 1000]).expect("taken");
    let mut writer = draft.contents(&id("ram"), LEN_BYTES, Base::Parent).expect("begun");
    let range = 0..LEN_BYTES;
    writer.copy(&ram, std::slice::from_ref(&range)).expect("copied");
    let mut step = 0;
    let finished = draft.finish(vec![writer], &mut |_| {
        if step == kill_at {
            kill_process(getpid(), Signal::KILL).expect("killed");
        }
        step += 1;
    });
    finished.expect("finished");
}

/// Runs it, and says whether it was killed.
fn run(store: &Store, kill_at: usize) -> bool {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child
        .args(["--exact", "kill::a_process_that_kills_itself"])
        .env(DIR, store.path())
        .env(KILL_AT, kill_at.to_string());
    !child.output().expect("ran").status.success()
}

#[test]
fn a_kill_at_any_step_leaves_no_snapshot_or_a_whole_one() {
    let (_dir, store) = store();
    let ram = memory(LEN_BYTES);
    fill(&ram, 0, 1);
    drop(finish(store.begin(&name("full"), None).expect("begun"), &ram, Base::Zeros).expect("finished"));
    let (mut kill_at, mut whole) = (0, 0);
    while run(&store, kill_at) {
        let found: Vec<_> =
            store.list().expect("listable").into_iter().filter(|listed| listed.name() == "next").collect();
        match &found[..] {
            [Listed::Unfinished { holder: Holder::Dead, .. }] => {
                assert!(store.snapshot(&name("next")).is_err());
                assert_eq!(store.sweep().expect("swept"), ["next.part"]);
            }
            [Listed::Whole { .. }] => {
                store.snapshot(&name("next")).and_then(|next| next.verify(&mut |_, _| ())).expect("whole");
                store.delete(&name("next")).expect("deleted");
                whole += 1;
            }
            other => panic!("killed at step {kill_at}: {other:?}"),
        }
        assert_eq!(store.list().expect("listable").len(), 1);
        kill_at += 1;
    }
    assert_eq!((kill_at, whole), (7, 1), "steps, and those of them behind the rename");
}
