//! Pulses under traffic: whatever is not saved is missed by somebody, and whatever is not torn down stays behind.
//!
//! ```text
//!  period:  operators, a guest without manners, plugging ┐
//!           a guest that counts and keeps a pattern      ├─ pulse, pulse, pulse … ─▶ all let go ─▶ what this process holds
//!           whoever looks                                ┘
//! ```
//!
//! `DCD_PULSES=1000` pulses each VM so often.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actors::{Accel, GuestProgram};
use driver::{Bus, Policy};
use journal::Durability;
use serde_json::{Value, json};
use vm::{Job, JobAnswer};
use wire::Hpa;

use crate::kvm;
use crate::plug::call;
use crate::program::{Client, GIB, MIB, Program, add_arguments, printed, release_arguments};
use crate::traffic::Dice;
use crate::vm::{InProcess, Wanted};

const PULSES: &str = "DCD_PULSES";
/// Of each VM, where nothing else is asked for.
const PULSES_IN_CI: u64 = 24;
/// Pulses of each VM between two looks at what is left behind; before the first, whatever is made once is made.
const PERIOD: u64 = 12;
/// Records between two pulses.
const RECORDS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

const OPERATORS: u64 = 2;
/// Backends of the operators.
const TAGS: u64 = 8;

/// What the guest on KVM keeps: a pattern, and a number that it counts.
const KEPT_TAG: &str = "00000000-0000-4000-8000-0000000000ff";
const KEPT_BYTES: u64 = 8 * MIB;
/// In the second of two regions, beyond what operators add.
const KEPT_OFFSET: u64 = GIB;
const KEPT_DPA: u64 = 2 * GIB + KEPT_OFFSET;
const PATTERN_BYTES: u64 = 2 * MIB;
const NUMBER_OFFSET: u64 = 6 * MIB;
const SEED: u64 = 23;

/// No request is refused with one of these because of a pulse.
const REFUSALS_OF_A_PULSE: [&str; 5] =
    ["the VM has stopped", "was unplugged", "Unable to resolve", "not found", "this is a bug"];

/// A VM under traffic.
struct Pulsed {
    vm: InProcess,
    seed: u64,
    /// Whether its guest, on KVM, keeps something.
    keeps: bool,
    is_over: AtomicBool,
    /// Requests that were answered, refusals among them.
    answered: AtomicU64,
}

impl Pulsed {
    fn start(accel: Accel, seed: u64) -> Self {
        let vm = InProcess::start(Wanted {
            accel,
            regions: 2,
            free_ports: 1,
            guest: GuestProgram::from(Policy::Accept),
            durability: Durability::Process,
            ..Wanted::default()
        });
        let keeps = accel != Accel::Soft;
        Self { vm, seed, keeps, is_over: AtomicBool::new(false), answered: AtomicU64::new(0) }
    }

    /// Asks as a client does, and says whether it was granted. No refusal may come of a pulse.
    fn ask(&self, command: &str, arguments: Value) -> Result<Value, String> {
        let asked = arguments.to_string();
        let answer = call(&self.vm, command, arguments);
        if let Err(refused) = &answer {
            let by_pulse = REFUSALS_OF_A_PULSE.iter().any(|text| refused.contains(text));
            assert!(!by_pulse, "{command} {asked}: {refused}");
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// One period of pulses under traffic.
    fn period(&self, number: u64, pulses: u64) {
        self.is_over.store(false, Ordering::Relaxed);
        if self.keeps {
            self.begin_count();
        }
        thread::scope(|scope| {
            for operator in 0..OPERATORS {
                scope.spawn(move || self.operate((number * 100 + operator) * 100 + self.seed));
            }
            scope.spawn(move || self.disturb(number * 100 + self.seed));
            scope.spawn(|| self.look());
            if !self.keeps {
                scope.spawn(|| self.plug());
            }
            let pulser = scope.spawn(|| self.pulse(pulses));
            let pulsed = pulser.join();
            self.is_over.store(true, Ordering::Relaxed);
            pulsed.expect("pulses");
        });
        if self.keeps {
            self.end_count();
            self.boot_anew();
        }
    }

    fn pulse(&self, pulses: u64) {
        let position = || self.vm.vm.journal_position().0.0;
        for _ in 0..pulses {
            let (due, begun) = (position() + RECORDS, Instant::now());
            while position() < due {
                assert!(begun.elapsed() < PATIENCE, "the traffic stands still at #{}", position());
                thread::sleep(Duration::from_micros(200));
            }
            let before = self.number();
            self.vm.runtime.block_on(self.vm.vm.pulse()).expect("pulsed");
            if self.keeps {
                wait_for("the guest goes on counting", || self.number() > before);
            }
        }
    }

    /// An operator: makes, offers, asks back, forces, deletes.
    fn operate(&self, seed: u64) {
        let mut dice = Dice(seed | 1 << 40);
        while !self.is_over() {
            let n = dice.roll(TAGS);
            let region = dice.roll(2);
            let offset = dice.roll(24) * 2 * MIB;
            let forced = dice.roll(3) == 0;
            let backend = json!({"qom-type": "memory-backend-ram", "id": id_of(n), "size": 4 * MIB, "tag": tag_of(n)});
            let extents = [(offset, 2 * MIB), (offset + 64 * MIB, 2 * MIB)];
            let add = in_region(add_arguments(&tag_of(n), &extents), region);
            let mut release = in_region(release_arguments(&tag_of(n)), region);
            release["forced-removal"] = forced.into();
            // Each of them is granted or refused by what there is.
            drop(match dice.roll(10) {
                0 | 1 => self.ask("object-add", backend),
                2 => call(&self.vm, "object-del", json!({"id": id_of(n)})),
                3..=6 => self.ask("cxl-add-dynamic-capacity", add),
                7 | 8 => self.ask("cxl-release-dynamic-capacity", release),
                _ if !self.keeps && dice.roll(8) == 0 => self.ask("system_reset", json!({})),
                _ => self.ask("query-cxl-dynamic-capacity", json!({"path": "cxl-vmem0"})),
            });
        }
    }

    /// Whoever only looks sees a VM that runs and has its device, always.
    fn look(&self) {
        while !self.is_over() {
            let status = self.ask("query-status", json!({})).expect("a status");
            assert_eq!(status["status"], "running", "nobody has stopped it");
            let serial = json!({"path": "/machine/peripheral/cxl-vmem0", "property": "sn"});
            assert_eq!(self.ask("qom-get", serial).expect("the device is there"), 1);
            let shown = self.ask("human-monitor-command", json!({"command-line": "info memdev"})).expect("a text");
            assert!(shown.is_string());
        }
    }

    /// A second user of the bus, who writes anywhere: registers, doorbells, the window.
    fn disturb(&self, seed: u64) {
        let mut dice = Dice(seed | 1 << 50);
        let window = self.vm.vm.window().base().0;
        while !self.is_over() {
            let mut bus = self.vm.vm.bus();
            let width = [1, 2, 4, 8][dice.roll(4) as usize];
            let hpa = match dice.roll(3) {
                0 => window - 16 + dice.roll(96 * MIB),
                _ => platform::MMIO_BASE.0 + dice.roll(0x3_0000),
            };
            // A guest that keeps something does not take its own decoders away.
            let may_write = !self.keeps || hpa > window;
            let mut bytes = dice.roll(u64::MAX).to_le_bytes();
            if may_write && dice.roll(2) == 0 {
                bus.write(Hpa(hpa), &bytes[..width]);
            } else {
                bus.read(Hpa(hpa), &mut bytes[..width]);
            }
            if dice.roll(16) == 0 {
                thread::sleep(Duration::from_micros(100));
            }
        }
    }

    /// A device comes and goes.
    fn plug(&self) {
        let device = json!({"driver": "cxl-type3", "id": "d1", "dc-regions-total-size": 256 * MIB});
        while !self.is_over() {
            self.ask("device_add", device.clone()).expect("plugged");
            thread::sleep(Duration::from_millis(3));
            self.ask("device_del", json!({"id": "d1", "force": true})).expect("unplugged");
            thread::sleep(Duration::from_millis(3));
        }
    }

    fn number_at(&self) -> Hpa {
        Hpa(self.vm.vm.window().base().0 + KEPT_DPA + NUMBER_OFFSET)
    }

    /// What the guest has counted to, as the operator sees it.
    fn number(&self) -> u64 {
        if !self.keeps {
            return 0;
        }
        u64::from_le_bytes(self.vm.backend_bytes("kept", NUMBER_OFFSET, 8).try_into().expect("8 bytes"))
    }

    fn count(&self) -> Job {
        Job::Count { hpa: self.number_at(), first: self.number() + 1 }
    }

    /// The guest accepts what it keeps, and writes its pattern.
    fn keep(&self) {
        self.vm.object_add("kept", KEPT_TAG, KEPT_BYTES);
        let add = in_region(add_arguments(KEPT_TAG, &[(KEPT_OFFSET, KEPT_BYTES)]), 1);
        self.ask("cxl-add-dynamic-capacity", add).expect("an offer");
        self.wait_kept();
        let fill = Job::Fill { hpa: self.pattern_at(), len_bytes: PATTERN_BYTES, seed: SEED };
        assert_eq!(self.job(fill), JobAnswer::Done);
    }

    fn wait_kept(&self) {
        let status = json!({"path": "cxl-vmem0", "host-id": 0, "region": 1, "tag": KEPT_TAG});
        wait_for("the extent is accepted", || {
            self.ask("cxl-release-dynamic-capacity-status", status.clone()).expect("a status")["state"] == "accepted"
        });
    }

    fn pattern_at(&self) -> Hpa {
        Hpa(self.vm.vm.window().base().0 + KEPT_DPA)
    }

    fn job(&self, job: Job) -> JobAnswer {
        self.vm.vm.machine().expect("a guest on KVM").job(0, job, PATIENCE).expect("an answer")
    }

    fn begin_count(&self) {
        let before = self.number();
        let machine = self.vm.vm.machine().expect("a guest on KVM");
        drop(machine.start_job(1, self.count()).expect("a job"));
        wait_for("the guest counts", || self.number() > before);
    }

    /// The count has lost nothing, whichever of its lives stored it.
    fn end_count(&self) {
        let machine = self.vm.vm.machine().expect("a guest on KVM");
        let counting = machine.adopt_job(1, self.count()).expect("it counts still");
        counting.stop();
        let JobAnswer::Counted(counted) = counting.wait(PATIENCE).expect("its end") else { panic!("a count") };
        assert_eq!((counted.differ, counted.first_different), (0, None), "{counted:?}");
        assert_eq!(counted.last, self.number(), "every store is in the backend");
    }

    /// A reset and a device that comes and goes: the pattern is there for the next boot, too.
    fn boot_anew(&self) {
        let device = json!({"driver": "cxl-type3", "id": "d1", "dc-regions-total-size": 256 * MIB});
        self.ask("device_add", device).expect("plugged");
        self.vm.runtime.block_on(self.vm.vm.pulse()).expect("pulsed");
        self.ask("device_del", json!({"id": "d1", "force": true})).expect("unplugged");
        self.ask("system_reset", json!({})).expect("reset");
        self.vm.runtime.block_on(self.vm.vm.pulse()).expect("pulsed");
        self.wait_kept();
        let check = || self.job(Job::Check { hpa: self.pattern_at(), len_bytes: PATTERN_BYTES, seed: SEED });
        wait_for("the guest sees its pattern", || check() == JobAnswer::FirstWrong(None));
    }

    /// Nobody holds anything any more, but for what is kept.
    fn let_go(&self) {
        self.ask("system_reset", json!({})).expect("reset");
        let left = || {
            let memdevs = self.ask("query-memdev", json!({})).expect("a list");
            let left = memdevs.as_array().expect("a list").iter().filter(|memdev| memdev["id"] != "kept");
            left.count()
        };
        wait_for("everything is let go", || {
            for n in 0..TAGS {
                for region in 0..2 {
                    let mut release = in_region(release_arguments(&tag_of(n)), region);
                    release["forced-removal"] = true.into();
                    drop(self.ask("cxl-release-dynamic-capacity", release));
                }
                drop(call(&self.vm, "object-del", json!({"id": id_of(n)})));
            }
            left() == 0
        });
        if self.keeps {
            self.wait_kept();
            let check = || self.job(Job::Check { hpa: self.pattern_at(), len_bytes: PATTERN_BYTES, seed: SEED });
            wait_for("the guest sees its pattern", || check() == JobAnswer::FirstWrong(None));
        }
    }
}

fn id_of(n: u64) -> String {
    format!("tm{n}")
}

fn tag_of(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

fn in_region(mut arguments: Value, region: u64) -> Value {
    arguments["region"] = region.into();
    arguments
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What this process holds of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    /// By name. Those of the runtime and of the journal's store come and go as they are needed.
    threads: BTreeMap<String, usize>,
    mappings: usize,
    slots: Vec<u32>,
}

impl Held {
    fn now(vms: &[Pulsed]) -> Self {
        let entries = |what: &str| fs::read_dir(format!("/proc/self/{what}")).expect("a directory");
        let mut threads = BTreeMap::new();
        for task in entries("task").flatten() {
            // One that has ended meanwhile has no name.
            let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
            if !["tokio", "sled-io"].iter().any(|pool| name.starts_with(pool)) {
                *threads.entry(name.trim().to_owned()).or_insert(0) += 1;
            }
        }
        let slots = vms.iter().filter_map(|pulsed| pulsed.vm.vm.slot_counts()).map(|counts| counts.in_use).collect();
        let mappings = fs::read_to_string("/proc/self/maps").expect("maps").lines().count();
        Self { descriptors: entries("fd").count(), threads, mappings, slots }
    }

    /// When nothing comes or goes any more.
    fn settled(vms: &[Pulsed]) -> Self {
        let (mut before, mut same) = (Self::now(vms), 0);
        while same < 20 {
            thread::sleep(Duration::from_millis(10));
            let now = Self::now(vms);
            same = if now == before { same + 1 } else { 0 };
            before = now;
        }
        before
    }
}

/// What descriptors are of.
fn descriptor_targets() -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").expect("a directory").flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

/// What may come on top of what there was: each journal changes its store now and then, the allocator maps memory as it
/// needs it. One that every pulse left, or every tenth of many, would be seen.
fn slack(pulses: u64, at_first: usize) -> usize {
    at_first + pulses as usize / 16
}

fn soak(vms: &[Pulsed], pulses: u64) {
    vms.iter().filter(|pulsed| pulsed.keeps).for_each(Pulsed::keep);
    let (mut done, mut first): (u64, Option<Held>) = (0, None);
    while done < pulses {
        let begun = Instant::now();
        let many = PERIOD.min(pulses - done);
        thread::scope(|scope| {
            let periods: Vec<_> =
                vms.iter().map(|pulsed| scope.spawn(move || pulsed.period(done / PERIOD + 1, many))).collect();
            periods.into_iter().for_each(|period| period.join().expect("a period without a fault"));
        });
        done += many;
        vms.iter().for_each(Pulsed::let_go);
        let held = Held::settled(vms);
        let answered: u64 = vms.iter().map(|pulsed| pulsed.answered.load(Ordering::Relaxed)).sum();
        eprintln!("{done} pulses of each, {answered} answers, {:?}: {held:?}", begun.elapsed());
        let Some(first) = &first else {
            first = Some(held);
            continue;
        };
        assert_eq!(held.threads, first.threads, "after {done} pulses");
        let (descriptors, before) = (held.descriptors, first.descriptors);
        let grew = format!("{before} descriptors were {descriptors} after {done} pulses: {:?}", descriptor_targets());
        assert!(descriptors <= before + slack(done, 2), "{grew}");
        assert_eq!(held.slots, first.slots, "after {done} pulses");
        let (mappings, before) = (held.mappings, first.mappings);
        assert!(mappings <= before + slack(done, 16), "{before} mappings were {mappings} after {done} pulses");
    }
}

/// In a process of its own: its descriptors, threads and memory are nobody else's.
#[test]
fn pulses_under_traffic_lose_nothing_and_leave_nothing_behind() {
    let this = env::current_exe().expect("a path");
    let alone = ["--exact", "pulse::pulses_alone", "--ignored", "--nocapture"];
    let output = Command::new(this).args(alone).output().expect("it runs");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}{told}");
    eprintln!("{told}");
}

#[test]
#[ignore = "pulses_under_traffic_lose_nothing_and_leave_nothing_behind runs it, in a process of its own"]
fn pulses_alone() {
    let pulses = env::var(PULSES).map_or(PULSES_IN_CI, |pulses| pulses.parse().expect("a number of pulses"));
    let mut vms = vec![Pulsed::start(Accel::Soft, 1)];
    if kvm::is_there() {
        vms.push(Pulsed::start(Accel::Kvm { vcpus: 2 }, 2));
    }
    soak(&vms, pulses);
    // Each journal folds to the live state, and every record is decided again as it was.
    for Pulsed { vm, .. } in vms {
        let records = vm.end();
        assert!(records.len() as u64 > pulses * RECORDS, "only {} records", records.len());
    }
}

/// Adds and releases until it is told to end; how often.
fn cycles(mut client: Client, number: u64, is_over: &AtomicBool) -> u64 {
    let (id, tag) = (id_of(number), tag_of(number));
    client.object_add(&id, &tag, 2 * MIB).expect("a backend");
    let mut done = 0;
    while !is_over.load(Ordering::Relaxed) {
        client.add(&tag, &[(number * 64 * MIB, 2 * MIB)]).expect("an offer");
        client.wait_for("ACCEPTED", &tag);
        client.release(&tag).expect("asked");
        client.wait_for("RELEASED", &tag);
        let status = client.execute("query-status", json!({})).expect("a status");
        assert_eq!(status["status"], "running");
        let stopped = client.events.iter().find(|event| event["event"] == "STOP");
        assert!(stopped.is_none(), "nobody has stopped it");
        client.events.clear();
        done += 1;
    }
    done
}

/// Snapshots, too: what is dirty when a pulse comes in between is in them.
#[test]
fn a_program_that_pulses_serves_its_clients_as_any_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--pulse", "8", "--durability", "process"]);
    let is_over = AtomicBool::new(false);
    let done: u64 = thread::scope(|scope| {
        let is_over = &is_over;
        let clients: Vec<_> = (0..3)
            .map(|number| (program.client(), number))
            .map(|(client, number)| scope.spawn(move || cycles(client, number, is_over)))
            .collect();
        let saved: Vec<_> = (0..3)
            .map(|n| {
                thread::sleep(Duration::from_millis(300));
                printed(&["snapshot", "save", &format!("s{n}"), "--qmp", &program.address()])
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(saved.iter().all(|line| line.contains("the guest stood still")), "{saved:?}");
        clients.into_iter().map(|client| client.join().expect("a client without a fault")).sum()
    });
    assert!(done > 10, "only {done} cycles");
    let journal = program.journal();
    program.terminate();
    let replayed = printed(&["replay", journal.to_str().expect("a path")]);
    assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
    for n in 0..3 {
        let snapshot = journal.join(format!("snapshots/s{n}"));
        let verified = printed(&["snapshot", "verify", snapshot.to_str().expect("a path")]);
        assert!(verified.contains("every byte is what was written"), "{verified}");
    }
}
