//! kill -9 in the middle of traffic: no acknowledged change is missing afterwards.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{Client, MIB, Program, printed};

const KILLS: u64 = 50;
const CLIENTS: u64 = 4;
const SIZE: u64 = 2 * MIB;

/// What a client knows to be true because it was acknowledged, and what it asked for last without an answer.
#[derive(Clone, Default)]
struct Ledger {
    acknowledged: BTreeMap<String, Wanted>,
    under_way: Option<(String, Wanted)>,
}

/// How far a tag must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Made,
    Added,
    Released,
    Deleted,
}

#[test]
fn no_acknowledged_change_is_missing_after_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut ledgers = vec![Ledger::default(); CLIENTS as usize];
    for round in 0..KILLS {
        let program = Program::start(dir.path(), &["--device", "cxl-type3,id=cxl-vmem0,dc-regions-total-size=4G"]);
        for ledger in &mut ledgers {
            check(&mut program.client(), ledger, round);
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lifetime = Duration::from_micros(2_000 + (seed >> 33) % 60_000);
        let (ended, clients) = mpsc::channel();
        for (number, ledger) in (0u64..).zip(ledgers.drain(..)) {
            let (client, ended) = (program.client(), ended.clone());
            thread::spawn(move || {
                ended.send((number, traffic(client, ledger, number, round))).expect("the test waits")
            });
        }
        thread::sleep(lifetime);
        program.kill();
        let mut back: Vec<_> = (0..CLIENTS).map(|_| clients.recv().expect("a client")).collect();
        back.sort_by_key(|(number, _)| *number);
        ledgers = back.into_iter().map(|(_, ledger)| ledger).collect();
    }
    let program = Program::start(dir.path(), &[]);
    let acknowledged: usize = ledgers.iter().map(|ledger| ledger.acknowledged.len()).sum();
    for ledger in &mut ledgers {
        check(&mut program.client(), ledger, KILLS);
    }
    assert!(acknowledged > 100, "only {acknowledged} changes were acknowledged: nothing was tried");
    let journal = program.journal();
    program.terminate();
    let replayed = printed(&["replay", journal.to_str().expect("a path")]);
    assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
}

fn tag_of(id: &str) -> String {
    let (number, n) = id.trim_start_matches('b').split_once('-').expect("an id");
    format!(
        "{:08x}-0000-4000-8000-{:012x}",
        number.parse::<u64>().expect("a number"),
        n.parse::<u64>().expect("a number")
    )
}

/// Makes, adds, releases and deletes until the program is gone.
fn traffic(mut client: Client, mut ledger: Ledger, number: u64, round: u64) -> Ledger {
    for n in 0.. {
        let id = format!("b{number}-{}", round * 100_000 + n);
        let offset = number * 512 * MIB + (n % 200) * SIZE;
        if cycle(&mut client, &mut ledger, &id, offset).is_none() {
            break;
        }
    }
    ledger
}

fn cycle(client: &mut Client, ledger: &mut Ledger, id: &str, offset: u64) -> Option<()> {
    let tag = tag_of(id);
    let arguments = json!({"qom-type": "memory-backend-ram", "id": id, "size": SIZE, "tag": tag});
    change(client, ledger, id, Wanted::Made, "object-add", arguments)?;
    let add = crate::program::add_arguments(&tag, &[(offset, SIZE)]);
    change(client, ledger, id, Wanted::Added, "cxl-add-dynamic-capacity", add)?;
    wait(client, "CXL_DYNAMIC_CAPACITY_ACCEPTED", &tag)?;
    if id.ends_with(['3', '7']) {
        // Some stay, so that resumes have something to bring back. Their place is not used again in this round.
        return Some(());
    }
    let release = crate::program::release_arguments(&tag);
    change(client, ledger, id, Wanted::Released, "cxl-release-dynamic-capacity", release)?;
    wait(client, "CXL_DYNAMIC_CAPACITY_RELEASED", &tag)?;
    change(client, ledger, id, Wanted::Deleted, "object-del", json!({"id": id}))
}

fn change(
    client: &mut Client,
    ledger: &mut Ledger,
    id: &str,
    wanted: Wanted,
    command: &str,
    arguments: Value,
) -> Option<()> {
    ledger.under_way = Some((id.to_owned(), wanted));
    match client.try_execute(command, arguments)? {
        Ok(_) => {
            ledger.acknowledged.insert(id.to_owned(), wanted);
            ledger.under_way = None;
            Some(())
        }
        // A place that an earlier round holds: this tag is not added; the ledger knows it as made.
        Err(refused) if wanted == Wanted::Added && refused.contains("cannot add DPA") => {
            ledger.under_way = None;
            Some(())
        }
        Err(refused) => panic!("{command} {id}: {refused}"),
    }
}

fn wait(client: &mut Client, name: &str, tag: &str) -> Option<()> {
    loop {
        let fits = |event: &Value| event["event"] == name && event["data"]["tag"] == tag;
        if let Some(at) = client.events.iter().position(fits) {
            client.events.drain(..=at);
            return Some(());
        }
        let message = client.message()?;
        client.events.push(message);
    }
}

/// Every acknowledged change is there; what was under way is there wholly or not at all. Then the ledger is brought to
/// what is.
fn check(client: &mut Client, ledger: &mut Ledger, round: u64) {
    let memdevs = client.execute("query-memdev", json!({})).expect("a query");
    let ids: Vec<_> = memdevs.as_array().expect("a list").iter().filter_map(|memdev| memdev["id"].as_str()).collect();
    for (id, wanted) in &ledger.acknowledged {
        let is_there = ids.contains(&id.as_str());
        let may_be_deleted = *wanted == Wanted::Deleted || is_under_way(ledger, id, Wanted::Deleted);
        assert!(is_there || may_be_deleted, "round {round}: {id} was {wanted:?} and is gone");
        assert!(!is_there || *wanted != Wanted::Deleted, "round {round}: {id} was deleted and is back");
        if !is_there {
            continue;
        }
        let state = client.state(&tag_of(id));
        let fits = match wanted {
            Wanted::Made => true,
            Wanted::Added => state != "unknown",
            Wanted::Released => matches!(state.as_str(), "release-requested" | "released"),
            Wanted::Deleted => false,
        };
        assert!(fits, "round {round}: {id} was {wanted:?} and is {state}");
    }
    ledger.acknowledged.retain(|_, wanted| *wanted != Wanted::Deleted);
    ledger.acknowledged.retain(|id, _| ids.contains(&id.as_str()));
    ledger.under_way = None;
}

fn is_under_way(ledger: &Ledger, id: &str, wanted: Wanted) -> bool {
    ledger.under_way.as_ref().is_some_and(|(under_way, what)| under_way == id && *what == wanted)
}
