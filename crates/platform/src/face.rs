//! The Face: one device's register blocks, as a guest sees them and as its actors publish to them.
//!
//! ```text
//!             staged: command, payload, decoder fields ─┐
//!  guest ────▶ commanded: doorbell, BARs, MSI-X, commit ─┴──▶ CommandSink ──▶ actors
//!        ◀──── published: status, answers, decoders ◀──── complete, set_*, raise ◀── actors
//! ```
//!
//! A commanded write shows at once (a guest reads back what it wrote) and is told to the sink in the order in which
//! writes took effect. Nothing is told while the registers are locked, so a sink may publish from within a tell.
//! The device registers are memory as well, for a guest that reads them, and reads and writes the payload, without an
//! access here ([`Face::register_page`], [`Face::payload_area`]). Deliberately absent: decisions, records, and waiting for
//! durability; a publication is shown when it is made.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use device::config_space::{COMPONENT_BAR, ConfigSpace, ConfigWrite, DEVICE_BAR, MSIX_BAR, PAYLOAD_OFFSET};
use device::mailbox::MAILBOX_VECTOR;
use memory::{HostMemory, HostMemoryError};
use wire::registers::{MAILBOX_PAYLOAD_MAX_LOG2, MAILBOX_PAYLOAD_MIN_LOG2};
use wire::{Hpa, Opcode, ReturnCode};

use crate::component_block::{ComponentBlock, DecoderStatus};
use crate::device_block::{CompletionInterrupt, DeviceBlock, MailboxCommandImage};
use crate::msix::{Msix, MsixGate, MsixMessage};
use crate::publications::{Epoch, Publications};
use crate::saved::{FaceState, LoadError, SaveError};

/// Where commanded writes go: the device's actors. It is called from vCPU threads and must never wait for anything.
pub trait CommandSink: Send + Sync {
    /// The doorbell was rung; until [`Face::complete`] the mailbox takes no writes.
    fn doorbell(&self, command: MailboxCommandImage);
    /// A register that has an effect by itself was changed; the Face shows it already.
    fn commanded(&self, write: CommandedWrite);
}

/// A write to a commanded register that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandedWrite {
    /// Configuration space.
    Config {
        /// Byte offset.
        offset: u16,
        /// Bytes: 1, 2 or 4.
        width: u8,
        /// The value as written.
        value: u32,
    },
    /// The mailbox control register, the doorbell bit clear (CXL r4.0 8.2.9.4.4).
    MailboxControl(u32),
    /// The MSI-X table.
    Msix {
        /// Byte offset in the table.
        offset: u32,
        /// Bytes: 1, 2, 4 or 8.
        width: u8,
        /// The value as it reads now.
        value: u64,
    },
    /// The HDM decoder global control register (CXL r4.0 8.2.4.20.2).
    HdmGlobalControl(u32),
    /// The commit bit of a decoder was set (CXL r4.0 8.2.4.20.7). To be answered by [`Face::set_decoder`].
    DecoderCommit {
        /// Which decoder.
        decoder: u8,
        /// The staged base.
        base: Hpa,
        /// The staged size in bytes.
        size_bytes: u64,
        /// The staged DPA skip in bytes.
        skip_bytes: u64,
        /// The control register as it reads now.
        control: u32,
    },
    /// The commit bit of a decoder was cleared. To be answered by [`Face::set_decoder`].
    DecoderUncommit {
        /// Which decoder.
        decoder: u8,
        /// The control register as it reads now.
        control: u32,
    },
}

/// Who receives message-signalled interrupts. It must never wait for anything.
pub trait InterruptLine: Send + Sync {
    /// A message leaves the function.
    fn interrupt(&self, message: MsixMessage);
}

impl<F: Fn(MsixMessage) + Send + Sync> InterruptLine for F {
    fn interrupt(&self, message: MsixMessage) {
        self(message);
    }
}

/// The base address registers of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BarIndex {
    /// Component registers (CXL r4.0 8.2.3).
    Component,
    /// Device registers (CXL r4.0 8.2.9).
    Device,
    /// MSI-X table and pending bits.
    Msix,
}

impl BarIndex {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Component, Self::Device, Self::Msix];

    /// The number of the register in the header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Component => COMPONENT_BAR,
            Self::Device => DEVICE_BAR,
            Self::Msix => MSIX_BAR,
        }
    }

    /// How many of `len` bytes from `offset` on are registers, each of which takes accesses of its own widths; behind
    /// them is the mailbox payload area, which takes any.
    pub(crate) fn registers_len(self, offset: u64, len: usize) -> usize {
        match self {
            Self::Device => usize::try_from(PAYLOAD_OFFSET.saturating_sub(offset)).unwrap_or(len).min(len),
            Self::Component | Self::Msix => len,
        }
    }
}

/// One device's register blocks.
pub struct Face {
    registers: Mutex<Registers>,
    /// As [`Registers::is_settled`] was after the last change.
    settled: AtomicBool,
    /// Held by the thread whose turn it is to tell.
    turn: Mutex<()>,
    sink: Arc<dyn CommandSink>,
    line: OnceLock<Arc<dyn InterruptLine>>,
    publications: Publications,
    relay: OnceLock<Arc<Publications>>,
    moves: OnceLock<MoveListener>,
}

/// Who hears that BARs answer elsewhere.
type MoveListener = Box<dyn Fn() + Send + Sync>;

struct Registers {
    config: ConfigSpace,
    /// Where the BARs answer: worked out when configuration space changes, because every access asks.
    bars: Bars,
    device: DeviceBlock,
    component: ComponentBlock,
    msix: Msix,
    outgoing: VecDeque<Outgoing>,
}

/// Base and length in bytes of each BAR that answers, in the order of [`BarIndex::ALL`].
pub(crate) type Bars = [Option<(Hpa, u64)>; BarIndex::ALL.len()];

fn bars_of(config: &ConfigSpace) -> Bars {
    BarIndex::ALL.map(|bar| Some((config.bar(bar.number())?, config.bar_len_bytes(bar.number())?)))
}

/// What waits to be told, in order.
enum Outgoing {
    Doorbell(MailboxCommandImage),
    Commanded(CommandedWrite),
    Interrupt(MsixMessage),
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("serial", &self.registers().config.serial()).finish_non_exhaustive()
    }
}

impl Face {
    /// A device whose configuration space is `config` and all of whose other registers are as at power-on. The mailbox
    /// payload area has two to the power of `payload_log2` bytes, brought into 8 to 20.
    ///
    /// # Errors
    ///
    /// The host has no memory for registers and payload.
    pub fn new(config: ConfigSpace, payload_log2: u8, sink: Arc<dyn CommandSink>) -> Result<Self, HostMemoryError> {
        let payload_log2 = payload_log2.clamp(MAILBOX_PAYLOAD_MIN_LOG2, MAILBOX_PAYLOAD_MAX_LOG2);
        Ok(Self {
            registers: Mutex::new(Registers::new(config, payload_log2)?),
            settled: AtomicBool::new(true),
            turn: Mutex::new(()),
            sink,
            line: OnceLock::new(),
            publications: Publications::default(),
            relay: OnceLock::new(),
            moves: OnceLock::new(),
        })
    }

    /// Connects the receiver of interrupts; the first one stays.
    pub fn connect_interrupts(&self, line: Arc<dyn InterruptLine>) {
        self.line.get_or_init(|| line);
    }

    /// Lets `relay` know of every publication too; the first one stays.
    pub fn relay_publications(&self, relay: Arc<Publications>) {
        self.relay.get_or_init(|| relay);
    }

    /// Lets `listener` know whenever BARs answer elsewhere, or not any more, before the change that moved them returns;
    /// the first one stays. It is called with nothing locked.
    pub(crate) fn connect_moves(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.moves.get_or_init(|| Box::new(listener));
    }

    /// The device registers up to the payload area, as they read at any time: memory for a guest to read, never to
    /// write.
    pub fn register_page(&self) -> Arc<HostMemory> {
        Arc::clone(self.registers().device.register_page())
    }

    /// The mailbox payload area: memory for a guest to read and write at any time. A command is what was there at the
    /// doorbell; what is written while it is under way is lost where the answer comes to stand, and stays elsewhere.
    pub fn payload_area(&self) -> Arc<HostMemory> {
        Arc::clone(self.registers().device.payload_area())
    }

    // The guest's side.

    /// What the guest reads from configuration space.
    pub fn config_read(&self, offset: u16, width: u8) -> u32 {
        self.registers().config.read(offset, width)
    }

    /// What the guest writes to configuration space.
    pub fn config_write(&self, offset: u16, width: u8, value: u32) {
        self.change(|registers| {
            if registers.config.write(offset, width, value) == ConfigWrite::Changed {
                registers.bars = bars_of(&registers.config);
                let write = CommandedWrite::Config { offset, width, value };
                registers.outgoing.push_back(Outgoing::Commanded(write));
                registers.release_interrupts();
            }
        });
    }

    /// Where a BAR answers and its length in bytes, or `None` while it does not.
    pub fn bar(&self, bar: BarIndex) -> Option<(Hpa, u64)> {
        self.bars()[bar as usize]
    }

    /// Where all BARs answer.
    pub(crate) fn bars(&self) -> Bars {
        self.registers().bars
    }

    /// Fills `to` with the bytes of a BAR: of any width and alignment, zero where no register is.
    pub fn mmio_read(&self, bar: BarIndex, offset: u64, to: &mut [u8]) {
        let registers = self.registers();
        match bar {
            BarIndex::Component => registers.component.read(offset, to),
            BarIndex::Device => registers.device.read(offset, to),
            BarIndex::Msix => registers.msix.read(offset, to),
        }
    }

    /// Writes to a BAR. Registers take naturally aligned writes of 1, 2, 4 and 8 bytes, the mailbox payload area any;
    /// every other write changes nothing.
    pub fn mmio_write(&self, bar: BarIndex, offset: u64, from: &[u8]) {
        self.change(|registers| match bar {
            BarIndex::Component => {
                let write = registers.component.write(offset, from);
                registers.outgoing.extend(write.map(Outgoing::Commanded));
            }
            BarIndex::Device => {
                let asked = registers.device.write(offset, from);
                let control = asked.control.map(|value| Outgoing::Commanded(CommandedWrite::MailboxControl(value)));
                registers.outgoing.extend(control);
                registers.outgoing.extend(asked.doorbell.map(Outgoing::Doorbell));
            }
            BarIndex::Msix => {
                let write = registers.msix.write(offset, from);
                registers.outgoing.extend(write.map(Outgoing::Commanded));
                registers.release_interrupts();
            }
        });
    }

    /// Whether all that the guest has asked for is answered: no command is under way, and every decoder's control
    /// register shows how its commit, or the end of it, went.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// The epoch of publications now; take it before looking at a register that is waited for.
    pub fn epoch(&self) -> Epoch {
        self.publications.epoch()
    }

    /// Waits until something was published or an interrupt was raised after `seen`, or `timeout` is over.
    pub fn wait(&self, seen: Epoch, timeout: Duration) -> Epoch {
        self.publications.wait(seen, timeout)
    }

    // The actors' side.

    /// Shows the answer to the command under way and clears the doorbell. Without one nothing happens.
    pub fn complete(&self, opcode: Opcode, return_code: ReturnCode, payload: &[u8]) {
        self.publish(|registers| {
            if registers.device.complete(opcode, return_code, payload) == CompletionInterrupt::Wanted {
                registers.raise(MAILBOX_VECTOR);
            }
        });
    }

    /// Sets the event status register (CXL r4.0 8.2.9.3.1).
    pub fn set_event_status(&self, bits: u64) {
        self.publish(|registers| registers.device.set_event_status(bits));
    }

    /// Shows how a decoder's commit went.
    pub fn set_decoder(&self, decoder: u8, status: DecoderStatus) {
        self.publish(|registers| registers.component.set_decoder(decoder, status));
    }

    /// Raises an MSI-X vector.
    pub fn raise(&self, vector: u8) {
        self.publish(|registers| registers.raise(vector));
    }

    /// Puts every register into its power-on state, configuration space into `config`. A command under way is
    /// forgotten: its completion has to be published before this, or never.
    pub fn reset(&self, config: ConfigSpace) {
        self.publish(|registers| {
            registers.bars = bars_of(&config);
            registers.config = config;
            registers.device.reset();
            registers.component = ComponentBlock::default();
            registers.msix = Msix::new();
        });
    }

    /// Sets the MSI-X table and the mailbox control register to what they were before this process began.
    pub fn restore_interrupts(&self, msix: &[u8], mailbox_control: u32) {
        let mut registers = self.registers();
        registers.msix.restore(msix);
        registers.device.restore_control(mailbox_control);
    }

    /// Sets the HDM decoder global control register to what it was before this process began.
    pub fn restore_hdm_control(&self, control: u32) {
        self.registers().component.restore_global_control(control);
    }

    /// Sets a decoder's fields to what they were when its commit bit was set, before this process began;
    /// [`Face::set_decoder`] shows how the commit went.
    pub fn restore_decoder(&self, decoder: u8, base: Hpa, size_bytes: u64, skip_bytes: u64, control: u32) {
        self.registers().component.restore_decoder(decoder, base, size_bytes, skip_bytes, control);
    }

    // A guest that is saved, and one that goes on.

    /// All registers as a guest reads them, but for configuration space, all of which is the device's state. Only while
    /// nobody accesses the device, guest or actor.
    ///
    /// # Errors
    ///
    /// Something that the guest asked for is not answered.
    pub fn save(&self) -> Result<FaceState, SaveError> {
        let registers = self.registers();
        let Registers { config: _, bars: _, device, component, msix, outgoing } = &*registers;
        if device.is_command_under_way() {
            return Err(SaveError::CommandUnderWay);
        }
        if let Some(decoder) = component.unanswered() {
            return Err(SaveError::DecoderUnanswered { decoder });
        }
        if !outgoing.is_empty() {
            return Err(SaveError::Untold { untold: outgoing.len() });
        }
        Ok(FaceState { device: device.save(), component: component.clone(), msix: msix.clone() })
    }

    /// Makes the registers read as they did when `state` was saved, and sends no interrupt. The device shows its state of
    /// that moment already: configuration space, what the `restore_*` functions set, and committed decoders. Only while
    /// nobody accesses the device, guest or actor.
    ///
    /// # Errors
    ///
    /// The device differs from the one that was saved; nothing has changed then.
    pub fn load(&self, state: &FaceState) -> Result<(), LoadError> {
        let mut loaded = Ok(());
        self.publish(|registers| loaded = registers.load(state));
        loaded
    }

    fn publish(&self, publication: impl FnOnce(&mut Registers)) {
        self.change(publication);
        self.publications.announce();
        if let Some(relay) = self.relay.get() {
            relay.announce();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Registers)) {
        let mut registers = self.registers();
        let bars = registers.bars;
        change(&mut registers);
        self.settled.store(registers.is_settled(), Ordering::Release);
        let (is_told, has_moved) = (registers.outgoing.is_empty(), registers.bars != bars);
        drop(registers);
        if let Some(listener) = self.moves.get().filter(|_| has_moved) {
            listener();
        }
        if !is_told {
            self.tell();
        }
    }

    /// Tells what waits, in order. One thread at a time does it, for all; who finds it being done may leave, because
    /// the other looks again after its turn.
    fn tell(&self) {
        loop {
            let turn = match self.turn.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            while let Some(outgoing) = self.next_outgoing() {
                self.send(outgoing);
            }
            drop(turn);
            if self.registers().outgoing.is_empty() {
                return;
            }
        }
    }

    fn next_outgoing(&self) -> Option<Outgoing> {
        self.registers().outgoing.pop_front()
    }

    fn send(&self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Doorbell(command) => self.sink.doorbell(command),
            Outgoing::Commanded(write) => self.sink.commanded(write),
            Outgoing::Interrupt(message) => {
                if let Some(line) = self.line.get() {
                    line.interrupt(message);
                }
            }
        }
    }

    // Every change leaves the registers whole, whatever panics after it.
    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registers {
    fn new(config: ConfigSpace, payload_log2: u8) -> Result<Self, HostMemoryError> {
        Ok(Self {
            bars: bars_of(&config),
            config,
            device: DeviceBlock::new(payload_log2)?,
            component: ComponentBlock::default(),
            msix: Msix::new(),
            outgoing: VecDeque::new(),
        })
    }

    fn load(&mut self, state: &FaceState) -> Result<(), LoadError> {
        let FaceState { device, component, msix } = state;
        self.device.check(device)?;
        self.component.check(component)?;
        self.msix.check(msix)?;
        self.device.load(device);
        (self.component, self.msix) = (component.clone(), msix.clone());
        Ok(())
    }

    fn is_settled(&self) -> bool {
        !self.device.is_command_under_way() && self.component.is_settled()
    }

    fn gate(&self) -> MsixGate {
        match (self.config.msix_enabled(), self.config.function_masked()) {
            (false, _) => MsixGate::Off,
            (true, true) => MsixGate::Masked,
            (true, false) => MsixGate::Open,
        }
    }

    fn raise(&mut self, vector: u8) {
        let message = self.msix.raise(vector, self.gate());
        self.outgoing.extend(message.map(Outgoing::Interrupt));
    }

    fn release_interrupts(&mut self) {
        let messages = self.msix.release(self.gate());
        self.outgoing.extend(messages.into_iter().map(Outgoing::Interrupt));
    }
}
