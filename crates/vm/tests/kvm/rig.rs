//! A machine for a test: RAM in a file, so that a slot can show it, and exits that a test answers.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use driver::HpaRange;
use memory::{HostMemory, Hypervisor, SlotAccess, SlotLog, SlotRegion};
use vm::{Exits, GuestDriver, GuestPlatform, GuestWord, Machine, MachineRequest, Observer, VcpuDeath, Vm};
use vm_memory::{FileOffset, MmapRegion};
use wire::Hpa;

pub(crate) const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const RAM_LEN_BYTES: u64 = 64 * MIB;
/// Addresses that no slot answers.
pub(crate) const REGISTERS: Hpa = Hpa(0xc000_0000);
/// Where tests put slots.
pub(crate) const WINDOW: Hpa = Hpa(0x1_1000_0000);
pub(crate) const WINDOW_LEN_BYTES: u64 = 1 << 30;
/// The first slot that the rig does not use.
pub(crate) const SLOT: u32 = 1;

/// Whether there is KVM; says so where there is none. With DCD_REQUIRE_KVM=1 there must be.
pub(crate) fn has_kvm(test: &str) -> bool {
    match vm::probe() {
        Ok(_) => true,
        Err(reason) => {
            assert!(std::env::var_os("DCD_REQUIRE_KVM").is_none_or(|value| value != "1"), "{reason}");
            println!("{test} is skipped: {reason}");
            false
        }
    }
}

/// Ends a test where there is no KVM.
#[macro_export]
macro_rules! needs_kvm {
    () => {
        if !$crate::rig::has_kvm(module_path!()) {
            return;
        }
    };
}

/// Whether this process is a test's own, because it looks at what all of a process has; if not, such a one runs it.
pub(crate) fn is_alone(test: &str) -> bool {
    if std::env::var_os("DCD_TEST_ALONE").is_some() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
    let output = child.args(["--exact", test, "--nocapture"]).env("DCD_TEST_ALONE", "1").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// One access that came as an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Load { hpa: u64, len: usize },
    Store { hpa: u64, bytes: Vec<u8> },
    In { port: u16, len: usize },
    Out { port: u16, bytes: Vec<u8> },
}

/// Registers that keep what is stored, all ones where nothing was, and a list of all accesses.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    bytes: Mutex<HashMap<u64, u8>>,
    accesses: Mutex<Vec<Access>>,
    /// Stores to the first register, which are counted and not listed.
    pub(crate) storm: AtomicU64,
}

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Access> {
        std::mem::take(&mut self.accesses.lock().expect("no panic"))
    }

    fn list(&self, access: Access) {
        let mut accesses = self.accesses.lock().expect("no panic");
        if accesses.len() < 10_000 {
            accesses.push(access);
        }
    }
}

impl Exits for Recorder {
    fn mmio_read(&self, hpa: Hpa, to: &mut [u8]) {
        let bytes = self.bytes.lock().expect("no panic");
        (hpa.0..).zip(to.iter_mut()).for_each(|(at, to)| *to = bytes.get(&at).copied().unwrap_or(0xff));
        drop(bytes);
        self.list(Access::Load { hpa: hpa.0, len: to.len() });
    }

    fn mmio_write(&self, hpa: Hpa, from: &[u8]) {
        self.storm.fetch_add(1, Ordering::Relaxed);
        self.bytes.lock().expect("no panic").extend((hpa.0..).zip(from.iter().copied()));
        self.list(Access::Store { hpa: hpa.0, bytes: from.to_vec() });
    }

    fn port_read(&self, port: u16, to: &mut [u8]) {
        to.iter_mut().zip(port.to_le_bytes().into_iter().cycle()).for_each(|(to, byte)| *to = byte);
        self.list(Access::In { port, len: to.len() });
    }

    fn port_write(&self, port: u16, from: &[u8]) {
        self.list(Access::Out { port, bytes: from.to_vec() });
    }
}

/// What was heard of the guest.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    words: Mutex<Vec<GuestWord>>,
    deaths: Mutex<Vec<VcpuDeath>>,
    changed: Condvar,
}

impl Heard {
    /// Waits for a word.
    pub(crate) fn wait_word(&self, is_it: impl Fn(&GuestWord) -> bool) -> GuestWord {
        let words = self.words.lock().expect("no panic");
        let waited = self.changed.wait_timeout_while(words, LIMIT, |words| !words.iter().any(&is_it));
        let (words, _) = waited.expect("no panic");
        words.iter().find(|word| is_it(word)).cloned().unwrap_or_else(|| panic!("not said, but {words:?}"))
    }

    pub(crate) fn words(&self) -> Vec<GuestWord> {
        self.words.lock().expect("no panic").clone()
    }

    /// Waits for a death.
    pub(crate) fn wait_death(&self) -> VcpuDeath {
        let deaths = self.deaths.lock().expect("no panic");
        let waited = self.changed.wait_timeout_while(deaths, LIMIT, |deaths| deaths.is_empty());
        waited.expect("no panic").0.pop().expect("a death")
    }

    pub(crate) fn deaths(&self) -> Vec<VcpuDeath> {
        self.deaths.lock().expect("no panic").clone()
    }
}

impl Observer for Heard {
    fn guest_said(&self, word: GuestWord) {
        self.words.lock().expect("no panic").push(word);
        self.changed.notify_all();
    }

    fn vcpu_died(&self, death: VcpuDeath) {
        self.deaths.lock().expect("no panic").push(death);
        self.changed.notify_all();
    }
}

/// Host memory that a slot can show: a file that is mapped twice.
pub(crate) struct Shown {
    pub(crate) memory: Arc<HostMemory>,
    mapping: Arc<MmapRegion>,
    file: tempfile::NamedTempFile,
}

impl Shown {
    pub(crate) fn new(len_bytes: u64) -> Self {
        let folder = std::path::Path::new("/dev/shm");
        let file = tempfile::NamedTempFile::new_in(folder).expect("a file");
        file.as_file().set_len(len_bytes).expect("its length");
        let dir = memory::BackendDir::open(folder).expect("the folder");
        let name = file.path().file_name().expect("a name").to_string_lossy().into_owned();
        let memory = Arc::new(host_memory(&dir, &name, len_bytes));
        Self { memory, mapping: Arc::new(map(file.as_file(), len_bytes)), file }
    }

    /// The same bytes in memory of their own; what was never written stays so on both sides.
    pub(crate) fn copied(&self) -> Arc<Self> {
        let copy = Self::new(self.memory.len_bytes());
        let (mut part, zeros) = (vec![0; MIB as usize], vec![0; MIB as usize]);
        for at in (0..self.memory.len_bytes()).step_by(MIB as usize) {
            self.file.as_file().read_exact_at(&mut part, at).expect("the bytes");
            if part != zeros {
                copy.memory.write(at, &part).expect("memory");
            }
        }
        Arc::new(copy)
    }

    /// The bytes from `offset_bytes` on, to be shown at `hpa`.
    pub(crate) fn region(&self, hpa: Hpa, offset_bytes: u64, len_bytes: u64, access: SlotAccess) -> SlotRegion {
        assert!(offset_bytes + len_bytes <= self.mapping.size() as u64);
        SlotRegion { hpa, len_bytes, host_address: self.mapping.as_ptr() as usize + offset_bytes as usize, access }
    }
}

fn map(file: &File, len_bytes: u64) -> MmapRegion {
    let file = FileOffset::new(file.try_clone().expect("a handle"), 0);
    MmapRegion::from_file(file, len_bytes as usize).expect("a mapping")
}

fn host_memory(dir: &memory::BackendDir, name: &str, len_bytes: u64) -> HostMemory {
    use device::backends::{BackendKind, Discard, FileAccess, Population, Reservation, Sharing};
    let kind = BackendKind::File {
        path: name.into(),
        access: FileAccess::ReadWrite,
        discard: Discard::Keep,
        align_bytes: None,
    };
    let spec = memory::HostMemorySpec {
        kind,
        size_bytes: len_bytes,
        sharing: Sharing::Shared,
        population: Population::OnDemand,
        reservation: Reservation::Reserved,
    };
    let surroundings =
        memory::Surroundings { backend_dir: Some(dir), missing: memory::MissingFile::Refuse, progress: &|_, _| () };
    HostMemory::create(&spec, surroundings).expect("memory")
}

/// A machine and all around it.
pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) vm: Arc<Vm>,
    pub(crate) ram: Arc<Shown>,
    pub(crate) exits: Arc<Recorder>,
    pub(crate) heard: Arc<Heard>,
}

impl Rig {
    /// A machine that runs, without a driver.
    pub(crate) fn running(vcpus: u32) -> Self {
        let rig = Self::new(vcpus, Arc::new(Shown::new(RAM_LEN_BYTES)), None);
        rig.machine.boot(1_700_000_000_000).expect("a boot");
        rig.machine.run();
        rig
    }

    /// A machine that stands still.
    pub(crate) fn new(vcpus: u32, ram: Arc<Shown>, driver: Option<GuestDriver>) -> Self {
        let exits = Arc::new(Recorder::default());
        Self::with_exits(vcpus, ram, driver, Arc::clone(&exits) as _, exits)
    }

    /// A machine that stands still, with exits of its own.
    pub(crate) fn with_exits(
        vcpus: u32,
        ram: Arc<Shown>,
        driver: Option<GuestDriver>,
        answers: Arc<dyn Exits>,
        exits: Arc<Recorder>,
    ) -> Self {
        let platform = GuestPlatform {
            root_buses: vec![0x0c],
            mmio: HpaRange { base: REGISTERS, size_bytes: 0x2000_0000 },
            window: HpaRange { base: WINDOW, size_bytes: WINDOW_LEN_BYTES },
            ecam_base: Some(Hpa(0xb000_0000)),
        };
        Self::assemble(vcpus, platform, driver, ram, answers, exits)
    }

    /// A machine that stands still, with everything of its own.
    pub(crate) fn assemble(
        vcpus: u32,
        platform: GuestPlatform,
        driver: Option<GuestDriver>,
        ram: Arc<Shown>,
        answers: Arc<dyn Exits>,
        exits: Arc<Recorder>,
    ) -> Self {
        let vm = Arc::new(Vm::create().expect("a VM"));
        let heard = Arc::new(Heard::default());
        let request = MachineRequest {
            ram: Arc::clone(&ram.memory),
            low_ram_len_bytes: RAM_LEN_BYTES,
            reach: vec![
                HpaRange { base: Hpa(0), size_bytes: 5 << 30 },
                HpaRange { base: WINDOW, size_bytes: WINDOW_LEN_BYTES },
            ],
            vcpus,
            platform,
            driver,
            exits: answers,
            observer: Arc::clone(&heard) as _,
        };
        show(&vm, 0, ram.region(Hpa(0), 0, RAM_LEN_BYTES, SlotAccess::ReadWrite));
        let machine = Machine::new(Arc::clone(&vm), request).expect("a machine");
        Self { machine, vm, ram, exits, heard }
    }
}

/// Shows memory to the guest. The caller keeps it until the machine is gone.
pub(crate) fn show(vm: &Vm, slot: u32, region: SlotRegion) {
    // SAFETY: the tests keep what they show until the machine is gone.
    unsafe { vm.set_slot(slot, region, SlotLog::Off) }.expect("a slot");
}
