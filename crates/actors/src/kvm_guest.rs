//! The guest on KVM: its machine, who answers its exits, and what becomes of it when the VM is paused, reset and stopped.
//!
//! ```text
//!  machine ── exits ────▶ Platform ── messages ──▶ Interrupts ──▶ local APICs
//!     │    ── deaths ───▶ Fatal
//!     └ loads, stores ──▶ slots: RAM, register pages, payloads, pieces of the window
//! ```
//!
//! Deliberately absent: what is in a slot (`memory` and `platform` know), and what the guest does (its image).

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use driver::HpaRange;
use journal::Journal;
use memory::Slots;
use platform::{AttachError, ECAM_BASE, ECAM_LEN_BYTES};
use platform::{CXL_HOST_REGISTERS_LEN_BYTES, MMIO_BASE, MMIO_LEN_BYTES, MsixMessage, Platform};
use thiserror::Error;
use vm::{
    Exits, GuestDriver, GuestPlatform, GuestWord, Interrupts, Machine, MachineError, MachineRequest, MachineState,
    Message,
};
use vm::{Observer, Unavailable, VcpuDeath};
use wire::Hpa;

use crate::bus::platform_map;
use crate::fatal::{Fatal, FatalFlag};
use crate::guest_vcpu::{Guest, GuestProgram};
use crate::start::Accel;

/// Where RAM goes on above 4 GiB.
const FOUR_GIB: Hpa = Hpa(4 << 30);

/// Why there is no guest on KVM.
#[derive(Debug, Error)]
pub enum KvmError {
    /// This host has no KVM.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// KVM makes no such machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// KVM does not show the guest its memory.
    #[error(transparent)]
    Slots(#[from] AttachError),
}

/// What a guest on KVM is made of.
pub(crate) struct KvmParts<'a> {
    pub(crate) platform: Arc<Platform>,
    pub(crate) vcpus: u32,
    pub(crate) program: GuestProgram,
    pub(crate) fatal: FatalFlag,
    pub(crate) journal: Journal,
    /// What the processors were; `None`: they boot.
    pub(crate) state: Option<&'a MachineState>,
    /// What was made of it already.
    pub(crate) ahead: Option<Ahead>,
}

/// A virtual machine that is made on a thread of its own, while the state of its guest is read.
pub(crate) struct Ahead {
    vcpus: u32,
    making: JoinHandle<Result<vm::Vm, Unavailable>>,
}

impl Ahead {
    /// Begins to make it, where the guest is one on KVM.
    pub(crate) fn begin(accel: Accel) -> Option<Self> {
        let Accel::Kvm { vcpus } = accel else { return None };
        let making = thread::Builder::new().name("kvm-ahead".into()).spawn(move || vm::Vm::create_with(vcpus));
        making.ok().map(|making| Self { vcpus, making })
    }

    /// The machine, if it has so many processors. One that could not be made is tried once more.
    fn finish(self, vcpus: u32) -> Result<vm::Vm, Unavailable> {
        let made = (self.vcpus == vcpus).then(|| self.making.join().ok()?.ok()).flatten();
        made.map_or_else(vm::Vm::create, Ok)
    }
}

/// The guest on KVM.
pub(crate) struct KvmGuest {
    machine: Machine,
    interrupts: Interrupts,
    slots: Arc<Slots>,
    platform: Arc<Platform>,
    life: Mutex<Life>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    Stopped,
}

struct Life {
    mode: Mode,
    /// Resets under way; nothing runs while there is one.
    resets: u32,
}

impl KvmGuest {
    /// A machine at the begin of its first boot, or where another stood; it stands still.
    pub(crate) fn new(parts: KvmParts<'_>) -> Result<Arc<Self>, KvmError> {
        let KvmParts { platform, vcpus, program, fatal, journal, state, ahead } = parts;
        let vm = Arc::new(ahead.map_or_else(vm::Vm::create, |ahead| ahead.finish(vcpus))?);
        let slots = Arc::new(Slots::new(Arc::clone(&vm) as _));
        // What the life before has written is known, and the next snapshot will be built on that: logs begin with their slots.
        if platform.ram().is_tracked()
            && let Err(error) = slots.track()
        {
            tracing::warn!("what the guest writes is not known page by page: {error}");
        }
        let alarm = fatal.clone();
        slots.connect_alarm(Arc::new(move |stuck| raise_elsewhere(&alarm, stuck.to_string())));
        platform.attach(Arc::clone(&slots))?;
        platform.window().attach(Arc::clone(&slots)).map_err(AttachError::from)?;
        let exits = Arc::new(PlatformExits { platform: Arc::clone(&platform), guest: OnceLock::new() });
        let request = MachineRequest {
            ram: Arc::clone(platform.ram()),
            low_ram_len_bytes: platform.address_map().low_ram_len_bytes(),
            reach: reach(&platform),
            vcpus,
            platform: guest_platform(&platform),
            driver: driver(program),
            exits: Arc::clone(&exits) as _,
            observer: Arc::new(Ears { fatal, journal }),
        };
        let machine = Machine::new(Arc::clone(&vm), request)?;
        match state {
            None => machine.boot(wall_ms())?,
            Some(state) => machine.load(state, wall_ms())?,
        }
        let life = Mutex::new(Life { mode: Mode::Paused, resets: 0 });
        let guest = Self { machine, interrupts: Interrupts::new(vm), slots, platform, life };
        let guest = Arc::new(guest);
        exits.guest.get_or_init(|| Arc::downgrade(&guest));
        let heard_by = Arc::downgrade(&guest);
        guest.platform.connect_listener(Arc::new(move || {
            if let Some(guest) = heard_by.upgrade() {
                guest.look_whether_settled();
            }
        }));
        Ok(guest)
    }

    /// The machine, for jobs.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What the guest reaches without an exit.
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    pub(crate) fn run(&self) {
        let mut life = self.life();
        if life.mode == Mode::Paused {
            life.mode = Mode::Running;
            self.go(&life);
        }
    }

    /// Returns when the access that each processor was about has retired.
    pub(crate) fn pause(&self) {
        let mut life = self.life();
        if life.mode == Mode::Running {
            life.mode = Mode::Paused;
            self.machine.pause();
        }
    }

    pub(crate) fn stop(&self) {
        self.life().mode = Mode::Stopped;
        self.machine.stop();
        // Its slots go when the last who holds this does, in the midst of the next life: they must not call all of RAM dirty
        // then.
        self.slots.still_for_good();
    }

    pub(crate) fn reset_begins(&self) {
        let mut life = self.life();
        life.resets += 1;
        self.machine.pause();
    }

    pub(crate) fn reset_ends(&self) {
        let mut life = self.life();
        life.resets = life.resets.saturating_sub(1);
        if life.resets == 0 && life.mode != Mode::Stopped {
            if let Err(error) = self.machine.boot(wall_ms()) {
                // A processor that has ended was reported when it did; it does not come back by a reset.
                tracing::warn!("the guest does not boot anew: {error}");
            }
            self.go(&life);
        }
    }

    /// Does something while no processor runs: where memory that a slot shows is about to be cut in two, an atomic
    /// instruction that came as an exit in between would be a load and a store, with room for another processor's. And what
    /// a processor has written is only known exactly of a slot that goes while none writes.
    pub(crate) fn still<T>(&self, work: impl FnOnce() -> T) -> T {
        let life = self.life();
        let has_others = self.machine.vcpus() > 1 || self.slots.is_tracking();
        let is_paused = has_others && life.mode == Mode::Running && life.resets == 0;
        if is_paused {
            self.machine.pause();
        }
        let is_still = is_paused || life.mode != Mode::Running || life.resets > 0;
        let done = if is_still { self.slots.still(work) } else { work() };
        if is_paused {
            self.machine.run();
        }
        done
    }

    pub(crate) fn plugged(&self) {
        self.look_whether_settled();
        self.machine.ask_attention();
    }

    pub(crate) fn interrupt(&self, message: MsixMessage) {
        self.interrupts.send(Message { address: message.address, data: message.data });
    }

    /// How the guest's driver fares, if it has said anything.
    pub(crate) fn guest(&self) -> Option<Guest> {
        self.machine.guest_word().and_then(|word| match word {
            GuestWord::Booting => Some(Guest::Booting),
            GuestWord::Serving { extents } => Some(Guest::Serving { extents: extents as usize }),
            GuestWord::Failed(reason) => Some(Guest::Failed(reason)),
            GuestWord::Warning(_) => None,
        })
    }

    fn go(&self, life: &Life) {
        if life.mode == Mode::Running && life.resets == 0 {
            self.machine.run();
        }
    }

    /// Waiting for the device takes no time for the guest: a completion may wait for the disk.
    pub(crate) fn look_whether_settled(&self) {
        if self.platform.is_settled() {
            self.machine.set_command_under_way(false);
        }
    }

    // A panic leaves the word for what should be; what is, the machine knows.
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot can be stuck in the middle of what the outbox does, and whoever ends the VM closes the outbox.
fn raise_elsewhere(alarm: &FatalFlag, reason: String) {
    let alarm = alarm.clone();
    let raised = thread::Builder::new().spawn(move || alarm.raise(Fatal::Mapping { reason }));
    if let Err(error) = raised {
        tracing::error!("a slot is stuck, and nobody can be told: {error}");
    }
}

/// Who answers exits: the platform.
struct PlatformExits {
    platform: Arc<Platform>,
    guest: OnceLock<Weak<KvmGuest>>,
}

impl Exits for PlatformExits {
    fn mmio_read(&self, hpa: Hpa, to: &mut [u8]) {
        self.platform.read(hpa, to);
    }

    fn mmio_write(&self, hpa: Hpa, from: &[u8]) {
        let guest = self.guest.get().and_then(Weak::upgrade);
        // Before the write, so that a completion on another thread clears it after that and not before.
        guest.iter().for_each(|guest| guest.machine.set_command_under_way(true));
        self.platform.write(hpa, from);
        guest.iter().for_each(|guest| guest.look_whether_settled());
    }

    fn port_read(&self, port: u16, to: &mut [u8]) {
        let value = self.platform.port_read(port, to.len() as u8).to_le_bytes();
        to.iter_mut().zip(value).for_each(|(to, byte)| *to = byte);
    }

    fn port_write(&self, port: u16, from: &[u8]) {
        let mut value = [0; 4];
        value.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
        self.platform.port_write(port, from.len() as u8, u32::from_le_bytes(value));
    }
}

/// Who hears of the guest.
struct Ears {
    fatal: FatalFlag,
    journal: Journal,
}

impl Observer for Ears {
    fn guest_said(&self, word: GuestWord) {
        match word {
            GuestWord::Failed(reason) | GuestWord::Warning(reason) => tracing::warn!("guest: {reason}"),
            GuestWord::Booting | GuestWord::Serving { .. } => {}
        }
    }

    fn vcpu_died(&self, death: VcpuDeath) {
        self.fatal.raise(Fatal::Vcpu { last: self.journal.last(), death });
    }
}

/// What the guest may address: anything else is a page fault.
fn reach(platform: &Platform) -> Vec<HpaRange> {
    let (map, window) = (platform.address_map(), platform.window());
    let range = |base, size_bytes| HpaRange { base, size_bytes };
    let host_registers = map.cxl_host_registers().map(|base| range(base, CXL_HOST_REGISTERS_LEN_BYTES));
    let ranges = [
        range(Hpa(0), map.low_ram_len_bytes()),
        range(FOUR_GIB, map.high_ram_len_bytes()),
        range(ECAM_BASE, ECAM_LEN_BYTES),
        range(MMIO_BASE, MMIO_LEN_BYTES),
        range(window.base(), window.size_bytes()),
    ];
    ranges.into_iter().chain(host_registers).filter(|range| range.size_bytes > 0).collect()
}

fn guest_platform(platform: &Platform) -> GuestPlatform {
    let map = platform_map(platform);
    GuestPlatform {
        root_buses: map.root_buses.to_vec(),
        mmio: HpaRange { base: map.mmio_base, size_bytes: map.mmio_len_bytes },
        window: HpaRange { base: map.window_base, size_bytes: map.window_len_bytes },
        ecam_base: Some(ECAM_BASE),
    }
}

fn driver(program: GuestProgram) -> Option<GuestDriver> {
    match program {
        GuestProgram::None => None,
        GuestProgram::Driver { policy, busy } => Some(GuestDriver { policy, busy }),
    }
}

/// Milliseconds since 1970; 0 where the host's clock is before that.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
