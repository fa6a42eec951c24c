//! The host of one Dynamic Capacity Device: what it found, what it has, and what it still owes an answer.
//!
//! ```text
//! Host::probe ─▶ on_interrupt, again and again ─▶ hpa_of: loads and stores through the bus
//! ```
//!
//! A probe reads the extents that the device holds from an earlier life of its host; offers that wait in the log are
//! taken by the first [`Host::on_interrupt`]. Deliberately absent: several regions over one device, and who runs this.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use wire::registers::EventStatus;
use wire::{Dpa, Hpa, Tag};
use zerocopy::little_endian::U16;

use crate::blocks::{self, BlockError, RegisterBlocks};
use crate::bus::{Bdf, Bus};
use crate::capabilities::serial_number;
use crate::chain::OpenChain;
use crate::decoder::{DecoderError, DecoderRange, HdmDecoders, Programmed};
use crate::discover::{CxlFunction, DiscoverError, discover};
use crate::drain::Handled;
use crate::extent_list::{self, ExtentListError};
use crate::extents::{Extent, ExtentTable, HeldExtent};
use crate::interrupt_policy::{self, ArmError};
use crate::mailbox::{Mailbox, MailboxError};
use crate::media::{self, MediaError};
use crate::memdev::{MemdevError, MemoryDevice};
use crate::msix::{self, MsixError};
use crate::offer::{Age, Offer};
use crate::platform_map::{HpaRange, PlatformMap};
use crate::policy::Policy;
use crate::regions::DcConfiguration;
use crate::waiting::Waiting;

/// The decoder that a host programs.
const DECODER: usize = 0;

/// A host's view of one device.
#[derive(Clone, Debug)]
pub struct Host {
    bdf: Bdf,
    serial: Option<u64>,
    blocks: RegisterBlocks,
    pub(crate) device: MemoryDevice,
    interrupt_entry: u8,
    window: HpaRange,
    region: Option<CreatedRegion>,
    pub(crate) policy: Policy,
    pub(crate) extents: ExtentTable,
    pub(crate) chain: OpenChain,
    /// Offers without an answer, oldest first.
    pub(crate) offers: VecDeque<Waiting<Offer>>,
    /// Chains of capacity asked back that has not left.
    pub(crate) requests: VecDeque<Waiting<Vec<Extent>>>,
    /// Tags whose memory is busy.
    busy: BTreeSet<Tag>,
    /// When the policy has something to do by itself.
    pub(crate) wakes_at_ms: Option<u64>,
    /// Handles of records that were taken from the log but not yet cleared there.
    pub(crate) uncleared: Vec<U16>,
    /// Whether the log still holds what it held at the probe.
    pub(crate) log: Age,
    /// What was done since the last answer to the program.
    pub(crate) unreported: Vec<Handled>,
}

/// What became of one of several devices.
#[derive(Clone, Debug)]
pub struct Probed {
    /// Where the device is.
    pub bdf: Bdf,
    /// Its host, or why there is none.
    pub host: Result<Host, ProbeError>,
}

/// The one region over all dynamic capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreatedRegion {
    /// Where it is for the host.
    pub hpa: HpaRange,
    /// The device-physical address at its base.
    pub dpa_base: Dpa,
    /// Whether the decoder was there before.
    pub decoder: Programmed,
}

/// Why a device cannot be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Buses or BARs cannot be set up.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// There is no CXL memory device.
    #[error("no CXL memory device (class 05 02 10) was found below {root_buses} root buses")]
    NoDevice {
        /// How many root buses were walked.
        root_buses: usize,
    },
    /// Registers cannot be found.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The device is not ready.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// There are no interrupts.
    #[error(transparent)]
    Msix(#[from] MsixError),
    /// The mailbox cannot be used.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The device is not what it must be.
    #[error(transparent)]
    Memdev(#[from] MemdevError),
    /// Offers would raise no interrupt.
    #[error(transparent)]
    Arm(#[from] ArmError),
    /// Dynamic capacity cannot be mapped.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// What the device holds for this host cannot be told.
    #[error(transparent)]
    ExtentList(#[from] ExtentListError),
}

/// Why there is no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The device has no HDM decoders.
    #[error("{at} has no HDM decoder capability")]
    NoDecoders {
        /// The function.
        at: Bdf,
    },
    /// The platform's window is too small.
    #[error(
        "dynamic capacity spans {needed_bytes:#x} bytes, but of the window at {base} {window_bytes:#x} are left for it"
    )]
    WindowTooSmall {
        /// What the regions span.
        needed_bytes: u64,
        /// Where the window begins for this device.
        base: Hpa,
        /// What the window has for it.
        window_bytes: u64,
    },
    /// CXL.mem cannot be turned on.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The decoder does not decode.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
}

impl Host {
    /// Finds the first CXL memory device, sets it up, and makes a region of its dynamic capacity in the window.
    pub fn probe(bus: &mut dyn Bus, map: &PlatformMap<'_>, policy: Policy) -> Result<Self, ProbeError> {
        let found = discover(bus, map)?;
        let function = found.first().ok_or(ProbeError::NoDevice { root_buses: map.root_buses.len() })?;
        Self::probe_function(bus, function, map.window(), policy)
    }

    /// Finds all CXL memory devices and sets them up; they share the window in the order in which they were found. One
    /// that cannot be driven does not stop the others.
    pub fn probe_all(bus: &mut dyn Bus, map: &PlatformMap<'_>, policy: Policy) -> Result<Vec<Probed>, DiscoverError> {
        let mut window = map.window();
        let mut hosts = Vec::new();
        for function in discover(bus, map)? {
            let host = Self::probe_function(bus, &function, window, policy);
            if let Ok(host) = &host {
                let span_bytes = host.device.dc.decode_len_bytes().min(window.size_bytes);
                window = window.tail(span_bytes).unwrap_or(HpaRange { size_bytes: 0, ..window });
            }
            hosts.push(Probed { bdf: function.bdf, host });
        }
        Ok(hosts)
    }

    /// Sets up one device whose BARs are programmed: the region first, then the extents that the device holds, because
    /// an offer must find the region there.
    pub fn probe_function(
        bus: &mut dyn Bus,
        function: &CxlFunction,
        window: HpaRange,
        policy: Policy,
    ) -> Result<Self, ProbeError> {
        let bdf = function.bdf;
        let serial = serial_number(bus, bdf);
        let blocks = blocks::locate(bus, function)?;
        media::await_ready(bus, bdf, blocks.memory_device_status)?;
        let entries = msix::enable(bus, function)?;
        let mailbox = Mailbox::open(bus, blocks.mailbox)?;
        let device = MemoryDevice::probe(bus, mailbox)?;
        let interrupt_entry = interrupt_policy::arm(bus, &device.mailbox, entries)?;
        let mut host = Self {
            bdf,
            serial,
            blocks,
            device,
            interrupt_entry,
            window,
            region: None,
            policy,
            extents: ExtentTable::default(),
            chain: OpenChain::default(),
            offers: VecDeque::new(),
            requests: VecDeque::new(),
            busy: BTreeSet::new(),
            wakes_at_ms: None,
            uncleared: Vec::new(),
            log: Age::New,
            unreported: Vec::new(),
        };
        host.create_region(bus)?;
        if EventStatus::from(bus.read64(host.event_status())).dynamic_capacity() {
            host.log = Age::Inherited;
        }
        host.refresh(bus)?;
        Ok(host)
    }

    /// Maps all dynamic capacity (a probe has done it once), from the first region's base to the last one's end, to the
    /// window's base.
    pub fn create_region(&mut self, bus: &mut dyn Bus) -> Result<CreatedRegion, RegionError> {
        let block = self.blocks.hdm.ok_or(RegionError::NoDecoders { at: self.bdf })?;
        let (dpa_base, needed_bytes) = (self.device.dc.base(), self.device.dc.decode_len_bytes());
        let HpaRange { base, size_bytes: window_bytes } = self.window;
        let hpa = self.window.part(0, needed_bytes);
        let hpa = hpa.ok_or(RegionError::WindowTooSmall { needed_bytes, base, window_bytes })?;
        let decoders = HdmDecoders::open(bus, block)?;
        decoders.enable(bus);
        media::enable_mem(bus, self.bdf)?;
        // Static capacity comes before dynamic capacity, and no decoder maps it here.
        let range = DecoderRange { hpa, skip_bytes: dpa_base.0 };
        let decoder = decoders.program(bus, DECODER, range)?;
        let region = CreatedRegion { hpa, dpa_base, decoder };
        self.region = Some(region);
        Ok(region)
    }

    /// Unmaps all dynamic capacity; what was accepted stays accepted.
    pub fn destroy_region(&mut self, bus: &mut dyn Bus) -> Result<(), RegionError> {
        let block = self.blocks.hdm.ok_or(RegionError::NoDecoders { at: self.bdf })?;
        HdmDecoders::open(bus, block)?.uncommit(bus, DECODER)?;
        self.region = None;
        Ok(())
    }

    /// Reads the device's list of accepted extents anew, and takes it for the truth.
    pub fn refresh(&mut self, bus: &mut dyn Bus) -> Result<(), ExtentListError> {
        self.extents = ExtentTable::new(extent_list::read(bus, &self.device.mailbox, &self.device.dc)?);
        Ok(())
    }

    /// Where a device-physical address is for the host, once there is a region.
    pub fn hpa_of(&self, dpa: Dpa) -> Option<Hpa> {
        let region = self.region?;
        let offset_bytes = dpa.bytes_from(region.dpa_base)?;
        region.hpa.part(offset_bytes, 1).map(|byte| byte.base)
    }

    /// Where the device is.
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// The device's serial number, where it has one.
    pub fn serial(&self) -> Option<u64> {
        self.serial
    }

    /// What the device said of itself.
    pub fn device(&self) -> &MemoryDevice {
        &self.device
    }

    /// The MSI-X entry whose message tells that the Dynamic Capacity log is no longer empty.
    pub fn interrupt_entry(&self) -> u8 {
        self.interrupt_entry
    }

    /// The region, once there is one.
    pub fn region(&self) -> Option<CreatedRegion> {
        self.region
    }

    /// The device's regions.
    pub fn configuration(&self) -> &DcConfiguration {
        &self.device.dc
    }

    /// The device's mailbox, for commands that the driver does not send by itself.
    pub fn mailbox(&self) -> &Mailbox {
        &self.device.mailbox
    }

    /// What the host has accepted, in the order of acceptance; the parts of an extent that lost some stand in its place.
    pub fn extents(&self) -> &[HeldExtent] {
        self.extents.as_slice()
    }

    /// The extents of a tag, in the order of acceptance.
    pub fn extents_of(&self, tag: Tag) -> Vec<HeldExtent> {
        self.extents.tagged(tag).copied().collect()
    }

    /// Offers that wait for an answer, oldest first.
    pub fn offers(&self) -> impl Iterator<Item = &Offer> {
        self.offers.iter().map(|waiting| &waiting.what)
    }

    /// What is asked back and has not left, oldest request first.
    pub fn release_requests(&self) -> impl Iterator<Item = &[Extent]> {
        self.requests.iter().map(|waiting| waiting.what.as_slice())
    }

    /// What the host does by itself.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Changes what the host does by itself, from the next interrupt on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// When the policy has something to do by itself, in milliseconds of the bus' clock: then [`Host::on_interrupt`] is to
    /// be called, with an interrupt or without. It is known after every [`Host::on_interrupt`].
    pub fn wakes_at_ms(&self) -> Option<u64> {
        self.wakes_at_ms
    }

    /// Says that the memory of a tag ([`Tag::NONE`]: of all untagged extents) is busy, accepted or not yet. A policy
    /// that asks for it ([`Policy::Linux`] does) then leaves requests for it unanswered, as
    /// [`Handled::Busy`](crate::Handled::Busy).
    pub fn mark_busy(&mut self, tag: Tag) {
        self.busy.insert(tag);
    }

    /// Says that it is no longer. What was asked back meanwhile stays until the device asks again.
    pub fn mark_idle(&mut self, tag: Tag) {
        self.busy.remove(&tag);
    }

    /// Whether the memory of a tag is busy.
    pub fn is_busy(&self, tag: Tag) -> bool {
        self.busy.contains(&tag)
    }

    /// The event status register.
    pub(crate) fn event_status(&self) -> Hpa {
        self.blocks.event_status
    }
}
