//! A process that is killed at any step of finishing leaves no snapshot, or a whole one; at any step of flattening, the one that
//! there was or the one that it was to become.

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

/// The same of flattening.
#[test]
fn a_process_that_kills_itself_flattening() {
    let (Ok(dir), Ok(kill_at)) = (std::env::var(DIR), std::env::var(KILL_AT)) else { return };
    let (store, kill_at) = (Store::open(Path::new(&dir)).expect("there"), kill_at.parse::<usize>().expect("a number"));
    let mut step = 0;
    let flattened = store.flatten(&name("next"), &mut |_| {
        if step == kill_at {
            kill_process(getpid(), Signal::KILL).expect("killed");
        }
        step += 1;
    });
    flattened.expect("flattened");
}

/// Runs it, and says whether it was killed.
fn run(store: &Store, test: &str, kill_at: usize) -> bool {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child.args(["--exact", test]).env(DIR, store.path()).env(KILL_AT, kill_at.to_string());
    !child.output().expect("ran").status.success()
}

#[test]
fn a_kill_at_any_step_leaves_no_snapshot_or_a_whole_one() {
    let (_dir, store) = store();
    let ram = memory(LEN_BYTES);
    fill(&ram, 0, 1);
    drop(finish(store.begin(&name("full"), None).expect("begun"), &ram, Base::Zeros).expect("finished"));
    let (mut kill_at, mut whole) = (0, 0);
    while run(&store, "kill::a_process_that_kills_itself", kill_at) {
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

/// What is built on it never sees a difference.
#[test]
fn a_kill_at_any_step_of_flattening_leaves_the_old_one_whole_or_the_new_one() {
    let (_dir, store) = store();
    let [_, next] = chain_of_two(&store);
    let parent = store.snapshot(&next.name).expect("there");
    let ram = memory(LEN_BYTES);
    fill(&ram, 2, 5);
    drop(finish(store.begin(&name("above"), Some(&parent)).expect("begun"), &ram, Base::Parent).expect("finished"));
    drop(parent);
    let (mut kill_at, mut flat) = (0, 0);
    while run(&store, "kill::a_process_that_kills_itself_flattening", kill_at) {
        let left: Vec<_> =
            store.list().expect("listable").into_iter().filter(|listed| listed.name() == "next").collect();
        let is_half = |listed: &Listed| matches!(listed, Listed::Unfinished { holder: Holder::Dead, .. });
        assert_eq!(left.iter().filter(|listed| is_half(listed)).count(), left.len() - 1, "killed at step {kill_at}");
        let flattened = read_all(&store, &next).expect("readable").expect("right");
        flattened.verify(&mut |_, _| ()).expect("whole");
        flat += usize::from(flattened.chain().count() == 1);
        drop(flattened);
        let above = store.snapshot(&name("above")).expect("there");
        above.verify(&mut |_, _| ()).expect("whole");
        assert!(loaded(&above, &id("ram"), LEN_BYTES).expect("loaded") == bytes(&ram));
        assert_eq!(store.sweep().expect("swept").len(), left.len() - 1);
        kill_at += 1;
        if flat > 0 {
            break;
        }
    }
    assert!(kill_at > 10 && flat == 1, "{kill_at} steps, the last of them behind the exchange");
    store.delete(&name("full")).expect("nothing is built on it");
    assert!(read_all(&store, &next).expect("readable").is_some());
}
