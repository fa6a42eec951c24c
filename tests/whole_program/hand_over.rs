//! Hand-over: a VM goes from process to process, its guest goes on, and whoever dies on the way, one of them has it.
//!
//! `DCD_HAND_OVER_KILLS=200` kills more often.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actors::{Accel, Fatal, GuestProgram, HandedOver};
use driver::Policy;
use journal::record::Genesis;
use serde_json::{Value, json};
use vm::{Job, JobAnswer};
use wire::Hpa;

use crate::kvm;
use crate::plug::call;
use crate::program::{Client, MIB, Program, TAG0, TAG1, add_arguments, printed, release_arguments};
use crate::restoring::{accept, assert_filled, fill, wait_for, window};
use crate::traffic::Dice;
use crate::vm::{InProcess, Wanted, replayed};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn wanted(backend_dir: Option<&Path>) -> Wanted {
    Wanted {
        accel: Accel::Kvm { vcpus: 2 },
        guest: GuestProgram::from(Policy::Accept),
        backend_dir: backend_dir.map(Path::to_owned),
        ..Wanted::default()
    }
}

/// Hands a VM over inside this process: what the giver heard, and the VM at the taker.
pub(crate) fn hand_over(giver: &InProcess, wanted: Wanted) -> Result<(HandedOver, InProcess), String> {
    let (here, there) = UnixStream::pair().expect("a pair");
    thread::scope(|scope| {
        let taking = scope.spawn(move || InProcess::take_over(wanted, there));
        let handed = giver.runtime.block_on(giver.vm.hand_over(here));
        if handed.is_ok() {
            giver.runtime.block_on(giver.vm.let_go());
        }
        match (handed, taking.join().expect("no panic")) {
            (Ok(handed), Ok((vm, owner))) => {
                drop(owner.wait_for_go(PATIENCE));
                Ok((handed, vm))
            }
            (Err(kept), Err(refused)) => Err(format!("{kept}; {refused}")),
            (Ok(_), Err(error)) => panic!("nobody has it: {error}"),
            (Err(error), Ok(_)) => panic!("both have it: {error}"),
        }
    })
}

/// The last of a VM that another has: its journal is whole, and says what the other began with.
fn check_given(giver: InProcess) -> device::vm::Vm {
    assert!(matches!(*giver.vm.fatal().borrow(), Some(Fatal::HandedOver { doubt: None, .. })));
    let InProcess { vm, service, bus, dir, runtime } = giver;
    drop((service, bus, vm, runtime));
    replayed(&dir.path().join("journal")).1
}

fn number(vm: &InProcess) -> u64 {
    u64::from_le_bytes(vm.backend_bytes("count", 0, 8).try_into().expect("8 bytes"))
}

/// RAM, memfd and file keep their bytes, a count loses and doubles no number, and each next process serves what comes next.
#[test]
fn a_guest_goes_through_three_processes_in_the_middle_of_its_count() {
    if !kvm::is_there() {
        return;
    }
    let files = tempfile::tempdir().expect("a directory");
    let mut vm = InProcess::start(wanted(Some(files.path())));
    let memfd = json!({"qom-type": "memory-backend-memfd", "id": "memfd", "size": 64 * MIB, "tag": TAG1});
    let file_tag = TAG0.replace("5be", "7be");
    let file = json!({"qom-type": "memory-backend-file", "id": "file", "size": 64 * MIB, "tag": file_tag, "mem-path": "file",
                      "share": true});
    accept(&vm, "tm0", TAG0, 0);
    for (backend, tag, dpa) in [(memfd, TAG1, 64 * MIB), (file, file_tag.as_str(), 128 * MIB)] {
        vm.qmp("object-add", backend).expect("a backend");
        vm.qmp("cxl-add-dynamic-capacity", add_arguments(tag, &[(dpa, 64 * MIB)])).expect("an offer");
        wait_for(|| vm.state(tag) == "accepted");
    }
    let at = |n: u64| Hpa(window(&vm).0 + n * 64 * MIB);
    let places = [at(0), at(1), at(2), at(3)];
    (1..).zip(&places[..3]).for_each(|(seed, at)| fill(&vm, *at, seed));
    accept(&vm, "count", &TAG0.replace("5be", "8be"), 192 * MIB);
    let count = Job::Count { hpa: places[3], first: 1 };
    drop(vm.vm.machine().expect("a guest on KVM").start_job(1, count.clone()).expect("a job"));
    for hop in 0..3 {
        wait_for(|| number(&vm) > 1_000);
        let memory = vm.runtime.block_on(vm.vm.memory_of("count")).expect("a VM").expect("a backend");
        let (handed, next) = hand_over(&vm, wanted(Some(files.path()))).expect("handed over");
        eprintln!("hop {hop}: the guest stood still for {:?}", handed.pause);
        let left_at = read_number(&memory);
        let before = std::mem::replace(&mut vm, next);
        // Of a file that both have mapped, it sees the guest go on; of one that was copied it sees where it stood.
        assert!(hop > 0 || number(&vm) >= left_at, "{left_at} and then {}", number(&vm));
        wait_for(|| number(&vm) > left_at);
        assert!(hop > 0 || read_number(&memory) == left_at, "the giver's guest runs on");
        let state = check_given(before);
        assert_eq!(state.backends.iter().count(), 4 + hop, "what the giver had is what it had at the end");
        (1..).zip(&places[..3]).for_each(|(seed, at)| assert_filled(&vm, *at, seed));
        // Its next event, interrupt, mailbox commands and accesses.
        accept(&vm, &format!("next{hop}"), &TAG0.replace("5be", &format!("9b{hop}")), (4 + hop as u64) * 64 * MIB);
    }
    let counting = vm.vm.machine().expect("a guest on KVM").adopt_job(1, count).expect("it counts still");
    counting.stop();
    let JobAnswer::Counted(counted) = counting.wait(PATIENCE).expect("its end") else { panic!("a count") };
    assert_eq!((counted.differ, counted.first_different), (0, None), "{counted:?}");
    assert_eq!(counted.last, number(&vm));
    drop(counting);
    let mut bytes = vec![0; 64];
    std::os::unix::fs::FileExt::read_exact_at(
        &fs::File::open(files.path().join("file")).expect("a file"),
        &mut bytes,
        0,
    )
    .expect("its bytes");
    let pattern: Vec<_> = (0..64).map(|at| vm::pattern_byte(3, at)).collect();
    assert_eq!(bytes, pattern, "the file is the memory still");
    vm.end();
}

fn read_number(memory: &memory::HostMemory) -> u64 {
    let mut bytes = [0; 8];
    memory.read(0, &mut bytes).expect("inside");
    u64::from_le_bytes(bytes)
}

/// A request that comes meanwhile is granted and then known to the next one, or refused and then unknown to it.
#[test]
fn requests_in_a_hand_over_are_answered_or_refused_and_never_lost() {
    for accel in [Accel::Soft, Accel::Kvm { vcpus: 1 }] {
        if accel != Accel::Soft && !kvm::is_there() {
            continue;
        }
        let wanted = || Wanted { accel, ..wanted(None) };
        let mut vm = InProcess::start(wanted());
        for hop in 0..3u64 {
            let (granted, refused) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
            let is_over = AtomicBool::new(false);
            let next = thread::scope(|scope| {
                for operator in 0..3u64 {
                    let (vm, granted, refused, is_over) = (&vm, &granted, &refused, &is_over);
                    scope.spawn(move || {
                        for n in 0.. {
                            if is_over.load(Ordering::Relaxed) {
                                break;
                            }
                            let id = format!("t{hop}-{operator}-{n}");
                            let object = json!({"qom-type": "memory-backend-ram", "id": id, "size": 4096});
                            let (set, is_granted) = match call(vm, "object-add", object) {
                                Ok(_) => (granted, true),
                                Err(_) => (refused, false),
                            };
                            set.lock().expect("no panic").insert(id);
                            // It comes and goes in between, so that a hand-over finds what it had looked at: on a busy machine, too.
                            thread::sleep(Duration::from_millis(if is_granted { 40 + 10 * n } else { 1 }));
                        }
                    });
                }
                let begun = Instant::now();
                let next = loop {
                    thread::sleep(Duration::from_millis(20));
                    match hand_over(&vm, wanted()) {
                        // A backend came while memory was copied: it is asked again.
                        Err(kept) if begun.elapsed() < PATIENCE && kept.contains("ask again") => {}
                        ended => break ended,
                    }
                };
                // Also where it has failed: the others would go on for ever.
                is_over.store(true, Ordering::Relaxed);
                next.expect("handed over").1
            });
            let before = std::mem::replace(&mut vm, next);
            let state = check_given(before);
            let there: BTreeSet<_> = state.backends.iter().map(|(id, _)| id.to_owned()).collect();
            let known = vm.runtime.block_on(vm.vm.state()).expect("a VM");
            let (granted, refused) = (granted.into_inner().expect("a set"), refused.into_inner().expect("a set"));
            assert!(known.backends.iter().map(|(id, _)| id).eq(there.iter().map(String::as_str)));
            assert!(granted.is_subset(&there), "granted and lost: {:?}", granted.difference(&there));
            assert!(refused.is_disjoint(&there), "refused and done: {:?}", refused.intersection(&there));
            assert!(!granted.is_empty());
        }
        accept(&vm, "tm0", TAG0, 0);
        vm.end();
    }
}

/// Where a program with this journal listens.
fn address(dir: &Path) -> String {
    format!("unix:{}", dir.join("qmp.sock").display())
}

/// Begins to take the VM of the program whose socket is in `from`.
pub(crate) fn taker(dir: &Path, journal: &str, from: &Path, more: &[&str]) -> Program {
    let from = address(from);
    Program::begin(dir, journal, &[&["--takeover", &from], more].concat())
}

pub(crate) fn accepts(client: &mut Client, id: &str, tag: &str, dpa: u64) {
    client.object_add(id, tag, 2 * MIB).expect("a backend");
    client.add(tag, &[(dpa, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", tag);
}

/// The parent that a journal names.
fn parent(dir: &Path) -> PathBuf {
    let genesis = Genesis::of(&journal::read(dir).expect("a journal")).expect("a genesis");
    PathBuf::from(genesis.parent.expect("a parent").journal)
}

#[test]
fn three_programs_after_each_other_answer_at_one_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut program = Program::start(dir.path(), &[]);
    let mut client = program.client();
    accepts(&mut client, "tm0", TAG0, 0);
    let mut journals = Vec::new();
    for hop in 1..=3u64 {
        // The guest clears its event after it has answered.
        let before = loop {
            let query = client.query();
            if query["counters"]["event-records"] == 0 {
                break query;
            }
        };
        // One that was stopped stays so, until somebody lets it go on.
        let is_stopped = hop == 2;
        if is_stopped {
            client.execute("stop", json!({})).expect("stopped");
            client.events.clear();
        }
        let name = format!("journal{hop}");
        let next = taker(dir.path(), &name, dir.path(), &[]).ready().unwrap_or_else(|said| panic!("hop {hop}: {said}"));
        assert!(next.announced.contains("taken over from") && next.announced.contains("(new)"), "{}", next.announced);
        assert!(client.message().is_none(), "its clients see an end, and nothing else");
        assert_eq!(next.announced.contains("the guest is paused, as it was"), is_stopped, "{}", next.announced);
        let old = std::mem::replace(&mut program, next);
        let (journal, (is_clean, said)) = (old.journal(), old.end());
        assert!(is_clean && said.contains("handed over: ") && said.contains(&name), "{said}");
        client = program.client();
        let now = client.query();
        for member in ["extents", "offers", "counters", "regions"] {
            assert_eq!(now[member], before[member], "{member}");
        }
        let status = client.execute("query-status", json!({})).expect("a status");
        assert_eq!(status["status"], if is_stopped { "paused" } else { "running" });
        if is_stopped {
            client.execute("cont", json!({})).expect("running");
        }
        accepts(&mut client, &format!("tm{hop}"), &TAG1.replace("6be", &format!("6b{hop}")), hop * 4 * MIB);
        journals.push(journal.clone());
        // Who starts the old one again is told where the VM is.
        let refused = Program::try_start_on(
            dir.path(),
            journal.file_name().expect("a name").to_str().expect("text"),
            &["--qmp", "tcp:127.0.0.1:0"],
        );
        let refused = refused.err().expect("a refusal");
        assert!(
            refused.contains("was handed over: its last state is in the journal") && refused.contains(&name),
            "{refused}"
        );
        let replayed = printed(&["replay", "--check", journal.to_str().expect("a path")]);
        assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
    }
    let journal = program.journal();
    program.terminate();
    let replayed = printed(&["replay", "--check", journal.to_str().expect("a path")]);
    assert!(replayed.contains("taken over from"), "{replayed}");
    journals.push(journal);
    for pair in journals.windows(2) {
        assert_eq!(parent(&pair[1]), pair[0]);
    }
    // A resume is of the last one: its guest boots anew.
    let program = Program::try_start_on(dir.path(), "journal3", &[]).unwrap_or_else(|said| panic!("{said}"));
    assert!(program.announced.contains("recovered from the journal, the guest boots anew"), "{}", program.announced);
    assert_eq!(program.client().state(TAG0), "accepted");
}

#[test]
fn a_taker_that_refuses_leaves_the_vm_where_it_is_and_nothing_behind() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let program = Program::start(old.path(), &[]);
    let mut client = program.client();
    accepts(&mut client, "tm0", TAG0, 0);
    let refused = |more: &[&str]| taker(new.path(), "journal", old.path(), more).ready().err().expect("a refusal");
    let device = "cxl-type3,id=cxl-vmem0,dc-regions-total-size=8G";
    let cases: [(&[&str], &str); 5] = [
        // The device that was given, and not the window that follows from it.
        (
            &["--device", device],
            "the running VM is not the one that the options describe: dc-regions-total-size of device",
        ),
        (&["--memory", "2G"], "--memory is 1073741824 there and 2147483648 here"),
        (&["--window", "size=16G"], "--window size is"),
        (&["--device", device, "--window", "size=4G"], "dc-regions-total-size of device cxl-vmem0 is"),
        (&["--object", "memory-backend-ram,id=tm0,size=4M"], "backend tm0"),
    ];
    for (n, (options, reason)) in (1..).zip(cases) {
        let said = refused(options);
        assert!(said.contains(reason), "{options:?}: {said}");
        assert!(!new.path().join("journal").exists(), "{options:?} has left a journal");
        assert!(!program.journal().join("heir").exists());
        accepts(&mut client, &format!("after{n}"), &TAG1.replace("6be", &format!("6b{n}")), n * 4 * MIB);
    }
    // A journal is there already, of whomever: it is not touched, and the other is not even asked.
    let other = Program::start(new.path(), &[]);
    let there = other.journal();
    other.terminate();
    let before = journal::read(&there).expect("a journal");
    let said = refused(&[]);
    assert!(
        said.contains("there is a journal in") && said.contains("already: a VM that is taken over begins"),
        "{said}"
    );
    assert_eq!(journal::read(&there).expect("a journal"), before);
    // Nobody answers there.
    let said = taker(new.path(), "journal2", new.path(), &[]).ready().err().expect("a refusal");
    assert!(said.contains("qmp.sock"), "{said}");
    assert!(!new.path().join("journal2").exists());
    assert_eq!(client.state(TAG0), "accepted");
    program.terminate();
}

/// What came of a hand-over in which one process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    GiverWasKilledAndTakerHasIt,
    GiverWasKilledAndTakerNeverHadIt,
    TakerWasKilledAndGiverHasIt,
    TakerWasKilledAsOwner,
}

const KILLS: &str = "DCD_HAND_OVER_KILLS";
const KILLS_IN_CI: u64 = 10;

/// Counts in the tag of a free backend until the program is gone: the last number that was acknowledged.
fn acknowledged(mut client: Client) -> u64 {
    let mut last = 0;
    loop {
        let set = json!({"path": "/objects/counter", "property": "tag", "value": counted(last + 1)});
        match client.try_execute("qom-set", set) {
            Some(Ok(_)) => last += 1,
            Some(Err(refused)) => assert!(refused.contains("the VM has stopped"), "{refused}"),
            None => return last,
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn counted(number: u64) -> String {
    format!("00000000-0000-4000-9000-{number:012x}")
}

/// What was acknowledged is there, and nothing but the one that may have been under way.
fn assert_there(program: &Program, acknowledged: u64) {
    let get = json!({"path": "/objects/counter", "property": "tag"});
    let tag = program.client().execute("qom-get", get).expect("a tag");
    let is_it = |number| tag == counted(number).as_str();
    assert!(is_it(acknowledged) || is_it(acknowledged + 1), "{acknowledged:x} was acknowledged and it is {tag}");
}

/// A journal that is not the VM's does not start, unless there is none and it would be another VM's first.
fn assert_refused(dir: &Path) {
    let is_begun = fs::read_dir(dir.join("journal/sealed")).is_ok_and(|mut files| files.next().is_some());
    let is_first = dir.join("journal/owner").exists();
    if !is_begun && !is_first {
        return;
    }
    let refused = Program::try_start(dir, &[]).err().expect("two have the VM");
    let reasons = [
        "was handed over: its last state is in",
        "was begun by a hand-over of which nothing came",
        "its creation was cut short",
    ];
    assert!(reasons.iter().any(|reason| refused.contains(reason)), "{refused}");
}

struct Round {
    old: tempfile::TempDir,
    new: tempfile::TempDir,
    giver: Program,
    acknowledged: thread::JoinHandle<u64>,
}

impl Round {
    fn start(accel: &str) -> Self {
        let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let giver = Program::start(old.path(), &["--accel", accel, "--memory", "64M"]);
        let mut client = giver.client();
        accepts(&mut client, "tm0", TAG0, 0);
        client.object_add("counter", &counted(0), 4096).expect("a backend");
        let acknowledged = thread::spawn(move || acknowledged(client));
        Self { old, new, giver, acknowledged }
    }

    /// The giver is killed so long after the taker was started.
    fn kill_giver(self, after: Duration) -> Outcome {
        let Self { old, new, giver, acknowledged } = self;
        let taker = taker(new.path(), "journal", old.path(), &[]);
        thread::sleep(after);
        giver.kill();
        let acknowledged = acknowledged.join().expect("a client");
        match taker.ready() {
            Ok(taker) => {
                assert_there(&taker, acknowledged);
                assert_refused(old.path());
                goes_on(&taker);
                Outcome::GiverWasKilledAndTakerHasIt
            }
            Err(_) => {
                assert_refused(new.path());
                let giver = Program::start(old.path(), &[]);
                assert_there(&giver, acknowledged);
                goes_on(&giver);
                Outcome::GiverWasKilledAndTakerNeverHadIt
            }
        }
    }

    /// The taker is killed so long after it was started.
    fn kill_taker(self, after: Duration) -> Outcome {
        let Self { old, new, giver, acknowledged } = self;
        let taker = taker(new.path(), "journal", old.path(), &[]);
        thread::sleep(after);
        taker.kill();
        // Asked after the other's death, it says who has the VM: where it has stopped it has given it.
        let probe = json!({"qom-type": "memory-backend-ram", "id": "probe", "size": 4096});
        let client = UnixStream::connect(old.path().join("qmp.sock")).is_ok().then(|| giver.client());
        let has_it = client.is_some_and(|mut client| matches!(client.try_execute("object-add", probe), Some(Ok(_))));
        if has_it {
            goes_on(&giver);
            assert_refused(new.path());
            if after.as_micros().is_multiple_of(2) {
                giver.kill();
                let acknowledged = acknowledged.join().expect("a client");
                assert_there(&Program::start(old.path(), &[]), acknowledged);
            } else {
                // What the dead one has left is in nobody's way.
                let taken = self::taker(new.path(), "journal", old.path(), &[]).ready();
                let taken = taken.unwrap_or_else(|said| panic!("{said}"));
                assert_there(&taken, acknowledged.join().expect("a client"));
                assert_refused(old.path());
            }
            return Outcome::TakerWasKilledAndGiverHasIt;
        }
        let (is_clean, said) = giver.end();
        assert!(is_clean && said.contains("handed over"), "{said}");
        let acknowledged = acknowledged.join().expect("a client");
        assert_refused(old.path());
        let taker = Program::start(new.path(), &[]);
        assert!(taker.announced.contains("the guest boots anew"), "{}", taker.announced);
        assert_there(&taker, acknowledged);
        goes_on(&taker);
        Outcome::TakerWasKilledAsOwner
    }
}

/// What comes next is served.
pub(crate) fn goes_on(program: &Program) {
    let mut client = program.client();
    wait_for_guest(&mut client);
    accepts(&mut client, "next", TAG1, 4 * MIB);
    client.execute("cxl-release-dynamic-capacity", release_arguments(TAG1)).expect("asked");
    client.wait_for("RELEASED", TAG1);
}

fn wait_for_guest(client: &mut Client) {
    let status: Value = client.execute("query-status", json!({})).expect("a status");
    assert_eq!(status["status"], "running");
}

#[test]
fn whoever_is_killed_in_a_hand_over_one_process_has_the_vm() {
    let kills: u64 = env::var(KILLS).map_or(KILLS_IN_CI, |kills| kills.parse().expect("a number of kills"));
    let mut dice = Dice(std::process::id() as u64 | 1 << 41);
    let has_kvm = kvm::is_there();
    // How long one takes that nobody disturbs.
    let usual = |accel: &str| {
        let Round { old, new, giver, acknowledged } = Round::start(accel);
        let begun = Instant::now();
        let taken = taker(new.path(), "journal", old.path(), &[]).ready().unwrap_or_else(|said| panic!("{said}"));
        let took = begun.elapsed();
        drop((taken, giver));
        acknowledged.join().expect("a client");
        took
    };
    let accels = if has_kvm { vec!["kvm", "soft"] } else { vec!["soft"] };
    let usual: Vec<_> = accels.iter().map(|accel| usual(accel)).collect();
    let mut outcomes = std::collections::BTreeMap::new();
    for kill in 0..kills {
        let n = (kill / 2) as usize % accels.len();
        // Most of the time a process begins; three of four meet the other.
        let whole_us = usual[n].as_micros() as u64;
        let first_us = if dice.roll(4) == 0 { 0 } else { whole_us / 3 };
        let after = Duration::from_micros(first_us + dice.roll(whole_us * 4 / 5));
        let round = Round::start(accels[n]);
        let outcome = if kill % 2 == 0 { round.kill_giver(after) } else { round.kill_taker(after) };
        eprintln!("{} after {after:?}: {outcome:?}", accels[n]);
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    eprintln!("{kills} kills, a hand-over takes {usual:?}: {outcomes:?}");
    assert!(kills < 200 || outcomes.len() == 4, "not everything was met: {outcomes:?}");
}
