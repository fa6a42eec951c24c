//! A virtual machine with its processors and its guest.
//!
//! ```text
//!  new ─▶ boot or load ─▶ run ⇄ pause ─▶ stop
//!                          │      ├─ save, load
//!                          │      └─ boot (a reset)
//!                          └─ jobs, attention, guest's words and deaths to the observer
//! ```
//!
//! RAM is shown to the guest by whoever keeps the slots, through [`Vm`]; here it is only written. Deliberately absent: what
//! is behind exits, what a reset does to devices, contents of memory in a save.

use std::fmt;
use std::io;
use std::mem::offset_of;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use driver::HpaRange;
use guest::place::{
    self, BOOT_PAGE, PORT_DONE, PORT_FAULT, PORT_PANIC, PORT_STATUS, STATUS_PAGE, VECTOR_KICK, vcpu_block,
};
use guest::{BootPage, StatusPage, StatusState, VcpuPage};
use kvm_bindings::{kvm_clock_data, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use memory::{HostMemory, OutOfRange};
use vmm_sys_util::errno;

use crate::counters::ExitCounts;
use crate::exits::Exits;
use crate::guest_memory::{
    self, BootWords, GuestDriver, GuestPlatform, Layout, LayoutError, LayoutRequest, SharedPages,
};
use crate::interrupts::Message;
use crate::jobs::{Job, JobAnswer, JobDesk, JobError, RunningJob};
use crate::saved::MachineState;
use crate::vcpu::{
    self, BootRegisters, DeathReason, Life, LoadError, OwnPort, Registers, Vcpu, VcpuDeath, VcpuEvents, Wish,
};
use crate::vm::{Virtualization, Vm};

/// Where messages to a vCPU are written; its number stands at bit 12.
const MESSAGE_BASE: u64 = 0xfee0_0000;
const MESSAGE_VCPU_SHIFT: u32 = 12;

/// How the guest's driver fares, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestWord {
    /// It looks for its devices.
    Booting,
    /// It serves events.
    Serving {
        /// Extents that it holds.
        extents: u64,
    },
    /// It gave up until attention is asked for, or a reset.
    Failed(String),
    /// It goes on, but something is wrong.
    Warning(String),
}

/// Who hears of the guest. Called on vCPU threads: it must not wait for the machine.
pub trait Observer: Send + Sync {
    /// The guest's driver said something.
    fn guest_said(&self, word: GuestWord);

    /// A vCPU ended by itself. It does not run again.
    fn vcpu_died(&self, death: VcpuDeath);
}

/// What a machine is made of.
pub struct MachineRequest {
    /// The guest's RAM. The caller shows its first stretch at address 0, and the rest wherever it likes.
    pub ram: Arc<HostMemory>,
    /// Length of the stretch at address 0 in bytes.
    pub low_ram_len_bytes: u64,
    /// What the guest can address: RAM, registers, windows. Anything else is a page fault.
    pub reach: Vec<HpaRange>,
    /// How many processors.
    pub vcpus: u32,
    /// What firmware would tell it.
    pub platform: GuestPlatform,
    /// What its driver does; `None`: it has none, and does jobs only.
    pub driver: Option<GuestDriver>,
    /// Who answers exits.
    pub exits: Arc<dyn Exits>,
    /// Who hears of it.
    pub observer: Arc<dyn Observer>,
}

/// Why there is no machine, or it cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The guest does not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// RAM is shorter than was said.
    #[error(transparent)]
    Ram(#[from] OutOfRange),
    /// KVM refuses something.
    #[error("KVM cannot {doing}: {reason}")]
    Kvm {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// The host has no thread for a vCPU.
    #[error("vCPU {vcpu} gets no thread")]
    Thread {
        /// Which.
        vcpu: u32,
        /// What the host said.
        source: io::Error,
    },
    /// A state cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its processors run.
    #[error("the machine runs: pause it first")]
    Running,
    /// A processor has ended.
    #[error("vCPU {vcpu} has ended")]
    Ended {
        /// Which.
        vcpu: u32,
    },
}

/// A machine.
pub struct Machine {
    // First, so that no vCPU runs when the rest goes.
    vcpus: Vec<Vcpu>,
    shared: Arc<Shared>,
    layout: Layout,
    platform: GuestPlatform,
    driver: Option<GuestDriver>,
    tsc_khz: u64,
    msrs: Vec<u32>,
    /// What the host offers a guest.
    cpuid: Vec<kvm_cpuid_entry2>,
    /// One that steers at a time.
    steering: Mutex<()>,
    vm: Arc<Vm>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("vcpus", &self.vcpus.len()).finish_non_exhaustive()
    }
}

/// What vCPU threads share with the machine.
struct Shared {
    pages: SharedPages,
    desks: Vec<Arc<JobDesk>>,
    exits: Arc<dyn Exits>,
    observer: Arc<dyn Observer>,
    word: Mutex<Option<GuestWord>>,
}

impl Machine {
    /// A machine whose processors stand still, with nothing to run yet.
    pub fn new(vm: Arc<Vm>, request: MachineRequest) -> Result<Self, MachineError> {
        let MachineRequest { ram, low_ram_len_bytes, reach, vcpus, platform, driver, exits, observer } = request;
        guest_memory::check(&platform, driver.as_ref())?;
        let low_ram_len_bytes = low_ram_len_bytes.min(ram.len_bytes());
        let physical_bits = vm.facts().physical_bits;
        let layout = Layout::new(LayoutRequest { vcpus, low_ram_len_bytes, reach: &reach, physical_bits })?;
        let pages = SharedPages::new(ram);
        let desks = (0..vcpus).map(|vcpu| Arc::new(JobDesk::new(vcpu, pages.clone()))).collect();
        let shared = Arc::new(Shared { pages, desks, exits, observer, word: Mutex::new(None) });
        let fds = (0..vcpus).map(|vcpu| vm.create_vcpu(vcpu)).collect::<Result<Vec<_>, _>>();
        let fds = fds.map_err(|error| refused("create a vCPU", error))?;
        let first = fds.first().ok_or(LayoutError::Vcpus(0))?;
        let tsc_khz = first.get_tsc_khz().map_err(|error| refused("say how fast time passes", error))?.into();
        let listed = Kvm::new().and_then(|kvm| kvm.get_msr_index_list());
        let listed = listed.map_err(|error| refused("list model specific registers", error))?;
        let msrs = vcpu::readable_msrs(first, listed.as_slice());
        let cpuid = vcpu::read_cpuid(first).map_err(|error| refused("say what a vCPU can do", error))?;
        let start = |(number, fd)| {
            let events: Arc<dyn VcpuEvents> = Arc::clone(&shared) as _;
            Vcpu::start(number, fd, events).map_err(|source| MachineError::Thread { vcpu: number, source })
        };
        let vcpus = (0..).zip(fds).map(start).collect::<Result<_, _>>()?;
        Ok(Self { vcpus, shared, layout, platform, driver, tsc_khz, msrs, cpuid, steering: Mutex::new(()), vm })
    }

    /// Puts the guest at its begin: memory, registers, interrupts. For the first boot and for resets; the processors must
    /// stand still. What it said before is forgotten.
    pub fn boot(&self, wall_ms: u64) -> Result<(), MachineError> {
        let _steering = self.steer();
        self.check_still()?;
        let words =
            BootWords { platform: &self.platform, driver: self.driver.as_ref(), tsc_khz: self.tsc_khz, wall_ms };
        self.layout.write(self.shared.pages.ram(), words)?;
        for (number, vcpu) in (0..).zip(&self.vcpus) {
            let registers =
                BootRegisters { vcpu: number, entry: self.layout.entry(), root_table: self.layout.root_table() };
            vcpu::set_boot_registers(&vcpu.fd(), registers).map_err(|error| refused("set registers", error))?;
            vcpu.forget_pending();
        }
        *self.word() = None;
        Ok(())
    }

    /// Lets the processors run.
    pub fn run(&self) {
        let _steering = self.steer();
        self.vcpus.iter().for_each(|vcpu| vcpu.wish(Wish::Run));
    }

    /// Lets the processors stand still, and waits until they do. The access that each was about has retired.
    pub fn pause(&self) {
        let _steering = self.steer();
        self.vcpus.iter().for_each(|vcpu| vcpu.wish(Wish::Pause));
        self.vcpus.iter().for_each(Vcpu::wait_still);
    }

    /// Asks the processors to stand still, without waiting. For the vCPU threads themselves.
    pub fn ask_pause(&self) {
        self.vcpus.iter().for_each(|vcpu| vcpu.wish(Wish::Pause));
    }

    /// Ends the processors for good, and waits until their threads are gone. Not to be called on one of these.
    pub fn stop(&self) {
        let _steering = self.steer();
        self.vcpus.iter().for_each(|vcpu| vcpu.wish(Wish::Stop));
        self.vcpus.iter().for_each(Vcpu::stop);
        self.shared.desks.iter().for_each(|desk| desk.ring(true));
    }

    /// All of it but memory and devices. The processors must stand still, and nobody may send it messages meanwhile.
    pub fn save(&self) -> Result<MachineState, MachineError> {
        let _steering = self.steer();
        self.check_still()?;
        let save = |vcpu: &Vcpu| vcpu::save(&vcpu.fd(), &self.msrs);
        let vcpus = self.vcpus.iter().map(save).collect::<Result<_, _>>();
        let vcpus = vcpus.map_err(|error| refused("save a vCPU", error))?;
        let clock = self.vm.fd().get_clock().map_err(|error| refused("save its clock", error))?;
        Ok(MachineState {
            guest_abi: guest::ABI,
            virtualization: self.vm.facts().virtualization,
            tsc_khz: self.tsc_khz,
            clock_ns: clock.clock,
            free_ram: self.layout.free(),
            vcpus,
        })
    }

    /// Makes it what another was, whose memory is there already. The processors must stand still. `wall_ms` is the time.
    ///
    /// # Errors
    ///
    /// The state is of a guest that cannot go on here; nothing has changed then. Or KVM refuses a part of it: the machine is
    /// neither the one nor the other then, until it is booted or loaded anew.
    pub fn load(&self, state: &MachineState, wall_ms: u64) -> Result<(), MachineError> {
        let _steering = self.steer();
        self.check_still()?;
        self.check_fits(state)?;
        let MachineState { guest_abi: _, virtualization: _, tsc_khz: _, clock_ns, free_ram: _, vcpus } = state;
        let clock = kvm_clock_data { clock: *clock_ns, ..Default::default() };
        self.vm.fd().set_clock(&clock).map_err(|error| refused("load its clock", error))?;
        for (number, (vcpu, state)) in (0..).zip(self.vcpus.iter().zip(vcpus)) {
            vcpu::load(&vcpu.fd(), number, state)?;
            vcpu.forget_pending();
        }
        self.set_wall_clock(wall_ms);
        *self.word() = self.shared.read_status();
        Ok(())
    }

    /// Tells the guest what time it is, in milliseconds since 1970. Its clock does not go back.
    pub fn set_wall_clock(&self, wall_ms: u64) {
        self.set_boot_word(offset_of!(BootPage, wall_ms), wall_ms);
        self.set_boot_word(offset_of!(BootPage, tsc_khz), self.tsc_khz);
        self.raise_boot_word(offset_of!(BootPage, clock_sequence));
    }

    /// Says whether a device has not yet answered a command. As long as one has not, waiting for it takes no time for the
    /// guest: its completion may wait for the host's disk, and a slow disk is no dead device.
    pub fn set_command_under_way(&self, is_under_way: bool) {
        self.set_boot_word(offset_of!(BootPage, owed), is_under_way.into());
    }

    /// A device came or went: the guest's driver looks for its devices anew.
    pub fn ask_attention(&self) {
        self.raise_boot_word(offset_of!(BootPage, attention));
        self.tell(0).ok();
    }

    /// What the guest's driver last said, except for warnings.
    pub fn guest_word(&self) -> Option<GuestWord> {
        self.word().clone()
    }

    /// Asks a vCPU to do something. It begins when the guest gets to it, at the latest when the machine runs.
    pub fn start_job(&self, vcpu: u32, job: Job) -> Result<RunningJob, JobError> {
        let running = RunningJob::ask(self.desk(vcpu)?, job)?;
        self.tell(vcpu).map_err(|error| JobError::Kick { vcpu, code: error.raw_os_error().unwrap_or_default() })?;
        Ok(running)
    }

    /// Asks a vCPU to do something, and waits until it is done.
    pub fn job(&self, vcpu: u32, job: Job, timeout: Duration) -> Result<JobAnswer, JobError> {
        self.start_job(vcpu, job)?.wait(timeout)
    }

    /// The job that a vCPU was loaded with and goes on with, if it is one like `job`.
    pub fn adopt_job(&self, vcpu: u32, job: Job) -> Option<RunningJob> {
        RunningJob::adopt(self.desk(vcpu).ok()?, job)
    }

    /// RAM that the guest does not use for itself.
    pub fn free_ram(&self) -> HpaRange {
        self.layout.free()
    }

    /// How many processors there are.
    pub fn vcpus(&self) -> u32 {
        self.vcpus.len() as u32
    }

    /// The host's ids of the processors' threads, for who gives them cores of their own.
    pub fn thread_ids(&self) -> Vec<u32> {
        self.vcpus.iter().map(Vcpu::thread_id).collect()
    }

    /// Ticks of the guest's time stamp counter in a millisecond.
    pub fn tsc_khz(&self) -> u64 {
        self.tsc_khz
    }

    /// How often each vCPU came back.
    pub fn exit_counts(&self) -> Vec<ExitCounts> {
        self.vcpus.iter().map(Vcpu::counts).collect()
    }

    /// Makes a vCPU come back and look, and waits until it has.
    pub fn kick(&self, vcpu: u32) {
        if let Some(vcpu) = self.vcpus.get(vcpu as usize) {
            vcpu.wait_kicked(vcpu.kick());
        }
    }

    fn desk(&self, vcpu: u32) -> Result<&Arc<JobDesk>, JobError> {
        self.shared.desks.get(vcpu as usize).ok_or(JobError::NoVcpu { vcpu, vcpus: self.vcpus() })
    }

    /// An interrupt that makes the guest look at its pages.
    fn tell(&self, vcpu: u32) -> io::Result<()> {
        let address = MESSAGE_BASE | u64::from(vcpu) << MESSAGE_VCPU_SHIFT;
        self.vm.signal(Message { address, data: VECTOR_KICK })
    }

    fn set_boot_word(&self, offset: usize, value: u64) {
        self.shared.pages.set_word(BOOT_PAGE + offset as u64, value);
    }

    fn raise_boot_word(&self, offset: usize) {
        let value = self.shared.pages.word(BOOT_PAGE + offset as u64);
        self.set_boot_word(offset, value.wrapping_add(1));
    }

    /// Whether the guest of a state can go on here. Its time stamp counter may be another: the guest is told.
    fn check_fits(&self, state: &MachineState) -> Result<(), LoadError> {
        let MachineState { guest_abi, virtualization, tsc_khz: _, clock_ns: _, free_ram, vcpus } = state;
        if *guest_abi != guest::ABI {
            return Err(LoadError::GuestAbi { saved: *guest_abi, known: guest::ABI });
        }
        let here = self.vm.facts().virtualization;
        let are_known = ![*virtualization, here].contains(&Virtualization::Unknown);
        if are_known && *virtualization != here {
            return Err(LoadError::Virtualization { saved: *virtualization, here });
        }
        if vcpus.len() != self.vcpus.len() {
            return Err(LoadError::Vcpus { saved: vcpus.len(), vcpus: self.vcpus.len() });
        }
        if *free_ram != self.layout.free() {
            return Err(LoadError::Layout { saved: *free_ram, here: self.layout.free() });
        }
        let mut missing = (0..).zip(vcpus).filter_map(|(vcpu, state)| {
            Some(LoadError::Features { vcpu, missing: vcpu::missing_features(&state.cpuid, &self.cpuid)? })
        });
        missing.next().map_or(Ok(()), Err)
    }

    fn check_still(&self) -> Result<(), MachineError> {
        for (number, vcpu) in (0..).zip(&self.vcpus) {
            match vcpu.life() {
                Life::Paused => {}
                Life::Running => return Err(MachineError::Running),
                Life::Ended => return Err(MachineError::Ended { vcpu: number }),
            }
        }
        Ok(())
    }

    fn steer(&self) -> std::sync::MutexGuard<'_, ()> {
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self) -> std::sync::MutexGuard<'_, Option<GuestWord>> {
        self.shared.word.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn refused(doing: &'static str, error: errno::Error) -> MachineError {
    MachineError::Kvm { doing, reason: error.to_string() }
}

impl Shared {
    fn read_status(&self) -> Option<GuestWord> {
        let page: StatusPage = self.pages.read(STATUS_PAGE);
        let text = || String::from_utf8_lossy(page.text.meant()).into_owned();
        match page.state {
            state if state == StatusState::Booting as u64 => Some(GuestWord::Booting),
            state if state == StatusState::Serving as u64 => Some(GuestWord::Serving { extents: page.extents }),
            state if state == StatusState::Failed as u64 => Some(GuestWord::Failed(text())),
            state if state == StatusState::Warning as u64 => Some(GuestWord::Warning(text())),
            _ => None,
        }
    }

    fn hear(&self) {
        let Some(word) = self.read_status() else { return };
        if !matches!(word, GuestWord::Warning(_)) {
            *self.word.lock().unwrap_or_else(PoisonError::into_inner) = Some(word.clone());
        }
        self.observer.guest_said(word);
    }

    /// The frame of a fault, which its stub has left on the ring 0 stack.
    fn fault(&self, registers: Registers) -> OwnPort {
        let frame: [u64; 7] = self.pages.read(registers.rsp);
        let [vector, error_code, rip, cs, rflags, rsp, ss] = frame;
        let then = Registers { rip, cs, rflags, rsp, ss, ..registers };
        OwnPort::Death(DeathReason::GuestFault { vector, error_code }, Box::new(then))
    }

    fn panic_text(&self, vcpu: u32) -> String {
        let page: VcpuPage = self.pages.read(vcpu_block(vcpu) + place::VCPU_PAGE);
        String::from_utf8_lossy(page.panic.meant()).into_owned()
    }

    fn ring(&self, vcpu: u32, has_ended: bool) {
        if let Some(desk) = self.desks.get(vcpu as usize) {
            desk.ring(has_ended);
        }
    }
}

impl VcpuEvents for Shared {
    fn exits(&self) -> &dyn Exits {
        &*self.exits
    }

    fn own_port(&self, vcpu: u32, port: u16, registers: &dyn Fn() -> Registers) -> OwnPort {
        match port {
            PORT_DONE => self.ring(vcpu, false),
            PORT_STATUS => self.hear(),
            PORT_FAULT => return self.fault(registers()),
            PORT_PANIC => {
                return OwnPort::Death(DeathReason::GuestPanic(self.panic_text(vcpu)), Box::new(registers()));
            }
            _ => return OwnPort::Foreign,
        }
        OwnPort::Taken
    }

    fn died(&self, death: VcpuDeath) {
        self.ring(death.vcpu, true);
        self.observer.vcpu_died(death);
    }
}
