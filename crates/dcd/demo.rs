//! `dcd demo`: the flow of the tagged-memory series, told step by step, every byte and state checked.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use actors::{GuestProgram, JournalPlace, StartOptions, Vm, VmRequest};
use anyhow::{Context, ensure};
use device::Seq;
use device::backends::{BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest};
use device::extents::{AddRequest, Notice, NoticeKind, RegionRange, ReleaseRequest, SelectionPolicy, TagState};
use driver::{Bus, HeldExtent, Host, Policy};
use journal::{Durability, OpenError};
use serde_json::json;
use tokio::runtime::Runtime;
use wire::{Dpa, Hpa, Tag};

use crate::accel::{AccelArgument, OtherGuest};
use crate::reading::Reading;
use crate::vm_parts::VmParts;
use crate::{BUILD, place, print_line, shell, size, table};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const DEVICE: DeviceIndex = DeviceIndex(0);

/// Show the main job in a few seconds: tagged memory offered, accepted, used from both sides, released, journaled.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd demo --journal /tmp/demo && dcd replay /tmp/demo\n\n\
                        The exit code is 0 only if every byte and every state was right.")]
pub(crate) struct Demo {
    /// Print one JSON object a step and a record.
    #[arg(long)]
    json: bool,
    /// Keep the journal in this directory, which must not hold one.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// What runs the guest: kvm, soft (a guest inside this process), or auto: kvm where it works.
    #[arg(long, value_enum, default_value = "auto")]
    accel: AccelArgument,
}

impl Demo {
    /// Runs the flow.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let scratch = tempfile::tempdir().context("a directory for the journal")?;
        let dir = self.journal.clone().unwrap_or_else(|| scratch.path().join("journal"));
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            place::make_private_dir(parent)?;
        }
        // Before it is opened: a start is recorded.
        ensure!(
            matches!(journal::read(&dir), Err(OpenError::Missing { .. } | OpenError::Unfinished { .. })),
            "there is a journal in {} already, and it stays as it is; name a new directory",
            dir.display()
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut stage = Stage::open(self, &runtime, dir.clone())?;
        stage.two_backends()?;
        stage.first_tag()?;
        stage.second_tag()?;
        stage.release()?;
        runtime.block_on(stage.vm.clone().shutdown());
        drop(stage);
        self.show_journal(&dir)?;
        if self.journal.is_some() && !self.json {
            print_line(&format!("the journal stays: dcd replay {}", shell::path(&dir)))?;
        }
        Ok(())
    }

    fn show_journal(&self, dir: &std::path::Path) -> anyhow::Result<()> {
        let opened = Reading::open(Some(dir))?.decode()?;
        let mut rows = table::rows(&opened.start, &opened.records);
        if self.json {
            rows.try_for_each(|row| print_line(&json!({"journal": row}).to_string()))?;
        } else {
            print_line("\nThe journal:")?;
            print_line(&table::table(rows))?;
        }
        let total = opened.records.len();
        let replay = replay::replay(opened.start, &opened.records, &mut |_| ())?;
        if let Some(finding) = replay.finding() {
            return Err(finding).context("the journal does not replay");
        }
        if self.json {
            print_line(&json!({"replayed": total, "equal": true}).to_string())
        } else {
            print_line(&format!("\n{total} records replayed: every law holds, every decision is made again as it was."))
        }
    }
}

/// A VM without a guest of its own: the demo is the guest, and the operator too.
struct Stage<'a> {
    json: bool,
    runtime: &'a Runtime,
    vm: Vm,
    bus: Box<dyn Bus>,
    host: Host,
    notices: Arc<Mutex<Vec<Notice>>>,
}

/// The two tags of the series' cover letter.
fn tags() -> anyhow::Result<[Tag; 2]> {
    Ok([Tag::parse("5be13bce-ae34-4a77-b6c3-16df975fcf1a")?, Tag::parse("6be13bce-ae34-4a77-b6c3-16df975fcf1a")?])
}

fn vm() -> anyhow::Result<VmRequest> {
    let request = DeviceRequest {
        id: "cxl-vmem0".into(),
        num_dc_regions: Some(1),
        dc_regions_total_size_bytes: Some(4 * GIB),
        ..DeviceRequest::default()
    };
    VmParts { windows_bytes: vec![8 * GIB], devices: vec![request], ..VmParts::default() }.request()
}

/// Bytes that differ from place to place, so that a wrong place shows.
fn pattern(seed: u64, len_bytes: usize) -> Vec<u8> {
    let word = |n: u64| (seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
    (0..len_bytes as u64 / 8).flat_map(word).collect()
}

impl<'a> Stage<'a> {
    fn open(demo: &Demo, runtime: &'a Runtime, dir: PathBuf) -> anyhow::Result<Self> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let vm = vm()?;
        let accel = demo.accel.choose(None, OtherGuest::None)?;
        let options = StartOptions {
            vm: Some(vm.clone()),
            default_vm: vm,
            journal: JournalPlace::Directory(dir),
            durability: Durability::Disk,
            journal_limit_bytes: None,
            journal_keep_bytes: None,
            objects: Vec::new(),
            guest: GuestProgram::None,
            accel: accel.accel,
            build: BUILD.into(),
            listener: {
                let notices = Arc::clone(&notices);
                Arc::new(move |_: &DeviceConfig, notice: &Notice| lock(&notices).push(notice.clone()))
            },
            snapshots: None,
            restore: None,
            keeper: None,
            backend_dir: None,
            progress: Arc::new(|_, _, _| ()),
        };
        let (vm, started) = runtime.block_on(actors::start(options))?;
        let map = vm.bus().platform_map();
        // On KVM every access of the host is an instruction of its guest.
        let mut bus: Box<dyn Bus> = match vm.instruction_bus() {
            Some(bus) => Box::new(bus),
            None => Box::new(vm.bus()),
        };
        let json = demo.json;
        tell(
            json,
            started.run,
            "dcd",
            "a device with one DC region of 4 GiB and no memory; every change is recorded, each line names its record",
        )?;
        tell(json, started.run, "dcd", &accel.line)?;
        let host = Host::probe(&mut *bus, &map, Policy::Accept)?;
        let mut stage = Self { json, runtime, vm, bus, host, notices };
        let window = stage.vm.window();
        let found = format!(
            "walks configuration space, programs BARs, reads the Command Effects Log, Identify and DC configuration, and commits a decoder: {} at {}",
            size::people(stage.host.configuration().decode_len_bytes()),
            window.base()
        );
        stage.tell(stage.last(), "host", &found)?;
        ensure!(stage.host.extents().is_empty(), "a new device lists extents");
        ensure!(stage.peek(Dpa(0))? == u64::MAX, "the window shows memory where nothing is accepted");
        stage.tell(stage.last(), "host", "reads its window: all ones, nothing is there yet")?;
        Ok(stage)
    }

    fn two_backends(&mut self) -> anyhow::Result<()> {
        for (id, tag) in ["tm0", "tm1"].into_iter().zip(tags()?) {
            let spec = BackendSpec {
                kind: BackendKind::Ram,
                size_bytes: GIB,
                sharing: Sharing::Shared,
                population: Population::OnDemand,
                reservation: Reservation::Reserved,
                tag,
                tag_text: tag.to_string(),
            };
            let made = self.runtime.block_on(self.vm.object_add(id, spec, Source::Request))?;
            self.tell(made, "operator", &format!("makes backend {id}: 1 GiB, tag {tag}"))?;
        }
        Ok(())
    }

    /// One extent for the whole backend, as the series does it.
    fn first_tag(&mut self) -> anyhow::Result<()> {
        let [tag, _] = tags()?;
        let offered = self.offer(tag, &[(0, GIB)])?;
        self.state(offered, tag, TagState::Offered)?;
        let accepted = self.host_answers(tag, NoticeKind::Accepted)?;
        self.tell(accepted, "host", "reads the event, accepts with 4802h: the backend is in its window")?;
        self.state(accepted, tag, TagState::Accepted)?;
        self.host_writes(accepted, "tm0", tag, 0x5be1)?;
        self.operator_writes(accepted, "tm0", tag, 0x0be5)
    }

    /// Two extents in one add, in an order that is not the order of their addresses.
    fn second_tag(&mut self) -> anyhow::Result<()> {
        let [_, tag] = tags()?;
        self.offer(tag, &[(3 * GIB, 512 * MIB), (GIB, 512 * MIB)])?;
        let accepted = self.host_answers(tag, NoticeKind::Accepted)?;
        self.tell(accepted, "host", "reads both events of the chain, accepts both extents with one 4802h")?;
        self.state(accepted, tag, TagState::Accepted)?;
        self.host_writes(accepted, "tm1", tag, 0x6be1)?;
        self.operator_writes(accepted, "tm1", tag, 0x1be6)
    }

    fn release(&mut self) -> anyhow::Result<()> {
        for (id, tag) in ["tm0", "tm1"].into_iter().zip(tags()?) {
            let held = self.host.extents_of(tag);
            let request = ReleaseRequest::by_tag(0, tag);
            let asked = self.runtime.block_on(self.vm.release(DEVICE, request))?;
            self.tell(asked, "operator", &format!("asks for tag {tag} back"))?;
            self.state(asked, tag, TagState::ReleaseRequested)?;
            let released = self.host_answers(tag, NoticeKind::Released(device::extents::ReleaseCause::Host))?;
            self.tell(released, "host", "reads the event, gives back with 4803h")?;
            for extent in held {
                ensure!(self.peek(extent.dpa)? == u64::MAX, "the window still shows {id} after its release");
            }
            self.tell(released, "host", "reads its window there: all ones again")?;
            self.state(released, tag, TagState::Released)?;
        }
        let left = self.runtime.block_on(self.vm.extents(DEVICE, |state| state.accepted().len()))?;
        ensure!(left == 0 && self.host.extents().is_empty(), "extents are left after all was released");
        Ok(())
    }

    fn offer(&self, tag: Tag, extents: &[(u64, u64)]) -> anyhow::Result<Seq> {
        let extents: Vec<_> = extents.iter().map(|&(offset, len_bytes)| RegionRange { offset, len_bytes }).collect();
        let places: Vec<_> =
            extents.iter().map(|e| format!("{} at {:#x}", size::people(e.len_bytes), e.offset)).collect();
        let request = AddRequest { host_id: 0, policy: SelectionPolicy::Prescriptive, region: 0, tag, extents };
        let offered = self.runtime.block_on(self.vm.add(DEVICE, request))?;
        self.tell(offered, "operator", &format!("adds tag {tag}: {}", places.join(", then ")))?;
        Ok(offered)
    }

    /// Lets the host drain its events and returns the record of what it did.
    fn host_answers(&mut self, tag: Tag, kind: NoticeKind) -> anyhow::Result<Seq> {
        self.host.on_interrupt(&mut *self.bus)?;
        let notices = lock(&self.notices);
        let notice = notices.iter().rev().find(|notice| notice.tag == tag && notice.kind == kind);
        Ok(notice.with_context(|| format!("nobody was told that tag {tag} is {kind:?}"))?.record)
    }

    fn state(&self, record: Seq, tag: Tag, wanted: TagState) -> anyhow::Result<()> {
        let status = self.runtime.block_on(self.vm.extents(DEVICE, move |state| state.tag_status(tag)))?;
        ensure!(status.state == wanted, "tag {tag} is {}, not {}", status.state.name(), wanted.name());
        self.tell(record, "operator", &format!("status of tag {tag}: {}", status.state.name()))
    }

    /// The host writes the first and the last MiB of each extent; the operator finds them in the backend.
    fn host_writes(&mut self, record: Seq, id: &str, tag: Tag, seed: u64) -> anyhow::Result<()> {
        let memory = self.runtime.block_on(self.vm.memory_of(id))?.context("the backend is gone")?;
        let mut offset_bytes = 0;
        for (n, extent) in (0u64..).zip(self.host.extents_of(tag)) {
            for (part, at) in [(0, 0), (1, extent.len_bytes - MIB)] {
                let bytes = pattern(seed ^ n << 8 ^ part << 16, MIB as usize);
                self.bus.write(self.hpa(extent, at)?, &bytes);
                let mut seen = vec![0; bytes.len()];
                memory.read(offset_bytes + at, &mut seen)?;
                ensure!(seen == bytes, "{id} does not hold what the host wrote to extent {n}");
            }
            offset_bytes += extent.len_bytes;
        }
        self.tell(record, "host", "writes a pattern through its window, at both ends of each extent")?;
        self.tell(record, "operator", &format!("reads the same bytes from {id}, extent i in its i-th piece"))
    }

    /// The operator writes in the middle of each piece; the host finds it in its window.
    fn operator_writes(&mut self, record: Seq, id: &str, tag: Tag, seed: u64) -> anyhow::Result<()> {
        let memory = self.runtime.block_on(self.vm.memory_of(id))?.context("the backend is gone")?;
        let mut offset_bytes = 0;
        for (n, extent) in (0u64..).zip(self.host.extents_of(tag)) {
            let (at, bytes) = (extent.len_bytes / 2, pattern(seed ^ n, MIB as usize));
            memory.write(offset_bytes + at, &bytes)?;
            let mut seen = vec![0; bytes.len()];
            self.bus.read(self.hpa(extent, at)?, &mut seen);
            ensure!(seen == bytes, "the window does not show what the operator wrote to piece {n} of {id}");
            offset_bytes += extent.len_bytes;
        }
        self.tell(record, "operator", &format!("writes another pattern into {id}"))?;
        self.tell(record, "host", "reads the same bytes through its window")
    }

    fn hpa(&self, extent: HeldExtent, at: u64) -> anyhow::Result<Hpa> {
        let dpa = extent.dpa.checked_add(at).context("an address that wraps")?;
        self.host.hpa_of(dpa).context("an extent that no decoder shows")
    }

    fn peek(&mut self, dpa: Dpa) -> anyhow::Result<u64> {
        Ok(self.bus.read64(self.host.hpa_of(dpa).context("outside the regions")?))
    }

    fn last(&self) -> Seq {
        self.vm.journal_position().0
    }

    fn tell(&self, record: Seq, who: &str, what: &str) -> anyhow::Result<()> {
        tell(self.json, record, who, what)
    }
}

fn tell(json: bool, record: Seq, who: &str, what: &str) -> anyhow::Result<()> {
    if json {
        print_line(&json!({"record": record.0, "who": who, "what": what}).to_string())
    } else {
        print_line(&format!("{:>5}  {who:<8}  {what}", record.to_string()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
