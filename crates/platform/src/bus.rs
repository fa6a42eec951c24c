//! The platform: every access of a guest, routed to what answers it.
//!
//! ```text
//!  address ──▶ RAM, else CXL window, else CXL host registers, else ECAM, else the BAR of a port, or of a device
//!              behind a port that forwards it, else nothing
//!  bus:device.function ──▶ 00:00.0 host bridge, 0C:nn.0 port nn, secondary bus:00.0 the device behind its port
//! ```
//!
//! What nobody claims reads all ones and swallows writes; an access that straddles two claims is split. A port forwards
//! only what its memory windows hold, so a driver that forgets them sees no device. Devices come and go at run time; an
//! access under way ends at the device that it began with.
//!
//! Where a hypervisor's slots are attached ([`Platform::attach`]), a guest reaches RAM, device registers (to read) and
//! mailbox payloads without coming here. What moves them, and comes here, returns when the slots have moved. The lock of
//! their placement is taken with no other one held, and the bridges are only read under it, so that any thread may be
//! the one that moves something. Deliberately absent: who decides (the actors behind each
//! [`Face`]), and timing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use memory::{HostMemory, Route, SlotError, Slots, StuckSlot, Window};
use wire::Hpa;

use crate::address_map::AddressMap;
use crate::bridges::{self, Bridges, Claim, Function};
use crate::config_access::{ConfigAddress, ConfigRegister, PortAccess, from_bytes, lanes, natural_pieces, to_bytes};
use crate::face::{BarIndex, Face};
use crate::host_bridge_block::RoutesChange;
use crate::msix::MsixMessage;
use crate::publications::{Epoch, PublicationListener, Publications};
use crate::register_slots::{Placement, Shown};
use crate::saved::{LoadError, PlatformState};

/// The bus of the host bridge.
pub const HOST_BRIDGE_BUS: u8 = 0x00;
/// The root bus of the CXL host bridge, with its root ports.
pub const ROOT_PORT_BUS: u8 = 0x0c;

/// The widest access to configuration space in bytes.
const CONFIG_WIDTH_MAX: usize = 4;
/// How long [`Platform::settle`] looks before it sleeps: a command that waits for no disk is over by then, and to be
/// woken costs as much again.
const EAGER: Duration = Duration::from_micros(50);
/// The widest access to a register in bytes.
const REGISTER_WIDTH_MAX: usize = 8;

/// What a platform is made of.
#[derive(Clone, Debug)]
pub struct PlatformParts {
    /// Guest memory.
    pub ram: Arc<HostMemory>,
    /// The CXL fixed memory windows, which follow one another: one lookup spans them.
    pub window: Arc<Window>,
    /// How many root ports there are, at most 32 (further ones are on no bus); a device is plugged into each or not.
    pub root_ports: u8,
}

/// Why a device was not plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// There is no such root port.
    #[error("there is no root port {port}: the machine has {root_ports}, counted from 0")]
    NoPort {
        /// The port asked for.
        port: u8,
        /// How many there are.
        root_ports: u8,
    },
    /// There is a device already.
    #[error("root port {port} has a device already: unplug it first, or take another port")]
    Occupied {
        /// The port asked for.
        port: u8,
    },
}

/// Why slots were not attached to a platform.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A guest cannot run without its RAM.
    #[error("guest memory cannot be put into a slot: {0}")]
    Ram(#[from] SlotError),
    /// A slot that was attached before stays.
    #[error(transparent)]
    Stuck(#[from] StuckSlot),
}

/// Whether everything that guests have asked of devices is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is.
    Yes,
    /// The time was over before.
    TimedOut,
}

/// Guest memory, the CXL window and the devices, as a guest reaches them.
#[derive(Debug)]
pub struct Platform {
    map: AddressMap,
    ram: Arc<HostMemory>,
    window: Arc<Window>,
    bridges: RwLock<Bridges>,
    publications: Arc<Publications>,
    placement: Mutex<Option<Placement>>,
    /// Once slots were attached: for devices to tell that they have moved.
    this: OnceLock<Weak<Self>>,
}

/// What answers at an address, wherever it is.
enum Answerer {
    Ram { offset_bytes: u64 },
    Window,
    Other(Claim),
}

/// Whether a write is one access, or bytes in a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grain {
    Access,
    Bulk,
}

impl Platform {
    /// A platform whose root ports are all empty.
    pub fn new(parts: PlatformParts) -> Self {
        let PlatformParts { ram, window, root_ports } = parts;
        let map = AddressMap::new(ram.len_bytes());
        let bridges = RwLock::new(Bridges::new(root_ports, map.cxl_host_registers()));
        let (publications, placement, this) = Default::default();
        Self { map, ram, window, bridges, publications, placement, this }
    }

    /// Puts a device into the slot of a root port. Guests see it from then on.
    pub fn plug(&self, port: u8, face: Arc<Face>) -> Result<(), PlugError> {
        let mut bridges = self.bridges_mut();
        bridges.plug(port, Arc::clone(&face))?;
        // Before a guest can reach it, so that nobody who waits for it misses anything.
        face.relay_publications(Arc::clone(&self.publications));
        drop(bridges);
        self.watch(&face);
        self.settle_slots();
        Ok(())
    }

    /// Shows RAM, device registers and mailbox payloads in slots, now and wherever they move from now on. Slots that were
    /// attached before are cleared. What besides RAM finds no slot is served by exits. The window has slots of its own:
    /// [`Window::attach`].
    ///
    /// # Errors
    ///
    /// What stands in the way; no slots are attached then.
    pub fn attach(self: &Arc<Self>, slots: Arc<Slots>) -> Result<(), AttachError> {
        self.detach()?;
        self.this.get_or_init(|| Arc::downgrade(self));
        *self.placement() = Some(Placement::new(slots, &self.map, &self.ram)?);
        self.faces().iter().for_each(|(_, face)| self.watch(face));
        self.settle_slots();
        Ok(())
    }

    /// Clears the slots: from then on every access is an exit.
    ///
    /// # Errors
    ///
    /// A slot is stuck: those that could be cleared are.
    pub fn detach(&self) -> Result<(), StuckSlot> {
        self.placement().take().map_or(Ok(()), Placement::clear)
    }

    /// Takes the device out of the slot of a root port, and returns it if there was one. Guests see it no more;
    /// accesses to it that are under way still end there, none of them through a slot.
    pub fn unplug(&self, port: u8) -> Option<Arc<Face>> {
        let face = self.bridges_mut().unplug(port);
        self.settle_slots();
        // Whoever waits for it to settle need not any more.
        self.publications.announce();
        face
    }

    /// Where what is.
    pub fn address_map(&self) -> AddressMap {
        self.map
    }

    /// Guest memory.
    pub fn ram(&self) -> &Arc<HostMemory> {
        &self.ram
    }

    /// The CXL fixed memory window.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// The devices that are plugged, with their root ports, in the order of these.
    pub fn faces(&self) -> Vec<(u8, Arc<Face>)> {
        self.bridges().faces().map(|(port, face)| (port, Arc::clone(face))).collect()
    }

    /// What the guest reads from a function's configuration space: all ones where there is no function.
    pub fn config_read(&self, bus: u8, device: u8, function: u8, offset: u16, width: u8) -> u32 {
        let mut bridges = self.bridges_mut();
        let value = match bridges.function(bus, device, function) {
            Some(Function::HostBridge(bridge)) => bridge.read(offset, width),
            Some(Function::RootPort(port)) => port.read(offset, width),
            Some(Function::Device(face)) => {
                drop(bridges);
                face.config_read(offset, width)
            }
            None => u32::MAX,
        };
        value & lanes(width)
    }

    /// What the guest writes to a function's configuration space.
    pub fn config_write(&self, bus: u8, device: u8, function: u8, offset: u16, width: u8, value: u32) {
        let mut bridges = self.bridges_mut();
        match bridges.function(bus, device, function) {
            Some(Function::HostBridge(bridge)) => {
                bridge.write(offset, width, value);
                drop(bridges);
                self.settle_slots();
            }
            Some(Function::RootPort(port)) => {
                port.write(offset, width, value);
                drop(bridges);
                self.settle_slots();
            }
            Some(Function::Device(face)) => {
                // The write can tell the device's actors something: not with the bridges locked.
                drop(bridges);
                face.config_write(offset, width, value);
            }
            None => {}
        }
    }

    /// What the guest reads from an IO port, `width` bytes: 1, 2 or 4.
    pub fn port_read(&self, port: u16, width: u8) -> u32 {
        let address = self.bridges().config_address;
        match address.access(port, width) {
            PortAccess::Address => address.0,
            PortAccess::Data(register) => self.register_read(register, width),
            PortAccess::Nobody => lanes(width),
        }
    }

    /// What the guest writes to an IO port, `width` bytes: 1, 2 or 4.
    pub fn port_write(&self, port: u16, width: u8, value: u32) {
        let address = self.bridges().config_address;
        match address.access(port, width) {
            PortAccess::Address => self.bridges_mut().config_address = ConfigAddress(value),
            PortAccess::Data(register) => self.register_write(register, width, value),
            PortAccess::Nobody => {}
        }
    }

    /// Fills `to` from `hpa` on.
    pub fn read(&self, hpa: Hpa, to: &mut [u8]) {
        let mut done = 0;
        while let Some(left) = to.get_mut(done..).filter(|left| !left.is_empty()) {
            let Some(at) = hpa.checked_add(done as u64) else { return left.fill(0xff) };
            let (answerer, len) = self.answerer(at, left.len());
            let part = &mut left[..len];
            match answerer {
                Answerer::Ram { offset_bytes } => {
                    if self.ram.read(offset_bytes, part).is_err() {
                        part.fill(0xff);
                    }
                }
                Answerer::Window => self.window.read(at, part),
                Answerer::Other(claim) => self.read_claim(claim, part),
            }
            done += len;
        }
    }

    /// Puts `from` at `hpa`: one access, as far as one thing answers it. Registers take naturally aligned writes of 1, 2,
    /// 4 and 8 bytes; others change nothing.
    pub fn write(&self, hpa: Hpa, from: &[u8]) {
        self.write_all(hpa, from, Grain::Access);
    }

    /// Puts `from` at `hpa` as many accesses: where registers are, naturally aligned ones of at most 8 bytes, by rising
    /// address.
    pub fn write_bulk(&self, hpa: Hpa, from: &[u8]) {
        self.write_all(hpa, from, Grain::Bulk);
    }

    /// A message-signalled interrupt is a write. One whose address is in RAM lands there, for a host that polls for it;
    /// every other one is for the caller to deliver.
    pub fn deliver(&self, message: MsixMessage) {
        if let Some((offset_bytes, _)) = self.map.ram_offset(Hpa(message.address)) {
            // Messages are aligned to their length, and RAM is whole pages: a message is in it as a whole or not at all.
            let _ = self.ram.write_u32(offset_bytes, message.data);
        }
    }

    /// The epoch of all devices' publications now; take it before looking at a register that is waited for.
    pub fn epoch(&self) -> Epoch {
        self.publications.epoch()
    }

    /// Connects who hears of every publication of a device, after it; the first one stays.
    pub fn connect_listener(&self, listener: PublicationListener) {
        self.publications.connect(listener);
    }

    /// Waits until a device published something after `seen`, or `timeout` is over.
    pub fn wait(&self, seen: Epoch, timeout: Duration) -> Epoch {
        self.publications.wait(seen, timeout)
    }

    /// Waits until every device has answered what it was asked ([`Face::is_settled`]), or `limit` is over.
    pub fn settle(&self, limit: Duration) -> Settled {
        if self.is_settled() {
            return Settled::Yes;
        }
        let begun = Instant::now();
        while begun.elapsed() < EAGER.min(limit) {
            if self.is_settled() {
                return Settled::Yes;
            }
            // Where there is one core, the device needs it.
            thread::yield_now();
        }
        loop {
            let seen = self.epoch();
            if self.is_settled() {
                return Settled::Yes;
            }
            let Some(left) = limit.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                return Settled::TimedOut;
            };
            self.wait(seen, left);
        }
    }

    /// Puts the bridges into their power-on state. The devices are reset by their actors.
    pub fn reset(&self) {
        let mut bridges = self.bridges_mut();
        bridges.reset();
        self.route(Vec::new());
        drop(bridges);
        self.settle_slots();
    }

    /// What a guest has programmed of all that is above the devices, and which ports have one. Only while nobody accesses
    /// the platform.
    pub fn save(&self) -> PlatformState {
        self.bridges().save()
    }

    /// Makes everything above the devices answer as it did when `state` was saved. The devices are plugged already. Only
    /// while nobody accesses the platform; slots have moved when it returns.
    ///
    /// # Errors
    ///
    /// Other ports have devices; nothing has changed then.
    pub fn load(&self, state: &PlatformState) -> Result<(), LoadError> {
        let mut bridges = self.bridges_mut();
        bridges.load(state)?;
        self.route(bridges.host_registers.routes());
        drop(bridges);
        self.settle_slots();
        Ok(())
    }

    /// Lets a device tell when it has moved. The platform holds the device: it must not be held by it.
    fn watch(&self, face: &Face) {
        if let Some(this) = self.this.get().cloned() {
            face.connect_moves(move || {
                if let Some(platform) = this.upgrade() {
                    platform.settle_slots();
                }
            });
        }
    }

    /// Moves slots to where registers are now. Whoever changes that later comes here later, and has the last word.
    fn settle_slots(&self) {
        if let Some(placement) = &mut *self.placement() {
            placement.settle(&self.shown());
        }
    }

    /// What devices show without an exit, as far as the bus leads all of it to them.
    fn shown(&self) -> BTreeMap<Hpa, Shown> {
        let mut shown = BTreeMap::new();
        for (_, face) in self.faces() {
            let places = Shown::of(&face).into_iter();
            shown.extend(places.filter(|(hpa, place)| self.leads_to(&face, *hpa, place.len_bytes)));
        }
        shown
    }

    /// Whether every byte of a range is answered by one device's registers.
    fn leads_to(&self, face: &Arc<Face>, hpa: Hpa, len_bytes: u64) -> bool {
        let (mut at, mut left) = (hpa, usize::try_from(len_bytes).unwrap_or(usize::MAX));
        while left > 0 {
            let (answerer, len) = self.answerer(at, left);
            let Answerer::Other(Claim::Bar { face: other, bar: BarIndex::Device, .. }) = answerer else { return false };
            if !Arc::ptr_eq(face, &other) {
                return false;
            }
            (at, left) = (Hpa(at.0.saturating_add(len as u64)), left - len);
        }
        true
    }

    /// Whether everything that guests have asked of devices is answered.
    pub fn is_settled(&self) -> bool {
        self.bridges().faces().all(|(_, face)| face.is_settled())
    }

    fn register_read(&self, at: ConfigRegister, width: u8) -> u32 {
        self.config_read(at.bus, at.device, at.function, at.offset, width)
    }

    fn register_write(&self, at: ConfigRegister, width: u8, value: u32) {
        self.config_write(at.bus, at.device, at.function, at.offset, width, value);
    }

    fn read_claim(&self, claim: Claim, to: &mut [u8]) {
        match claim {
            Claim::HostRegisters { offset } => self.bridges().host_registers.read(offset, to),
            Claim::PortRegisters { offset } => bridges::read_port_registers(offset, to),
            Claim::Bar { face, bar, offset } => face.mmio_read(bar, offset, to),
            Claim::Ecam { offset } => {
                for (start, len) in natural_pieces(offset, to.len(), CONFIG_WIDTH_MAX) {
                    let value = self.register_read(ConfigRegister::in_ecam(offset + start as u64), len as u8);
                    to_bytes(value, &mut to[start..start + len]);
                }
            }
            Claim::Nobody => to.fill(0xff),
        }
    }

    fn write_all(&self, hpa: Hpa, from: &[u8], grain: Grain) {
        let mut done = 0;
        while let Some(left) = from.get(done..).filter(|left| !left.is_empty()) {
            let Some(at) = hpa.checked_add(done as u64) else { return };
            let (answerer, len) = self.answerer(at, left.len());
            let part = &left[..len];
            match answerer {
                // The map has as much RAM as there is, so this cannot be out of range.
                Answerer::Ram { offset_bytes } => drop(self.ram.write(offset_bytes, part)),
                Answerer::Window => self.window.write(at, part),
                Answerer::Other(claim) => self.write_claim(claim, part, grain),
            }
            done += len;
        }
    }

    fn write_claim(&self, claim: Claim, from: &[u8], grain: Grain) {
        match claim {
            Claim::HostRegisters { offset } => {
                accesses(offset, from, grain, |offset, part| self.write_host_registers(offset, part));
            }
            Claim::Bar { face, bar, offset } => {
                let registers_len = match grain {
                    Grain::Access => 0,
                    Grain::Bulk => bar.registers_len(offset, from.len()),
                };
                let (registers, rest) = from.split_at(registers_len);
                accesses(offset, registers, grain, |offset, part| face.mmio_write(bar, offset, part));
                if !rest.is_empty() {
                    face.mmio_write(bar, offset + registers_len as u64, rest);
                }
            }
            Claim::Ecam { offset } => {
                for (start, len) in natural_pieces(offset, from.len(), CONFIG_WIDTH_MAX) {
                    let value = from_bytes(&from[start..start + len]);
                    self.register_write(ConfigRegister::in_ecam(offset + start as u64), len as u8, value);
                }
            }
            Claim::PortRegisters { .. } | Claim::Nobody => {}
        }
    }

    fn write_host_registers(&self, offset: u64, from: &[u8]) {
        let mut bridges = self.bridges_mut();
        if bridges.host_registers.write(offset, from) == RoutesChange::Changed {
            // With the bridges locked, so that of two commits the later one's routes stay.
            self.route(bridges.host_registers.routes());
        }
    }

    fn route(&self, routes: Vec<Route>) {
        // A slot that is stuck has raised the table's alarm: there is nobody here to tell.
        self.window.set_routes(routes).ok();
    }

    /// What answers at `at`, and for how many of `left` bytes, at least one.
    fn answerer(&self, at: Hpa, left: usize) -> (Answerer, usize) {
        let bounded = |len_bytes: u64| usize::try_from(len_bytes).unwrap_or(left).min(left);
        if let Some((offset_bytes, len_bytes)) = self.map.ram_offset(at) {
            return (Answerer::Ram { offset_bytes }, bounded(len_bytes));
        }
        let into_window = at.bytes_from(self.window.base());
        let in_window = into_window.and_then(|into| self.window.size_bytes().checked_sub(into));
        if let Some(len_bytes) = in_window.filter(|len_bytes| *len_bytes > 0) {
            return (Answerer::Window, bounded(len_bytes));
        }
        let next_window = self.window.base().bytes_from(at).filter(|bytes| *bytes > 0);
        let next_claims = next_window.into_iter().chain(self.map.bytes_to_high_ram(at));
        let (claim, len_bytes) = self.bridges().claim(at, next_claims.fold(left as u64, u64::min));
        (Answerer::Other(claim), bounded(len_bytes))
    }

    // What a panic leaves here is fewer slots than there could be.
    fn placement(&self) -> MutexGuard<'_, Option<Placement>> {
        self.placement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Every change leaves the bridges whole, whatever panics after it.
    fn bridges(&self) -> RwLockReadGuard<'_, Bridges> {
        self.bridges.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bridges_mut(&self) -> RwLockWriteGuard<'_, Bridges> {
        self.bridges.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to registers, whole or piece by piece.
fn accesses(offset: u64, from: &[u8], grain: Grain, mut write: impl FnMut(u64, &[u8])) {
    match grain {
        Grain::Access => write(offset, from),
        Grain::Bulk => {
            for (start, len) in natural_pieces(offset, from.len(), REGISTER_WIDTH_MAX) {
                write(offset + start as u64, &from[start..start + len]);
            }
        }
    }
}
