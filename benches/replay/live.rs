//! What a journal costs those who do not wait for it, and what waiting together is worth.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actors::{Accel, GuestProgram, JournalPlace, StartOptions, Vm, VmRequest};
use device::Seq;
use device::config::{DeviceRequest, VmConfig};
use driver::{Host, Policy};
use journal::{Durability, Journal, Options};
use platform::AddressMap;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use wire::Opcode;

use crate::asked::scratch;
use crate::report::{Row, median, median_us, timed_us};

const COMMANDS: usize = 2_000;
const ROUNDS: usize = 15;
const CLIENTS: usize = 64;
const MEASURED: Duration = Duration::from_secs(2);
const BODY: [u8; 200] = [7; 200];
/// At most so many percent more for a command that is recorded.
const COST_PERCENT_MAX: f64 = 5.0;
/// A commit among 64 takes at most a 25th of what it takes alone.
const SHARE_PERCENT_MAX: f64 = 4.0;

/// A VM whose driver sends commands.
struct Commanded {
    runtime: Runtime,
    vm: Vm,
    host: Host,
    _dir: tempfile::TempDir,
}

impl Commanded {
    fn start(is_recorded: bool) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
        let dir = scratch();
        let place = JournalPlace::Directory(dir.path().join("journal"));
        let request = vm_request();
        let options = StartOptions {
            vm: Some(request.clone()),
            default_vm: request,
            journal: if is_recorded { place } else { JournalPlace::None },
            durability: Durability::None,
            journal_limit_bytes: None,
            journal_keep_bytes: None,
            objects: Vec::new(),
            guest: GuestProgram::None,
            accel: Accel::Soft,
            build: "bench".into(),
            listener: Arc::new(|_, _| ()),
            snapshots: None,
            restore: None,
            keeper: None,
            backend_dir: None,
            progress: Arc::new(|_, _, _| ()),
        };
        let (vm, _) = runtime.block_on(actors::start(options)).expect("a VM");
        let mut bus = vm.bus();
        let host = Host::probe(&mut bus, &vm.bus().platform_map(), Policy::Accept).expect("a device");
        Self { runtime, vm, host, _dir: dir }
    }

    /// Microseconds of one of many commands, each of which is a record.
    fn command_us(&self) -> f64 {
        let mut bus = self.vm.bus();
        let took = timed_us(|| {
            for _ in 0..COMMANDS {
                self.host.mailbox().execute(&mut bus, Opcode::GET_EVENT_RECORDS, &[4]).expect("an answer");
            }
        });
        took / COMMANDS as f64
    }
}

fn vm_request() -> VmRequest {
    let size = Some(4 << 30);
    let device =
        DeviceRequest { id: "cxl-vmem0".into(), dc_regions_total_size_bytes: size, ..DeviceRequest::default() };
    let window_base = AddressMap::new(1 << 30).fixed_window_base().expect("a base");
    let (windows_bytes, root_ports) = (vec![8 << 30], vec!["rp0".into()]);
    let config = VmConfig { memory_bytes: 1 << 30, window_base, windows_bytes, root_ports };
    VmRequest { config, devices: vec![device] }
}

/// The same commands with and without a journal, turn by turn, so that both meet the same machine.
pub(crate) fn mailbox() -> Vec<Row> {
    let (without, with) = (Commanded::start(false), Commanded::start(true));
    let (mut bare, mut recorded, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (without_us, with_us) = (without.command_us(), with.command_us());
        bare.push(without_us);
        recorded.push(with_us);
        more.push(100.0 * (with_us / without_us - 1.0));
    }
    for commanded in [without, with] {
        commanded.runtime.block_on(commanded.vm.shutdown());
    }
    let bare = median(bare);
    vec![
        Row::new("7 a command with a journal for which nobody waits", median(recorded), "us")
            .floor(bare, "the same without a journal"),
        Row::new("7 of which the journal is", median(more), "%").target(COST_PERCENT_MAX),
    ]
}

/// Tells who waits for a record that it is durable, as the actors' outbox does: each has a place of its own to wait at.
#[derive(Default)]
struct Waiting {
    durable: Seq,
    waiters: BTreeMap<Seq, oneshot::Sender<()>>,
}

impl Waiting {
    fn tell(&mut self, seq: Seq) {
        self.durable = seq.max(self.durable);
        let later = self.waiters.split_off(&Seq(self.durable.0 + 1));
        for (_, waiter) in std::mem::replace(&mut self.waiters, later) {
            waiter.send(()).expect("it waits");
        }
    }

    /// Answered when the record is durable, if it is not yet.
    fn until(&mut self, seq: Seq) -> Option<oneshot::Receiver<()>> {
        (self.durable < seq).then(|| {
            let (answer, answered) = oneshot::channel();
            self.waiters.insert(seq, answer);
            answered
        })
    }
}

/// One that appends and waits until it is on disk against 64 that do so at once.
pub(crate) fn crowd() -> Vec<Row> {
    let (one, many) = (commit_us(1), commit_us(CLIENTS));
    vec![
        Row::new("8 a durable commit of one client", one, "us").floor(fdatasync_us(), "one fdatasync"),
        Row::new(format!("8 a durable commit among {CLIENTS} waiting clients"), many, "us"),
        Row::new("8 which is of one client's", 100.0 * many / one, "%").target(SHARE_PERCENT_MAX),
    ]
}

/// Microseconds from one commit to the next, of clients that are tasks, as those of QMP are.
fn commit_us(clients: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let (dir, waiting) = (scratch(), Arc::new(Mutex::new(Waiting::default())));
    let told = Arc::clone(&waiting);
    let on_durable = Box::new(move |seq| told.lock().expect("nobody panics").tell(seq));
    let options = Options { on_durable, ..Options::default() };
    let journal = Journal::create(&dir.path().join("journal"), b"bench", options).expect("a journal");
    let start = Instant::now();
    let client = |journal: Journal, waiting: Arc<Mutex<Waiting>>| async move {
        while start.elapsed() < MEASURED {
            let (stamp, ()) = journal.append(|_| (BODY.to_vec(), ())).expect("appended");
            let answered = waiting.lock().expect("nobody panics").until(stamp.seq);
            if let Some(answered) = answered {
                answered.await.expect("durable");
            }
        }
    };
    let clients: Vec<_> = (0..clients).map(|_| runtime.spawn(client(journal.clone(), Arc::clone(&waiting)))).collect();
    clients.into_iter().for_each(|client| runtime.block_on(client).expect("no panic"));
    let took_us = start.elapsed().as_secs_f64() * 1e6;
    let commits = journal.close().expect("closed").0;
    took_us / commits as f64
}

fn fdatasync_us() -> f64 {
    let dir = scratch();
    let mut file = std::fs::File::create(dir.path().join("floor")).expect("a file");
    median_us(500, || {
        std::io::Write::write_all(&mut file, &BODY).expect("written");
        file.sync_data().expect("synced");
    })
}
