//! What KVM says of the pages that a guest writes, and memory whose bytes are in files until the guest touches them.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use memory::{
    FileRun, HostMemory, HostMemorySpec, Hypervisor, MissingFile, Pulled, SlotAccess, SlotLog, SlotRegion, SlotRequest,
    Slots, Surroundings,
};
use vm::{AccessWidth, Exits, Job, JobAnswer, SweepAccess, Vm, pattern_byte};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{LIMIT, MIB, RAM_LEN_BYTES, Rig, SLOT, Shown, WINDOW};

const PAGE: u64 = 4096;

/// The slots that the rig leaves.
struct Rest(Arc<Vm>);

impl Hypervisor for Rest {
    fn slot_limit(&self) -> u32 {
        self.0.slot_limit() - SLOT
    }

    unsafe fn set_slot(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()> {
        // SAFETY: what the caller promises is what is asked.
        unsafe { self.0.set_slot(number + SLOT, region, log) }
    }

    unsafe fn set_log(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()> {
        // SAFETY: as above.
        unsafe { self.0.set_log(number + SLOT, region, log) }
    }

    unsafe fn dirty_log(&self, number: u32, len_bytes: u64) -> io::Result<Vec<u64>> {
        // SAFETY: as above.
        unsafe { self.0.dirty_log(number + SLOT, len_bytes) }
    }

    fn clear_slot(&self, number: u32) -> io::Result<()> {
        self.0.clear_slot(number + SLOT)
    }
}

/// Exits of the window that are answered from what a slot shows there.
struct Behind(Arc<HostMemory>);

impl Exits for Behind {
    fn mmio_read(&self, hpa: Hpa, to: &mut [u8]) {
        self.0.read(hpa.0 - WINDOW.0, to).expect("memory");
    }

    fn mmio_write(&self, hpa: Hpa, from: &[u8]) {
        self.0.write(hpa.0 - WINDOW.0, from).expect("memory");
    }

    fn port_read(&self, _: u16, _: &mut [u8]) {}

    fn port_write(&self, _: u16, _: &[u8]) {}
}

/// A running machine with slots for the window, none of them filled.
fn running(vcpus: u32, behind: &Arc<HostMemory>) -> (Slots, Rig) {
    let (ram, answers) = (Arc::new(Shown::new(RAM_LEN_BYTES)), Arc::new(Behind(Arc::clone(behind))));
    let rig = Rig::with_exits(vcpus, ram, None, answers, Arc::default());
    rig.machine.boot(0).expect("a boot");
    rig.machine.run();
    (Slots::new(Arc::new(Rest(Arc::clone(&rig.vm)))), rig)
}

/// The whole memory at the window's begin.
fn fill(slots: &Slots, memory: &Arc<HostMemory>) {
    let (memory, len_bytes) = (Arc::clone(memory), memory.len_bytes());
    let request = SlotRequest { hpa: WINDOW, len_bytes, memory, offset_bytes: 0, access: SlotAccess::ReadWrite };
    slots.fill(request).expect("a slot");
}

fn zeros(len_bytes: u64) -> Arc<HostMemory> {
    Arc::new(HostMemory::anonymous(len_bytes).expect("memory"))
}

fn store(rig: &Rig, offset: u64) {
    let (hpa, width) = (Hpa(WINDOW.0 + offset), AccessWidth::Qword);
    assert_eq!(rig.machine.job(0, Job::Write { hpa, width, value: offset }, LIMIT), Ok(JobAnswer::Done));
}

fn load(rig: &Rig, offset: u64) -> u64 {
    let (hpa, width) = (Hpa(WINDOW.0 + offset), AccessWidth::Qword);
    match rig.machine.job(0, Job::Read { hpa, width }, LIMIT) {
        Ok(JobAnswer::Value(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn dirty(slots: &Slots, memory: &HostMemory) -> Vec<Range<u64>> {
    slots.collect_dirty().expect("the logs");
    memory.take_dirty()
}

/// From one page up to another.
fn pages(of: &[(u64, u64)]) -> Vec<Range<u64>> {
    of.iter().map(|(start, end)| start * PAGE..end * PAGE).collect()
}

#[test]
fn the_log_has_the_pages_that_the_guest_stored_to_and_no_others() {
    needs_kvm!();
    let memory = zeros(8 * MIB);
    let (slots, rig) = running(1, &memory);
    let (len_bytes, offset_bytes) = (7 * MIB, 3 * PAGE);
    let access = SlotAccess::ReadWrite;
    let request = SlotRequest { hpa: WINDOW, len_bytes, memory: Arc::clone(&memory), offset_bytes, access };
    slots.fill(request).expect("a slot");
    store(&rig, 50 * PAGE);
    slots.track().expect("logs");
    assert_eq!(dirty(&slots, &memory), pages(&[(0, 2048)]), "nothing is known of what was before");
    for round in 0..20 {
        [0, 5, 6, 63, 64, 700 + round].into_iter().for_each(|page| store(&rig, page * PAGE + 8 * round));
        assert_eq!(load(&rig, 9 * PAGE), 0);
        let expected = pages(&[(3, 4), (8, 10), (66, 68), (703 + round, 704 + round)]);
        assert_eq!(dirty(&slots, &memory), expected, "in round {round}");
        assert_eq!(dirty(&slots, &memory), []);
    }
    let all = Job::Fill { hpa: Hpa(WINDOW.0 + MIB), len_bytes: 2 * MIB, seed: 3 };
    assert_eq!(rig.machine.job(0, all, LIMIT), Ok(JobAnswer::Done));
    assert_eq!(dirty(&slots, &memory), pages(&[(3 + 256, 3 + 768)]));
    slots.untrack().expect("no logs");
    memory.take_dirty();
    store(&rig, 0);
    slots.track().expect("logs");
    assert_eq!(dirty(&slots, &memory), pages(&[(3, 3 + 7 * 256)]), "what was stored while there was no log");
    store(&rig, 0);
    assert_eq!(dirty(&slots, &memory), pages(&[(3, 4)]));
}

#[test]
fn a_slot_that_goes_is_known_exactly_while_the_machine_is_paused() {
    needs_kvm!();
    let memory = zeros(4 * MIB);
    let (slots, rig) = running(2, &memory);
    slots.track().expect("logs");
    fill(&slots, &memory);
    memory.take_dirty();
    store(&rig, 17 * PAGE);
    rig.machine.pause();
    slots.still(|| slots.clear(WINDOW)).expect("it goes");
    rig.machine.run();
    assert_eq!(memory.take_dirty(), pages(&[(17, 18)]));
    fill(&slots, &memory);
    store(&rig, 17 * PAGE);
    slots.clear(WINDOW).expect("it goes");
    assert_eq!(memory.take_dirty(), pages(&[(0, 1024)]));
}

fn copy(ranges: Vec<Range<u64>>, memory: &HostMemory, to: &mut [u8]) {
    for range in ranges {
        memory.read(range.start, &mut to[range.start as usize..range.end as usize]).expect("memory");
    }
}

fn bytes(memory: &HostMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len_bytes() as usize];
    memory.read(0, &mut bytes).expect("memory");
    bytes
}

/// Two vCPUs store all the while, and slots are replaced under them: copies of what is dirty become a copy of all.
#[test]
fn no_store_of_a_guest_is_lost_while_slots_come_and_go() {
    needs_kvm!();
    let memory = zeros(4 * MIB);
    let (slots, rig) = running(2, &memory);
    fill(&slots, &memory);
    slots.track().expect("logs");
    let count = rig.machine.start_job(0, Job::Count { hpa: Hpa(WINDOW.0 + 64), first: 1 }).expect("a job");
    let mut shadow = vec![0; memory.len_bytes() as usize];
    for round in 0..60 {
        let (hpa, len_bytes) = (Hpa(WINDOW.0 + MIB), 2 * MIB);
        let seed = Job::Fill { hpa, len_bytes, seed: round };
        let filling = rig.machine.start_job(1, seed).expect("a job");
        for _ in 0..5 {
            copy(dirty(&slots, &memory), &memory, &mut shadow);
        }
        slots.clear(WINDOW).expect("it goes");
        fill(&slots, &memory);
        copy(dirty(&slots, &memory), &memory, &mut shadow);
        assert_eq!(filling.wait(LIMIT), Ok(JobAnswer::Done));
    }
    count.stop();
    let JobAnswer::Counted(counted) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    copy(dirty(&slots, &memory), &memory, &mut shadow);
    assert_eq!(counted.differ, 0);
    assert_eq!(shadow[64..72], counted.last.to_le_bytes());
    assert!(shadow == bytes(&memory), "a store was lost");
}

/// The guest's RAM has what nobody asked it to store: its stacks, what its processor pushes there, marks in page tables.
#[test]
fn a_copy_of_what_the_log_says_of_ram_is_ram() {
    needs_kvm!();
    let ram = Arc::new(Shown::new(RAM_LEN_BYTES));
    let region = ram.region(Hpa(0), 0, RAM_LEN_BYTES, SlotAccess::ReadWrite);
    let rig = Rig::new(2, Arc::clone(&ram), None);
    // SAFETY: the rig has filled slot 0 with this region.
    unsafe { rig.vm.set_log(0, region, SlotLog::On) }.expect("a log");
    ram.memory.track();
    rig.machine.boot(0).expect("a boot");
    rig.machine.run();
    let mut shadow = vec![0; RAM_LEN_BYTES as usize];
    let mut collect = || {
        // SAFETY: as above.
        let log = unsafe { rig.vm.dirty_log(0, RAM_LEN_BYTES) }.expect("the log");
        let is_set = |page: u64| log[(page / 64) as usize] >> (page % 64) & 1 == 1;
        let set = (0..RAM_LEN_BYTES / PAGE).filter(|page| is_set(*page));
        set.for_each(|page| ram.memory.mark_dirty(page * PAGE, PAGE));
        copy(ram.memory.take_dirty(), &ram.memory, &mut shadow);
    };
    let free = rig.machine.free_ram();
    let sweep = |rounds, access| Job::Sweep { hpa: free.base, len_bytes: 4 * MIB, stride_bytes: 512, rounds, access };
    let count = rig.machine.start_job(1, Job::Count { hpa: Hpa(free.base.0 + 8 * MIB), first: 1 }).expect("a job");
    for round in 0..20 {
        collect();
        rig.machine.job(0, sweep(1 + round % 3, SweepAccess::Write), LIMIT).expect("an answer");
        rig.machine.kick(1);
    }
    count.stop();
    count.wait(LIMIT).expect("an answer");
    rig.machine.pause();
    collect();
    assert!(shadow == bytes(&ram.memory), "a store was lost");
}

/// A file with a pattern whose pages lie in it in the opposite order, and the runs that put them right: a mapping each.
fn reversed(len_bytes: u64, seed: u64) -> (Arc<File>, Vec<FileRun>) {
    let file = tempfile::tempfile().expect("a file");
    let pages = len_bytes / PAGE;
    for page in 0..pages {
        let bytes: Vec<_> = (page * PAGE..(page + 1) * PAGE).map(|offset| pattern_byte(seed, offset)).collect();
        file.write_all_at(&bytes, (pages - 1 - page) * PAGE).expect("its bytes");
    }
    let file = Arc::new(file);
    let run = |page| FileRun {
        offset_bytes: page * PAGE,
        len_bytes: PAGE,
        file: Arc::clone(&file),
        file_offset_bytes: (pages - 1 - page) * PAGE,
    };
    let runs = (0..pages).map(run).collect();
    (file, runs)
}

fn over(size_bytes: u64, runs: &[FileRun]) -> Arc<HostMemory> {
    let spec = HostMemorySpec::anonymous(size_bytes);
    let surroundings = Surroundings { backend_dir: None, missing: MissingFile::Refuse, progress: &|_, _| () };
    Arc::new(HostMemory::over(&spec, surroundings, runs).expect("memory"))
}

fn file_bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("its length").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("its bytes");
    bytes
}

#[test]
fn a_guest_finds_the_bytes_of_files_in_one_slot_and_never_changes_them() {
    needs_kvm!();
    let (len_bytes, seed) = (2 * MIB, 9);
    let (file, runs) = reversed(len_bytes, seed);
    let before = file_bytes(&file);
    // As much again of zeros.
    let memory = over(2 * len_bytes, &runs);
    let (slots, rig) = running(1, &memory);
    fill(&slots, &memory);
    slots.track().expect("logs");
    dirty(&slots, &memory);
    let check = |offset, seed| Job::Check { hpa: Hpa(WINDOW.0 + offset), len_bytes, seed };
    assert_eq!(rig.machine.job(0, check(0, seed), LIMIT), Ok(JobAnswer::FirstWrong(None)));
    assert_eq!(load(&rig, len_bytes), 0);
    assert_eq!(dirty(&slots, &memory), [], "a load changes nothing");
    // A store into a page that the guest has loaded from, and one into a page that nobody has touched.
    store(&rig, PAGE);
    store(&rig, len_bytes + PAGE);
    assert_eq!(memory.read_u64(PAGE), Ok(PAGE));
    assert_eq!(dirty(&slots, &memory), pages(&[(1, 2), (513, 514)]));
    let all = Job::Fill { hpa: WINDOW, len_bytes, seed: seed + 1 };
    assert_eq!(rig.machine.job(0, all, LIMIT), Ok(JobAnswer::Done));
    assert_eq!(rig.machine.job(0, check(0, seed + 1), LIMIT), Ok(JobAnswer::FirstWrong(None)));
    assert!((0..).zip(&bytes(&memory)[..len_bytes as usize]).all(|(at, byte)| *byte == pattern_byte(seed + 1, at)));
    assert!(file_bytes(&file) == before);
}

/// What the guest stores while another thread pulls is not what was in the file.
#[test]
fn a_pull_under_a_running_guest_changes_no_byte() {
    needs_kvm!();
    let (len_bytes, seed) = (8 * MIB, 4);
    let (file, runs) = reversed(len_bytes, seed);
    let memory = over(len_bytes, &runs);
    let (slots, rig) = running(2, &memory);
    fill(&slots, &memory);
    let count = rig.machine.start_job(1, Job::Count { hpa: Hpa(WINDOW.0 + 4 * MIB), first: 1 }).expect("a job");
    thread::scope(|scope| {
        let pulled = scope.spawn(|| memory.pull(|_, _| ControlFlow::Continue(())));
        let check = Job::Check { hpa: WINDOW, len_bytes: 4 * MIB, seed };
        assert_eq!(rig.machine.job(0, check, LIMIT), Ok(JobAnswer::FirstWrong(None)));
        assert_eq!(pulled.join().expect("no panic").expect("all of it"), Pulled::All);
    });
    count.stop();
    let JobAnswer::Counted(counted) = count.wait(LIMIT).expect("an answer") else { panic!("another answer") };
    assert_eq!((counted.differ, load(&rig, 4 * MIB)), (0, counted.last));
    // Nothing of it is the file's any more.
    file.write_all_at(&vec![0; len_bytes as usize], 0).expect("other bytes");
    let rest = Job::Check { hpa: WINDOW, len_bytes, seed };
    assert_eq!(rig.machine.job(0, rest, LIMIT), Ok(JobAnswer::FirstWrong(Some(4 * MIB))));
    memory.write(4 * MIB, &(0..8).map(|at| pattern_byte(seed, 4 * MIB + at)).collect::<Vec<_>>()).expect("memory");
    let rest = Job::Check { hpa: WINDOW, len_bytes, seed };
    assert_eq!(rig.machine.job(0, rest, LIMIT), Ok(JobAnswer::FirstWrong(None)));
}
