//! Why an operator's request is refused: plain sentences that name what stands in the way, with its record.
//!
//! What a host does wrong is answered with a return code of the standard instead ([`wire::ReturnCode`]).

use serde::Serialize;
use thiserror::Error;
use wire::Tag;

use crate::range::DpaRange;
use crate::stamp::Seq;

/// A refused request. The texts that QEMU has too begin with QEMU's words, because programs match them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Error)]
pub enum Refusal {
    /// `host-id` of a head that does not exist.
    #[error("host-id {host_id} does not exist: the device has one head, host-id 0")]
    Host {
        /// What was asked.
        host_id: u16,
    },
    /// Region index out of range.
    #[error("region id is too large: {region}, the device has {count} (0 to {})", count - 1)]
    Region {
        /// What was asked.
        region: u8,
        /// Regions of the device.
        count: u8,
    },
    /// A selection policy that is not built.
    #[error("Selection policy not supported: only 'prescriptive' is")]
    SelectionPolicy,
    /// `sanitize-on-release` before the device can clear.
    #[error(
        "sanitize-on-release is not supported: the device does not clear memory yet, and saying so would be a lie; release without it and clear the backend yourself"
    )]
    Sanitize,
    /// No extents.
    #[error("empty extent list: name at least one extent {{offset, len}}")]
    NoExtents,
    /// An extent of no length.
    #[error("extent with 0 length is not allowed (extent {index}, offset {offset:#x})")]
    ZeroLength {
        /// Which of the list.
        index: u32,
        /// Its offset in bytes.
        offset: u64,
    },
    /// Not aligned to the block size.
    #[error(
        "dpa or len is not aligned to region block size: extent {index} has offset {offset:#x} and len {len_bytes:#x}, the block size is {block_bytes:#x}"
    )]
    Alignment {
        /// Which of the list.
        index: u32,
        /// Its offset in bytes.
        offset: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// The region's block size in bytes.
        block_bytes: u64,
    },
    /// Past the end of the region.
    #[error(
        "extent range is beyond the region end: extent {index} has offset {offset:#x} and len {len_bytes:#x}, region {region} has {region_bytes:#x} bytes"
    )]
    BeyondRegion {
        /// Which of the list.
        index: u32,
        /// Its offset in bytes.
        offset: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// The region.
        region: u8,
        /// The region's length in bytes.
        region_bytes: u64,
    },
    /// Two extents of one request overlap.
    #[error("duplicate or overlapped extents are detected: DPA {first} and {second}")]
    Overlap {
        /// One.
        first: DpaRange,
        /// The other.
        second: DpaRange,
    },
    /// The range is accepted already.
    #[error("cannot add DPA already accessible to the same LD: {asked} overlaps the accepted extent {accepted}, {by}")]
    AlreadyAccepted {
        /// What was asked.
        asked: DpaRange,
        /// What the host holds.
        accepted: DpaRange,
        /// The record that accepted it.
        by: Seq,
    },
    /// The range is offered already.
    #[error("cannot add DPA again while still pending: {asked} overlaps the offered extent {offered}, {by}")]
    AlreadyOffered {
        /// What was asked.
        asked: DpaRange,
        /// What is offered.
        offered: DpaRange,
        /// The record that offered it.
        by: Seq,
    },
    /// No room in the DC event log for the whole chain.
    #[error(
        "{records} event records do not fit: the DC event log has room for {room} of {capacity} until the host reads and clears it; ask again then"
    )]
    EventLogFull {
        /// Records of the chain.
        records: u32,
        /// Free places.
        room: u32,
        /// Places at all.
        capacity: u32,
    },
    /// The device tracks no more extents.
    #[error("{asked} more extents do not fit: the device tracks {capacity} extents and has {available} left")]
    ExtentTracking {
        /// What was asked.
        asked: u32,
        /// What is left.
        available: u32,
        /// The limit.
        capacity: u32,
    },
    /// The device tracks no more tags.
    #[error("another tag does not fit: the device tracks {capacity} tags and all are in use")]
    TagTracking {
        /// The limit.
        capacity: u32,
    },
    /// A device without memory needs a tag to find a backend.
    #[error(
        "a tag is needed: the device has no memory of its own (dc-regions-total-size), the tag names the backend; create one with object-add and add by its tag"
    )]
    TagNeeded,
    /// A tag-based request without a tag.
    #[error("removal-policy 'tag-based' needs a tag that is not nil")]
    ReleaseTagNeeded,
    /// No backend has the tag.
    #[error("no backend has the tag {tag}: create one with object-add (tag={tag}) first")]
    NoBackend {
        /// What was asked.
        tag: Tag,
    },
    /// The backend is in use.
    #[error("tag {tag} is held by {device}, {by}: backend {backend} is {holding}; release it first")]
    TagHeld {
        /// What was asked.
        tag: Tag,
        /// Its backend.
        backend: String,
        /// The device that holds it.
        device: String,
        /// How it holds it: `reserved` or `attached`.
        holding: String,
        /// The record since when.
        by: Seq,
    },
    /// The extents are not as long as the backend.
    #[error(
        "Host memory backend size {backend_bytes:#x} does not match extent length {len_bytes:#x}: the extents of one add are together as long as backend {backend}"
    )]
    BackendSize {
        /// The backend.
        backend: String,
        /// Its size in bytes.
        backend_bytes: u64,
        /// Length of all extents in bytes.
        len_bytes: u64,
    },
    /// The tag is not known.
    #[error("tag {tag} is not known: it was never offered, or it ended so long ago that it is forgotten")]
    TagUnknown {
        /// What was asked.
        tag: Tag,
    },
    /// The tag is in another region.
    #[error("tag {tag} is in region {actual}, not in region {region}, {by}")]
    TagInOtherRegion {
        /// What was asked.
        tag: Tag,
        /// The region of the request.
        region: u8,
        /// The region of the tag.
        actual: u8,
        /// The record that put it there.
        by: Seq,
    },
    /// The host refused the tag.
    #[error("tag {tag} was rejected by the host, {by}: there is nothing to release")]
    TagRejected {
        /// What was asked.
        tag: Tag,
        /// The record.
        by: Seq,
    },
    /// The offer is dead.
    #[error("the offer of tag {tag} is dead, {by}: there is nothing to release")]
    TagDead {
        /// What was asked.
        tag: Tag,
        /// The record.
        by: Seq,
    },
    /// Offered capacity is released only by force.
    #[error(
        "cannot release extent with pending DPA range: {range} is offered and not answered, {by}; use forced-removal to withdraw the offer"
    )]
    StillOffered {
        /// What is offered.
        range: DpaRange,
        /// The record that offered it.
        by: Seq,
    },
    /// Nothing is accepted there.
    #[error("cannot release extent with non-existing DPA range: {range} is not accepted as a whole")]
    NotAccepted {
        /// What was asked.
        range: DpaRange,
    },
    /// The range has another tag.
    #[error("{range} has the tag {actual}, not {tag}, {by}")]
    OtherTag {
        /// What was asked.
        tag: Tag,
        /// The accepted extent.
        range: DpaRange,
        /// Its tag.
        actual: Tag,
        /// The record that accepted it.
        by: Seq,
    },
    /// A backend of that id exists.
    #[error("attempt to add duplicate property '{id}' to object (type 'container'): backend {id} exists, {by}")]
    DuplicateBackend {
        /// The id.
        id: String,
        /// The record that made it.
        by: Seq,
    },
    /// Another backend has the tag.
    #[error("tag {tag} names backend {backend} already, {by}: a tag names one backend of the VM")]
    DuplicateTag {
        /// The tag.
        tag: Tag,
        /// The backend that has it.
        backend: String,
        /// The record that made it.
        by: Seq,
    },
    /// No backend of that id.
    #[error("object '{id}' not found")]
    NoSuchBackend {
        /// The id.
        id: String,
    },
    /// The tag cannot be changed.
    #[error("the tag {tag} of backend {id} is in use: {device} holds the backend ({holding}), {by}; release it first")]
    TagInUse {
        /// The backend.
        id: String,
        /// Its tag.
        tag: Tag,
        /// The device that holds it.
        device: String,
        /// How it holds it.
        holding: String,
        /// The record since when.
        by: Seq,
    },
    /// Another device has the id.
    #[error("Duplicate device ID '{id}': it was plugged by {by}")]
    DuplicateDevice {
        /// The id.
        id: String,
        /// The record that plugged the other one.
        by: Seq,
    },
    /// There is no such root port.
    #[error("device {id}: there is no root port {port}: the VM has {count}")]
    NoSuchPort {
        /// The device.
        id: String,
        /// The number that was asked for.
        port: u8,
        /// How many there are.
        count: u32,
    },
    /// Another device is in the root port.
    #[error("device {id}: root port {port} has device {device}, {by}: one device a port")]
    PortTaken {
        /// The device.
        id: String,
        /// The port.
        port: String,
        /// The device that is there.
        device: String,
        /// The record that plugged it.
        by: Seq,
    },
    /// A backend cannot become a device's own memory.
    #[error("device {id}: backend {backend} is in use: {device} holds it ({holding}), {by}")]
    MemdevInUse {
        /// The device.
        id: String,
        /// The backend.
        backend: String,
        /// The device that holds it.
        device: String,
        /// How it holds it.
        holding: String,
        /// The record since when.
        by: Seq,
    },
    /// The device cannot be unplugged.
    #[error(
        "device {id} is in use: {extents} accepted extents, {offers} offers without an answer, {decoders} committed decoders; release first, or force it"
    )]
    DeviceInUse {
        /// The device.
        id: String,
        /// Extents that the host holds.
        extents: u32,
        /// Offers that it has not answered.
        offers: u32,
        /// Decoders that it has committed.
        decoders: u32,
    },
    /// The label is in use on a device with unique tags.
    #[error("tag {tag} is in use, {by}, and the device has unique-tags=on: release it first, or give another tag")]
    TagLive {
        /// The tag.
        tag: Tag,
        /// The record that offered it.
        by: Seq,
    },
    /// The platform does not take the device.
    #[error("root port {port} does not take the device: {reason}")]
    Plug {
        /// The port's number.
        port: u8,
        /// What the platform said.
        reason: String,
    },
    /// The backend cannot be deleted.
    #[error("object '{id}' is in use, can not be deleted: {device} holds it ({holding}), {by}")]
    BackendInUse {
        /// The id.
        id: String,
        /// The device that holds it.
        device: String,
        /// How it holds it.
        holding: String,
        /// The record since when.
        by: Seq,
    },
    /// Too many backends.
    #[error("there are {count} backends: a VM has no more")]
    TooManyBackends {
        /// The limit.
        count: u32,
    },
    /// The host's memory could not be had.
    #[error("backend {id}: {reason}")]
    HostMemory {
        /// The backend.
        id: String,
        /// What the host said.
        reason: String,
    },
    /// A host resource for a mapping could not be had.
    #[error("cannot map {range}: {reason}")]
    Mapping {
        /// What was to be mapped.
        range: DpaRange,
        /// What stood in the way.
        reason: String,
    },
}

impl Refusal {
    /// The record that it names as what stands in the way, if it names one.
    pub fn by_mut(&mut self) -> Option<&mut Seq> {
        match self {
            Self::AlreadyAccepted { by, .. }
            | Self::AlreadyOffered { by, .. }
            | Self::TagHeld { by, .. }
            | Self::TagInOtherRegion { by, .. }
            | Self::TagRejected { by, .. }
            | Self::TagDead { by, .. }
            | Self::StillOffered { by, .. }
            | Self::OtherTag { by, .. }
            | Self::DuplicateBackend { by, .. }
            | Self::DuplicateTag { by, .. }
            | Self::TagInUse { by, .. }
            | Self::DuplicateDevice { by, .. }
            | Self::PortTaken { by, .. }
            | Self::MemdevInUse { by, .. }
            | Self::TagLive { by, .. }
            | Self::BackendInUse { by, .. } => Some(by),
            _ => None,
        }
    }
}
