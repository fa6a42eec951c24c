//! Both ends over real sockets, with somebody between them who spoils one message.

use std::fs::File;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use device::{Seq, VmTime};
use proptest::prelude::*;
use rustix::fs::MemfdFlags;

use crate::channel::{Channel, Deadline, Frame};
use crate::deed::{Deed, Draw};
use crate::frame::{Header, Kind};
use crate::*;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
/// Long enough to send a state on a busy host, and for a test to wait.
const SLOW: Duration = Duration::from_secs(2);
/// How long the one between waits for whoever speaks next; the ends give up before it.
const BETWEEN: Duration = Duration::from_secs(60);

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The connection ends instead of it.
    Death,
    /// The connection ends in the middle of it.
    HalfDeath,
    /// It never comes, and the connection stays.
    Silence,
    Garbage,
    OtherVersion,
    TooLong,
    BodyFlipped,
    OtherKind,
    DescriptorsLost,
}

const FAULTS: [Fault; 9] = [
    Fault::Death,
    Fault::HalfDeath,
    Fault::Silence,
    Fault::Garbage,
    Fault::OtherVersion,
    Fault::TooLong,
    Fault::BodyFlipped,
    Fault::OtherKind,
    Fault::DescriptorsLost,
];

/// Messages in the order of their directions.
const FROM_GIVER: [Kind; 8] =
    [Kind::Offer, Kind::Memories, Kind::State, Kind::Bytes, Kind::Bytes, Kind::Bytes, Kind::End, Kind::Go];
const FROM_TAKER: [Kind; 3] = [Kind::Hello, Kind::Ready, Kind::Taken];

#[derive(Debug)]
enum GiverEnd {
    /// The guest never stood.
    Untouched(HandoverError),
    Kept(HandoverError),
    Given(Option<HandoverError>),
}

#[derive(Debug)]
enum TakerEnd {
    Never(HandoverError),
    NotOurs,
    Owner(Released),
}

fn memfd(bytes: &[u8]) -> File {
    let file = File::from(rustix::fs::memfd_create("memory", MemfdFlags::CLOEXEC).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn memory(id: &str, bytes: &[u8], transfer: Transfer) -> Memory {
    Memory { id: id.into(), len_bytes: bytes.len() as u64, transfer, fd: memfd(bytes).into() }
}

fn hello() -> Hello {
    Hello { build: "dcd test".into(), pid: std::process::id(), journal: "/new/journal".into() }
}

fn offer() -> Offer {
    Offer {
        build: "dcd test".into(),
        about: vec![("b".into(), "1".into()), ("a".into(), "2".into())],
        journal: Some("/old/journal".into()),
        last: Seq(41),
        memories: vec![memory("ram", b"guest", Transfer::Copied), memory("tm0", b"tagged", Transfer::Shared)],
    }
}

fn part(name: &str, version: u32, bytes: Vec<u8>) -> Part {
    Part { name: name.into(), version, bytes }
}

fn state() -> State {
    let long = (0..1_500_000_u32).map(|at| at as u8).collect();
    let parts = vec![part("device", 3, long), part("none", 1, Vec::new()), part("vcpu0", 1, vec![7; 90])];
    State { parts, last: Seq(42), clock: VmTime(1_000_000_007), run: RunState::Running }
}

fn give(stream: UnixStream, timeout: Duration) -> GiverEnd {
    let prepared = Giver::hello(stream, timeout).and_then(|giver| giver.offer(&offer(), timeout));
    let giver = match prepared {
        Ok(giver) => giver,
        Err(error) => return GiverEnd::Untouched(error),
    };
    match giver.state(&state(), timeout) {
        Outcome::Kept(error) => GiverEnd::Kept(error),
        Outcome::Given(mut given) => {
            let doubt = given.doubt.take();
            given.go(timeout).ok();
            GiverEnd::Given(doubt)
        }
    }
}

fn take(stream: UnixStream, timeout: Duration) -> TakerEnd {
    let stated = Taker::begin(stream, &hello(), timeout).and_then(|(taker, _offer)| taker.ready(timeout));
    match stated.map(|(taker, _state)| taker.taken()) {
        Err(error) => TakerEnd::Never(error),
        Ok(Err(_)) => TakerEnd::NotOurs,
        Ok(Ok(owner)) => TakerEnd::Owner(owner.wait_for_go(timeout)),
    }
}

/// Passes messages on, the one at `spoiled` with a fault. Ends with the connection.
fn pass(from: UnixStream, to: UnixStream, spoiled: Option<(usize, Fault)>) {
    let end = || {
        // Both directions: the process is dead.
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    };
    let reader = Channel::new(from.try_clone().unwrap()).unwrap();
    for at in 0.. {
        let Ok(frame) = reader.receive(Kind::Hello, Deadline::after(BETWEEN)) else { break };
        let fault = spoiled.filter(|(spoiled, _)| *spoiled == at).map(|(_, fault)| fault);
        match fault {
            Some(Fault::Death) => break,
            Some(Fault::Silence) => continue,
            _ => {}
        }
        if forward(&frame, &to, fault).is_err() || fault == Some(Fault::HalfDeath) {
            break;
        }
    }
    end();
}

fn forward(frame: &Frame, to: &UnixStream, fault: Option<Fault>) -> Result<(), HandoverError> {
    let kind = if fault == Some(Fault::OtherKind) { other(frame.kind) } else { frame.kind };
    let body: &[u8] = if kind == frame.kind { &frame.body } else { &[] };
    let fds: Vec<_> = frame.fds.iter().map(AsFd::as_fd).filter(|_| kind == frame.kind).collect();
    let mut bytes = [Header::new(kind, body, fds.len())?.to_bytes().as_slice(), body].concat();
    let reseal = |bytes: &mut [u8]| {
        let crc = crc32fast::hash(&bytes[..20]).to_le_bytes();
        bytes[20..24].copy_from_slice(&crc);
    };
    match fault {
        Some(Fault::Garbage) => bytes = vec![0xa5; 64],
        Some(Fault::OtherVersion) => bytes[4] = 9,
        Some(Fault::TooLong) => {
            bytes[8..12].fill(0xff);
            reseal(&mut bytes);
        }
        Some(Fault::BodyFlipped) => *bytes.last_mut().unwrap() ^= 1,
        Some(Fault::HalfDeath) => bytes.truncate(bytes.len() / 2),
        _ => {}
    }
    let fds = if matches!(fault, Some(Fault::DescriptorsLost | Fault::Garbage)) { &[] } else { fds.as_slice() };
    Channel::new(to.try_clone().unwrap())?.send_bytes(kind, &bytes, fds, Deadline::after(BETWEEN))
}

/// A kind that is right at no time in the place of another, and has an empty body.
fn other(kind: Kind) -> Kind {
    if kind == Kind::Ready { Kind::Taken } else { Kind::Ready }
}

/// A hand-over in which one message has a fault.
fn run(
    from_giver: Option<(usize, Fault)>,
    from_taker: Option<(usize, Fault)>,
    timeout: Duration,
) -> (GiverEnd, TakerEnd) {
    let (giver, by_giver) = UnixStream::pair().unwrap();
    let (taker, by_taker) = UnixStream::pair().unwrap();
    let clones = (by_giver.try_clone().unwrap(), by_taker.try_clone().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || pass(by_giver, by_taker, from_giver));
        scope.spawn(move || pass(clones.1, clones.0, from_taker));
        let giver = scope.spawn(move || give(giver, timeout));
        let taker = scope.spawn(move || take(taker, timeout));
        (giver.join().unwrap(), taker.join().unwrap())
    })
}

fn check_one_owner(what: &str, ends: &(GiverEnd, TakerEnd)) {
    let giver_owns = !matches!(ends.0, GiverEnd::Given(_));
    let taker_owns = matches!(ends.1, TakerEnd::Owner(_));
    assert!(giver_owns != taker_owns, "{what}: {ends:?}");
}

/// Whether an error is what who reads a fault makes of it.
fn is_of(fault: Fault, error: &HandoverError) -> bool {
    match fault {
        Fault::Death | Fault::HalfDeath => matches!(error, HandoverError::Closed { .. }),
        Fault::Garbage => matches!(error, HandoverError::Foreign),
        Fault::OtherVersion => matches!(error, HandoverError::Version { theirs: 9, .. }),
        Fault::TooLong => matches!(error, HandoverError::TooMany { .. }),
        Fault::BodyFlipped => matches!(error, HandoverError::Damaged { .. }),
        Fault::OtherKind => matches!(error, HandoverError::Unexpected { .. }),
        Fault::DescriptorsLost => matches!(error, HandoverError::Descriptors { .. }),
        Fault::Silence => matches!(error, HandoverError::Silent { .. } | HandoverError::Unexpected { .. }),
    }
}

fn timeout_of(fault: Fault) -> Duration {
    if fault == Fault::Silence { SHORT } else { LONG }
}

#[test]
fn an_undisturbed_hand_over_succeeds() {
    let ends = run(None, None, LONG);
    assert!(matches!(ends, (GiverEnd::Given(None), TakerEnd::Owner(Released::Said))), "{ends:?}");
}

#[test]
fn whatever_happens_to_a_message_of_the_giver_one_owns_the_vm() {
    thread::scope(|scope| {
        for (at, kind) in FROM_GIVER.into_iter().enumerate() {
            scope.spawn(move || {
                for fault in FAULTS {
                    if fault == Fault::DescriptorsLost && !matches!(kind, Kind::Memories | Kind::End) {
                        continue;
                    }
                    let ends = run(Some((at, fault)), None, timeout_of(fault));
                    let what = format!("{fault:?} of {kind}, message {at}");
                    check_one_owner(&what, &ends);
                    if fault == Fault::Silence {
                        // A busy host may be silent before that too: what else is said depends on time.
                        continue;
                    }
                    match &ends.1 {
                        TakerEnd::Never(error) => assert!(kind != Kind::Go && is_of(fault, error), "{what}: {ends:?}"),
                        TakerEnd::Owner(Released::Unsaid(error)) => {
                            assert!(kind == Kind::Go && is_of(fault, error), "{what}: {ends:?}");
                        }
                        _ => panic!("{what}: {ends:?}"),
                    }
                    if let GiverEnd::Untouched(error) | GiverEnd::Kept(error) = &ends.0 {
                        let is_told = matches!(error, HandoverError::Refused { .. } | HandoverError::Closed { .. });
                        assert!(is_told, "{what}: {ends:?}");
                    }
                }
            });
        }
    });
}

#[test]
fn whatever_happens_to_a_message_of_the_taker_one_owns_the_vm() {
    thread::scope(|scope| {
        for (at, kind) in FROM_TAKER.into_iter().enumerate() {
            scope.spawn(move || {
                for fault in FAULTS.into_iter().filter(|fault| *fault != Fault::DescriptorsLost) {
                    let ends = run(None, Some((at, fault)), timeout_of(fault));
                    let what = format!("{fault:?} of {kind}, message {at}");
                    check_one_owner(&what, &ends);
                    if fault == Fault::Silence {
                        // A busy host may be silent before that too: what else is said depends on time.
                        continue;
                    }
                    match &ends.0 {
                        GiverEnd::Untouched(error) => assert!(is_of(fault, error), "{what}: {ends:?}"),
                        // The taker had drawn before it spoke.
                        GiverEnd::Given(Some(error)) => {
                            assert!(kind == Kind::Taken && is_of(fault, error), "{what}: {ends:?}")
                        }
                        _ => panic!("{what}: {ends:?}"),
                    }
                }
            });
        }
    });
}

#[test]
fn what_is_given_is_what_is_taken() {
    let (giver, taker) = UnixStream::pair().unwrap();
    // More than one message's descriptors. All are one file: a process may not have many open.
    let file = memfd(&[5; 4096]);
    let memory = |index| Memory {
        id: format!("m{index}"),
        len_bytes: index,
        transfer: if index % 2 == 0 { Transfer::Shared } else { Transfer::Copied },
        fd: file.try_clone().unwrap().into(),
    };
    let offered = Offer { memories: (0..300).map(memory).collect(), ..offer() };
    thread::scope(|scope| {
        scope.spawn(|| {
            let giver = Giver::hello(giver, LONG).unwrap();
            assert_eq!((giver.taker(), giver.peer().pid), (&hello(), std::process::id()));
            let giver = giver.offer(&offered, LONG).unwrap();
            giver.check().unwrap();
            let Outcome::Given(given) = giver.state(&state(), LONG) else { panic!("kept") };
            let pid = std::process::id();
            let holder = format!("process {pid} (dcd test) has the VM; its last state is in the journal /new/journal");
            assert_eq!((given.holder(), given.doubt().is_none()), (holder, true));
            given.go(LONG).unwrap();
        });
        let (taker, offer) = Taker::begin(taker, &hello(), LONG).unwrap();
        assert_eq!((offer.build, offer.about, offer.journal, offer.last), {
            let Offer { build, about, journal, last, .. } = self::offer();
            (build, about, journal, last)
        });
        for (index, memory) in offer.memories.iter().enumerate() {
            let transfer = if index % 2 == 0 { Transfer::Shared } else { Transfer::Copied };
            let expected = (format!("m{index}"), index as u64, transfer);
            assert_eq!((memory.id.clone(), memory.len_bytes, memory.transfer), expected);
        }
        let theirs = File::from(offer.memories.into_iter().next_back().unwrap().fd);
        theirs.write_all_at(b"shared", 0).unwrap();
        let (taker, state) = taker.ready(LONG).unwrap();
        assert_eq!(state, self::state());
        assert!(matches!(taker.taken().unwrap().wait_for_go(LONG), Released::Said));
    });
    let mut seen = [0; 6];
    file.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"shared", "it is one file");
}

/// Both up to the pause.
fn prepared() -> (Giver<Prepared>, thread::JoinHandle<(Taker<Stated>, State)>) {
    let (giver, taker) = UnixStream::pair().unwrap();
    let taker = thread::spawn(move || {
        let (taker, _) = Taker::begin(taker, &hello(), LONG).unwrap();
        taker.ready(LONG).unwrap()
    });
    (Giver::hello(giver, LONG).unwrap().offer(&offer(), LONG).unwrap(), taker)
}

#[test]
fn a_taker_that_is_too_slow_hears_that_the_vm_was_taken_back() {
    let (giver, taker) = prepared();
    let outcome = giver.state(&state(), SLOW);
    assert!(matches!(outcome, Outcome::Kept(HandoverError::Silent { awaited: Kind::Taken, .. })), "{outcome:?}");
    let said = taker.join().unwrap().0.taken().unwrap_err().to_string();
    let pid = std::process::id();
    assert_eq!(
        said,
        format!(
            "process {pid} has taken the VM back: the word that the new process has the VM has not come within 2000 ms: \
             the other process is stopped, or slow; \
             allow more time"
        )
    );
}

#[test]
fn a_taker_that_cannot_load_says_why() {
    let (giver, taker) = prepared();
    let refusing = thread::spawn(move || taker.join().unwrap().0.refuse("part device is of version 3"));
    match giver.state(&state(), LONG) {
        Outcome::Kept(error) => {
            assert_eq!(error.to_string(), "the other process does not go on: part device is of version 3");
        }
        Outcome::Given(given) => panic!("{given:?}"),
    }
    refusing.join().unwrap();
}

#[test]
fn a_taker_that_dies_as_the_owner_has_the_vm_all_the_same() {
    let (giver, taker) = prepared();
    let dying = thread::spawn(move || drop(taker.join().unwrap().0.taken().unwrap()));
    let Outcome::Given(given) = giver.state(&state(), LONG) else { panic!("two would own it") };
    dying.join().unwrap();
    assert!(matches!(given.go(LONG), Err(HandoverError::Closed { .. })));
}

#[test]
fn a_giver_that_dies_after_the_state_has_given_the_vm() {
    let (giver, taker) = UnixStream::pair().unwrap();
    let dying = thread::spawn(move || {
        let (channel, deadline) = (Channel::new(giver).unwrap(), Deadline::after(LONG));
        Hello::receive(&channel, deadline).unwrap();
        offer().send(&channel, deadline).unwrap();
        channel.expect(Kind::Ready, deadline).unwrap();
        state().send(&Deed::new().unwrap(), &channel, deadline).unwrap();
    });
    let (taker, _) = Taker::begin(taker, &hello(), LONG).unwrap();
    let (taker, _) = taker.ready(LONG).unwrap();
    dying.join().unwrap();
    let released = taker.taken().unwrap().wait_for_go(LONG);
    assert!(matches!(released, Released::Unsaid(HandoverError::Closed { awaited: Kind::Go })), "{released:?}");
}

#[test]
fn a_giver_that_does_not_wait_leaves_one_owner_all_the_same() {
    let (giver, taker) = UnixStream::pair().unwrap();
    let taking = thread::spawn(move || take(taker, LONG));
    let giver = Giver::hello(giver, LONG).unwrap().offer(&offer(), LONG).unwrap();
    let end = match giver.state(&state(), Duration::ZERO) {
        Outcome::Kept(error) => GiverEnd::Kept(error),
        Outcome::Given(given) => GiverEnd::Given(given.doubt),
    };
    check_one_owner("no time at all", &(end, taking.join().unwrap()));
}

#[test]
fn a_giver_that_asks_hears_of_a_taker_that_has_left() {
    let (giver, taker) = UnixStream::pair().unwrap();
    let leaving = thread::spawn(move || {
        let channel = Channel::new(taker).unwrap();
        let deadline = Deadline::after(LONG);
        hello().send(&channel, deadline).unwrap();
        Offer::receive(&channel, deadline).unwrap();
        channel.send(Kind::Ready, &[], &[], deadline).unwrap();
        channel
    });
    let giver = Giver::hello(giver, LONG).unwrap().offer(&offer(), LONG).unwrap();
    let channel = leaving.join().unwrap();
    giver.check().unwrap();
    channel.say_reason(Kind::Refused, "no room");
    assert!(matches!(giver.check(), Err(HandoverError::Refused { reason }) if reason == "no room"));
    drop(channel);
    assert!(matches!(giver.check(), Err(HandoverError::Closed { .. })));
}

#[test]
fn a_taker_that_lies_does_not_get_the_vm() {
    let (giver, taker) = UnixStream::pair().unwrap();
    let lying = thread::spawn(move || {
        let channel = Channel::new(taker).unwrap();
        let deadline = Deadline::after(LONG);
        hello().send(&channel, deadline).unwrap();
        Offer::receive(&channel, deadline).unwrap();
        channel.send(Kind::Ready, &[], &[], deadline).unwrap();
        let (_, deed) = State::receive(&channel, deadline).unwrap();
        channel.send(Kind::Taken, &[], &[], deadline).unwrap();
        (channel, deed)
    });
    let giver = Giver::hello(giver, LONG).unwrap().offer(&offer(), LONG).unwrap();
    let outcome = giver.state(&state(), LONG);
    assert!(matches!(outcome, Outcome::Kept(HandoverError::FalseTaken)), "{outcome:?}");
    assert_eq!(lying.join().unwrap().1.draw(), Draw::Gone);
}

#[test]
fn what_is_past_a_limit_is_not_sent() {
    let refusal = |offer: &Offer| {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let sent = offer.send(&Channel::new(ours).unwrap(), Deadline::after(LONG));
        sent.unwrap_err().to_string()
    };
    let twice = || vec![memory("ram", b"a", Transfer::Shared), memory("ram", b"b", Transfer::Shared)];
    let many = vec![("a".to_owned(), "b".to_owned()); ABOUT_LEN_MAX + 1];
    let short = Memory { len_bytes: 6, ..memory("ram", b"short", Transfer::Shared) };
    let no_file = Memory { fd: UnixStream::pair().unwrap().0.into(), ..memory("ram", b"", Transfer::Shared) };
    let refusals = [
        refusal(&Offer { about: many, ..offer() }),
        refusal(&Offer { build: "x".repeat(TEXT_LEN_BYTES_MAX + 1), ..offer() }),
        refusal(&Offer { memories: twice(), ..offer() }),
        refusal(&Offer { memories: vec![memory(&"x".repeat(256), b"", Transfer::Shared)], ..offer() }),
        refusal(&Offer { memories: vec![short], ..offer() }),
        refusal(&Offer { memories: vec![no_file], ..offer() }),
    ];
    expect_test::expect![[r#"
        the offer of the VM has 201 pairs of text, and at most 200 are allowed
        the offer of the VM has 4097 bytes in a text, and at most 4096 are allowed
        the VM's memory: the name 'ram' is empty or not the only one
        the VM's memory has 256 bytes in a name, and at most 255 are allowed
        the VM's memory: memory ram has 6 bytes and its file only 5
        the VM's memory: what came as memory ram is no file"#]]
    .assert_eq(&refusals.join("\n"));
}

fn send_raw(kind: Kind, body: &[u8]) -> Channel {
    let (ours, theirs) = UnixStream::pair().unwrap();
    Channel::new(ours).unwrap().send(kind, body, &[], Deadline::after(LONG)).unwrap();
    Channel::new(theirs).unwrap()
}

proptest! {
    /// The checks of a frame are passed, and nothing but nonsense is behind them.
    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let deadline = Deadline::after(LONG);
        Hello::receive(&send_raw(Kind::Hello, &body), deadline).ok();
        Offer::receive(&send_raw(Kind::Offer, &body), deadline).ok();
        State::receive(&send_raw(Kind::State, &body), deadline).ok();
        send_raw(Kind::Refused, &body).expect(Kind::Hello, deadline).unwrap_err();
    }

    /// No bytes of a stream panic, and garbage is never a message.
    #[test]
    fn no_stream_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&bytes).unwrap();
        drop(ours);
        Taker::begin(theirs, &hello(), LONG).unwrap_err();
    }
}
