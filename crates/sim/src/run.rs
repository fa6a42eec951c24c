//! A run: events in the order of the model clock, each by the dice, until there were as many as asked.
//!
//! ```text
//!  agenda: (time, ticket) ─▶ host │ operator │ manager │ misfortune │ write │ sync ─▶ the next of its kind, later
//! ```
//!
//! A host that waits for an answer is not on it. At the end the process dies once more, the operator takes everything back
//! by force, the devices leave, and the disk is read again. Deliberately absent: the time of the machine that simulates;
//! nothing waits for it.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use device::backends::{Holder, Source};
use device::config::DeviceIndex;
use device::extents::{self, Removal};
use device::operation::{CommandReply, Input, Reply};
use device::{Seq, VmTime};
use journal::StoreError;
use journal::record::{Genesis, Origin, Record, RecordedReply};
use journal::{Key, memory_store::MemoryDisk};
use replay::panic_message;
use wire::Opcode;

use crate::coverage::Coverage;
use crate::crash::{self, CrashPoints};
use crate::devices::PORTS;
use crate::dice::Dice;
use crate::failure::{Failure, Wrong};
use crate::host::Host;
use crate::misfortune::{self, Misfortune};
use crate::mix::{Mix, vm_config};
use crate::operator;
use crate::world::{Heard, World};

/// The build that the journals of simulated runs name.
pub(crate) const BUILD: &str = "dcd sim";

/// From a write to its sync, where the disk stands still.
const STALL_NS: u64 = 1_500_000_000;

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed: with `steps` it is all that a run depends on.
    pub seed: u64,
    /// How many things are done, by whomever, before the end.
    pub steps: u64,
    /// Which crash points are tried. Changes nothing of the run.
    pub crash_points: CrashPoints,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that were made, those that a crash took included.
    pub records: u64,
    /// Of them, those that refused.
    pub refusals: u64,
    /// Offers that a host took, or a part of them.
    pub acceptances: u64,
    /// Crashes.
    pub crashes: u64,
    /// Records of which nobody knew and that a crash took.
    pub lost: u64,
    /// Writes and syncs that failed.
    pub faults: u64,
    /// Crash points that were tried.
    pub crash_points: u64,
    /// What the model clock shows at the end, in nanoseconds.
    pub simulated_ns: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.refusals += other.refusals;
        self.acceptances += other.acceptances;
        self.crashes += other.crashes;
        self.lost += other.lost;
        self.faults += other.faults;
        self.crash_points += other.crash_points;
        self.simulated_ns += other.simulated_ns;
    }
}

/// A run in which nothing was wrong.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What happened, in numbers.
    pub tally: Tally,
    /// What it came across.
    pub coverage: Coverage,
    /// What the simulated VM was started as.
    pub genesis: Genesis,
    /// Its records.
    pub records: Vec<Record>,
    /// Every part on the model disk, in their order: the journal, byte for byte.
    pub parts: Vec<(Key, Vec<u8>)>,
}

/// Who comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Host(DeviceIndex),
    Operator,
    Manager,
    Misfortune,
    Write,
    Sync,
}

/// Runs a seed.
///
/// # Errors
/// What is wrong, with the journal up to there.
pub fn simulate(options: &Options) -> Result<Outcome, Box<Failure>> {
    let Options { seed, steps, crash_points } = *options;
    let genesis = Genesis { config: vm_config(), build: BUILD.into(), parent: None };
    let failure = |wrong, genesis, records| Box::new(Failure { seed, steps, crash_points, wrong, genesis, records });
    let world = World::new(genesis.clone()).map_err(|wrong| failure(wrong, genesis.clone(), Vec::new()))?;
    let mut run = Run::new(options, world);
    // Deciding is caught where it is called; what panics beside it is a failure with a seed too.
    let done = catch_unwind(AssertUnwindSafe(|| run.all(steps)));
    let stopped =
        |panic: Box<dyn Any + Send>| Wrong::Stopped { seq: run.world.last(), message: panic_message(&*panic) };
    match done.map_err(stopped).flatten() {
        Ok(()) => {
            let Run { world, tally, coverage, .. } = run;
            let tally = Tally { simulated_ns: world.now.0, ..tally };
            Ok(Outcome { tally, coverage, genesis, parts: world.keeper.disk().parts(), records: world.records })
        }
        Err(wrong) => Err(failure(wrong, genesis, run.world.records)),
    }
}

struct Run {
    dice: Dice,
    mix: Mix,
    world: World,
    hosts: BTreeMap<DeviceIndex, Host>,
    agenda: BTreeMap<(VmTime, u64), Event>,
    tickets: u64,
    /// Answers that wait for their records to be durable, and whose they are.
    unanswered: BTreeMap<Seq, (DeviceIndex, Option<CommandReply>)>,
    /// What the operator asked last, in case the answer is lost.
    asked: Option<Heard>,
    is_stalled: bool,
    crash_points: CrashPoints,
    tally: Tally,
    coverage: Coverage,
}

impl Run {
    fn new(options: &Options, world: World) -> Self {
        let mut dice = Dice::new(options.seed);
        let mix = Mix::draw(&mut dice);
        let ports = (0..PORTS).map(DeviceIndex);
        let hosts = ports.clone().map(|port| (port, Host::new(mix.tempers[usize::from(port.0)]))).collect();
        let (agenda, tickets, unanswered) = (BTreeMap::new(), 0, BTreeMap::new());
        let (crash_points, tally, coverage) = (options.crash_points, Tally::default(), Coverage::default());
        let (asked, is_stalled) = (None, false);
        let mut run = Self {
            dice,
            mix,
            world,
            hosts,
            agenda,
            tickets,
            unanswered,
            asked,
            is_stalled,
            crash_points,
            tally,
            coverage,
        };
        ports
            .map(Event::Host)
            .chain([Event::Operator, Event::Manager, Event::Misfortune])
            .for_each(|event| run.plan(event));
        run
    }

    fn all(&mut self, steps: u64) -> Result<(), Wrong> {
        self.start()?;
        let mut done = 0;
        while done < steps
            && let Some(((time, _), event)) = self.agenda.pop_first()
        {
            self.world.now = time;
            self.happen(event)?;
            // What the disk does is not counted: it only follows.
            done += u64::from(!matches!(event, Event::Write | Event::Sync));
        }
        // The disk of a process that dies and comes again has no fault in store.
        self.crash()?;
        self.take_everything_back()?;
        self.world.check_disk()
    }

    /// A process begins to run the VM.
    fn start(&mut self) -> Result<(), Wrong> {
        let start = misfortune::run_start(&mut self.dice, &self.world.vm);
        self.hear(start)?;
        for port in (0..self.mix.plugged).map(DeviceIndex) {
            if !self.world.vm.devices.contains_key(&port) {
                let plug = self.mix.kinds[usize::from(port.0)].plug(port, Source::CommandLine, &self.world.vm);
                self.hear_all(plug)?;
            }
        }
        Ok(())
    }

    /// Puts the next event of a kind on the agenda.
    fn plan(&mut self, event: Event) {
        let dice = &mut self.dice;
        let pause_ns = match event {
            Event::Host(port) => self.hosts.get(&port).map_or(0, |host| host.pause_ns(dice)),
            Event::Operator => dice.between(1_000, self.mix.operator_ns),
            Event::Manager => dice.between(1_000_000, self.mix.manager_ns),
            Event::Misfortune => dice.between(1_000_000, self.mix.misfortune_ns),
            Event::Write => dice.between(500, 5_000),
            Event::Sync if std::mem::take(&mut self.is_stalled) => STALL_NS,
            Event::Sync => dice.between(1_000, self.mix.sync_ns),
        };
        self.tickets += 1;
        self.agenda.insert((VmTime(self.world.now.0 + pause_ns), self.tickets), event);
    }

    fn happen(&mut self, event: Event) -> Result<(), Wrong> {
        match event {
            Event::Host(port) => return self.host(port),
            Event::Operator => self.operator()?,
            Event::Manager => {
                let burst = operator::burst(&mut self.dice, &self.mix, &self.world.vm);
                self.hear_all(burst)?;
            }
            Event::Misfortune => self.befall()?,
            // What comes after these comes when something has gathered.
            Event::Write => return self.write(),
            Event::Sync => return self.sync(),
        }
        self.plan(event);
        Ok(())
    }

    fn hear(&mut self, heard: Heard) -> Result<Option<Seq>, Wrong> {
        let Some(record) = self.world.hear(heard)? else { return Ok(None) };
        let seq = record.stamp.seq;
        self.coverage.take(record);
        self.tally.records += 1;
        self.tally.refusals += u64::from(matches!(record.reply, RecordedReply::Whole(Reply::Refused(_))));
        let is_acceptance = |fact: &_| matches!(fact, device::operation::Fact::Extents(extents::Fact::Accepted { .. }));
        self.tally.acceptances += u64::from(record.facts.iter().any(is_acceptance));
        let is_kept_busy = self.agenda.values().any(|event| matches!(event, Event::Write | Event::Sync));
        if !is_kept_busy {
            self.plan(Event::Write);
        }
        Ok(Some(seq))
    }

    fn hear_all(&mut self, all: Vec<Heard>) -> Result<(), Wrong> {
        all.into_iter().try_for_each(|heard| self.hear(heard).map(drop))
    }

    fn host(&mut self, port: DeviceIndex) -> Result<(), Wrong> {
        let device = self.world.vm.devices.get(&port);
        let input = self.hosts.get_mut(&port).zip(device).and_then(|(host, device)| host.next(&mut self.dice, device));
        if let Some(input) = input {
            let heard = Heard { device: port, origin: Origin::Guest, input: input.clone(), outcomes: Vec::new() };
            if let Some(seq) = self.hear(heard)?
                && let Some(host) = self.hosts.get_mut(&port)
            {
                host.sent(seq, &input);
                self.unanswered.insert(seq, (port, self.world.answer()));
            }
        }
        self.plan_host(port);
        Ok(())
    }

    /// Puts a host on the agenda that waits for nothing and is not on it.
    fn plan_host(&mut self, port: DeviceIndex) {
        let is_waiting = self.hosts.get(&port).is_some_and(Host::is_waiting);
        if !is_waiting && !self.agenda.values().any(|event| *event == Event::Host(port)) {
            self.plan(Event::Host(port));
        }
    }

    /// What the operator does; or did, and does again because no answer came.
    fn operator(&mut self) -> Result<(), Wrong> {
        let again = self.asked.take().filter(|_| self.dice.one_in(12));
        let request = again.unwrap_or_else(|| operator::request(&mut self.dice, &self.mix, &self.world.vm));
        self.asked = Some(request.clone());
        self.hear(request).map(drop)
    }

    fn befall(&mut self) -> Result<(), Wrong> {
        match Misfortune::ALL[self.dice.weighed(&self.mix.misfortunes)] {
            Misfortune::Reset => {
                let port = operator::any_port(&mut self.dice);
                self.reboot(port);
                self.hear(misfortune::reset(port))?;
            }
            Misfortune::Plug => {
                let plug = misfortune::plug(&mut self.dice, &self.mix, &self.world.vm);
                self.hear_all(plug)?;
            }
            Misfortune::Crash => self.crash()?,
            Misfortune::FailedWrite => self.world.keeper.disk().fail_write(1),
            Misfortune::FailedSync => self.world.keeper.disk().fail_sync(1),
            Misfortune::Stall => self.is_stalled = true,
        }
        Ok(())
    }

    /// The host of a device begins again and knows nothing.
    fn reboot(&mut self, port: DeviceIndex) {
        self.unanswered.retain(|_, (whose, _)| *whose != port);
        self.hosts.insert(port, Host::new(self.mix.tempers[usize::from(port.0)]));
        self.plan_host(port);
    }

    fn write(&mut self) -> Result<(), Wrong> {
        match self.world.keeper.write() {
            Ok(()) => {
                if self.crash_points == CrashPoints::Every {
                    self.tally.crash_points += self.world.keeper.disk().unsynced() as u64 + 1;
                    crash::try_all(&self.world.keeper)?;
                }
                self.plan(Event::Sync);
                Ok(())
            }
            Err(error) => self.fault(error),
        }
    }

    fn sync(&mut self) -> Result<(), Wrong> {
        match self.world.keeper.sync() {
            Ok(durable) => {
                self.acknowledge(durable);
                if self.world.keeper.is_behind() {
                    self.plan(Event::Write);
                }
                Ok(())
            }
            Err(error) => self.fault(error),
        }
    }

    /// A failed write or sync is final: the VM stops, and somebody starts it again on what the disk holds.
    fn fault(&mut self, error: StoreError) -> Result<(), Wrong> {
        let StoreError::Injected { .. } = error else { return Err(error.into()) };
        self.tally.faults += 1;
        self.crash()
    }

    /// What was decided up to a record leaves.
    fn acknowledge(&mut self, durable: Seq) {
        let later = self.unanswered.split_off(&Seq(durable.0 + 1));
        for (seq, (port, answer)) in std::mem::replace(&mut self.unanswered, later) {
            let device = self.world.vm.devices.get(&port);
            match (device, self.hosts.get_mut(&port)) {
                (Some(device), Some(host)) => host.hear(&mut self.dice, device, seq, answer.as_ref()),
                // Nobody will answer: its device is gone.
                _ => self.reboot(port),
            }
            self.plan_host(port);
        }
    }

    fn crash(&mut self) -> Result<(), Wrong> {
        self.tally.crashes += 1;
        self.tally.crash_points += 1;
        let left: MemoryDisk = crash::left(self.world.keeper.disk(), &mut self.dice);
        self.tally.lost += self.world.crash(left)?;
        self.agenda.retain(|_, event| !matches!(event, Event::Write | Event::Sync));
        self.start()?;
        // Its vCPUs are gone with the process: each host boots again.
        for port in (0..PORTS).map(DeviceIndex) {
            self.reboot(port);
            self.hear(misfortune::reset(port))?;
        }
        Ok(())
    }

    /// Whatever happened, an operator who insists gets everything back.
    fn take_everything_back(&mut self) -> Result<(), Wrong> {
        for port in (0..PORTS).map(DeviceIndex) {
            self.take_back(port)?;
        }
        let vm = &self.world.vm;
        let held = vm.backends.iter().find(|(_, backend)| backend.holder != Holder::Free);
        let seq = self.world.last();
        match held {
            Some((id, backend)) => Err(Wrong::NotTakenBack { seq, what: format!("{id} is {:?}", backend.holder) }),
            None => Ok(()),
        }
    }

    fn take_back(&mut self, port: DeviceIndex) -> Result<(), Wrong> {
        let Some(device) = self.world.vm.devices.get(&port) else { return Ok(()) };
        let offers = device.extents.offers().iter().count();
        let requests = operator::take_back(port, device);
        self.hear_all(requests)?;
        // Dead offers go when the host answers them; an open chain ends first.
        for _ in 0..=offers {
            let (opcode, payload) = (Opcode::ADD_DC_RESPONSE, vec![0; 8]);
            self.hear_of(port, Origin::Guest, extents::Input::Command { opcode, payload })?;
        }
        let Some(device) = self.world.vm.devices.get(&port) else { return Ok(()) };
        let (offered, held) = (device.extents.offers().extents_len(), device.extents.accepted().len());
        if offered + held > 0 {
            let what = format!("{} still has {offered} offered and {held} accepted extents", device.config.id);
            return Err(Wrong::NotTakenBack { seq: self.world.last(), what });
        }
        let decoders = device.windows.committed();
        self.hear_of(port, Origin::Operator, extents::Input::Unplug { removal: Removal::Forced, decoders })
    }

    fn hear_of(&mut self, device: DeviceIndex, origin: Origin, input: extents::Input) -> Result<(), Wrong> {
        let heard = Heard { device, origin, input: Input::Extents(input), outcomes: Vec::new() };
        self.hear(heard).map(drop)
    }
}
