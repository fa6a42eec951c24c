//! Model specific registers, many at a time: an ioctl for each would be most of what a save costs.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// How many go with one ioctl; KVM takes less than 256.
const AT_A_TIME: usize = 128;
/// Set with the special registers.
const APIC_BASE: u32 = 0x1b;
const EFER: u32 = 0xc000_0080;
/// They come last: the counter, so that it has not run far, and the deadline of the timer, which is a value of it.
const TIME_STAMP_COUNTER: u32 = 0x10;
const TSC_DEADLINE: u32 = 0x6e0;

/// The registers of a vCPU that are worth to be kept, of those that the host lists.
pub(crate) fn readable(fd: &VcpuFd, listed: &[u32]) -> Vec<u32> {
    let is_separate = |index: &u32| *index == APIC_BASE || *index == EFER;
    let kept: Vec<_> = listed.iter().copied().filter(|index| !is_separate(index)).collect();
    read(fd, &kept).into_iter().map(|msr| msr.index).collect()
}

/// Those of `indices` that the vCPU has and lets read, in their order.
pub(super) fn read(fd: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let mut entries = Vec::with_capacity(indices.len());
    let mut left = indices;
    while !left.is_empty() {
        let entry = |index: &u32| kvm_msr_entry { index: *index, ..Default::default() };
        let asked: Vec<_> = left.iter().take(AT_A_TIME).map(entry).collect();
        let read = Msrs::from_entries(&asked).ok().and_then(|mut msrs| {
            let read = fd.get_msrs(&mut msrs).ok()?;
            Some((msrs, read))
        });
        let count = read.map_or(0, |(msrs, read)| {
            entries.extend(msrs.as_slice().iter().take(read));
            read
        });
        // The one at which KVM stopped is passed over.
        let passed = if count < asked.len() { count + 1 } else { count };
        left = &left[passed..];
    }
    entries
}

/// Sets what differs. One that the host does not have, and that the guest left at zero, is passed over.
///
/// # Errors
///
/// The first one that KVM refuses.
pub(super) fn write(fd: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), kvm_msr_entry> {
    let indices: Vec<_> = msrs.iter().map(|msr| msr.index).collect();
    let here = read(fd, &indices);
    let differs = |msr: &&kvm_msr_entry| {
        let value = here.iter().find(|here| here.index == msr.index).map_or(0, |here| here.data);
        // A deadline of the same number is another one when the counter is.
        value != msr.data || msr.index == TIME_STAMP_COUNTER || msr.index == TSC_DEADLINE && msr.data != 0
    };
    let mut in_order: Vec<kvm_msr_entry> = msrs.iter().filter(differs).copied().collect();
    in_order.sort_by_key(|msr| match msr.index {
        TIME_STAMP_COUNTER => 1,
        TSC_DEADLINE => 2,
        _ => 0,
    });
    in_order.chunks(AT_A_TIME).try_for_each(|part| {
        let set = Msrs::from_entries(part).ok().and_then(|msrs| fd.set_msrs(&msrs).ok()).unwrap_or(0);
        part.get(set).map_or(Ok(()), |refused| Err(*refused))
    })
}
