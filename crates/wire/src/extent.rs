//! Ranges of dynamic capacity as they travel: the extent of events and lists, and the shorter form of answers.
//!
//! ```text
//! RawExtent      00 start DPA  08 length  10 tag (16)  20 shared sequence  22 reserved (6)      28h bytes
//! UpdateHeader   00 count  04 flags  05 reserved (3)                                             8 bytes
//! UpdatedExtent  00 start DPA  08 length  10 reserved (8)                                       18h bytes
//! ```
//!
//! Deliberately absent: alignment, overlap and order; those are rules about a list, not about its bytes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One extent in an event record or in the extent list (CXL r4.0 8.2.10.9.9.2, table 8-230).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RawExtent {
    /// Device-physical address of the first byte; bits 5:0 are zero.
    pub start_dpa: U64,
    /// Length in bytes, a multiple of the region's block size.
    pub len_bytes: U64,
    /// Opaque tag in the byte order of its UUID text; all zero is "no tag".
    pub tag: [u8; 16],
    /// Position among the tag's extents, from 0, in a sharable region; 0 elsewhere.
    pub shared_sequence: U16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// More messages of the same answer follow (CXL r4.0 8.2.10.9.9.3, 8.2.10.9.9.4).
pub const UPDATE_FLAG_MORE: u8 = 1;

/// The head of Add Dynamic Capacity Response and of Release Dynamic Capacity (CXL r4.0 8.2.10.9.9.3, 8.2.10.9.9.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UpdateHeader {
    /// Number of [`UpdatedExtent`]s that follow in this message.
    pub count: U32,
    /// [`UPDATE_FLAG_MORE`] or zero.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// A range that the host accepts or gives back (CXL r4.0 8.2.10.9.9.3, 8.2.10.9.9.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UpdatedExtent {
    /// Device-physical address of the first byte.
    pub start_dpa: U64,
    /// Length in bytes.
    pub len_bytes: U64,
    /// Zero.
    pub reserved: [u8; 8],
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<RawExtent>() == 0x28);
    assert!(offset_of!(RawExtent, len_bytes) == 0x08);
    assert!(offset_of!(RawExtent, tag) == 0x10);
    assert!(offset_of!(RawExtent, shared_sequence) == 0x20);
    assert!(offset_of!(RawExtent, reserved) == 0x22);
    assert!(size_of::<UpdateHeader>() == 0x08);
    assert!(offset_of!(UpdateHeader, flags) == 0x04);
    assert!(size_of::<UpdatedExtent>() == 0x18);
    assert!(offset_of!(UpdatedExtent, len_bytes) == 0x08);
    assert!(offset_of!(UpdatedExtent, reserved) == 0x10);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_is_these_forty_bytes() {
        let extent = RawExtent {
            start_dpa: U64::new(0x1_2345_6780_0000),
            len_bytes: U64::new(0x20_0000),
            tag: *b"\x5b\xe1\x3b\xce\xae\x34\x4a\x77\xb6\xc3\x16\xdf\x97\x5f\xcf\x1a",
            shared_sequence: U16::new(0x0102),
            reserved: [0; 6],
        };
        #[rustfmt::skip]
        let bytes = [
            0x00, 0x00, 0x80, 0x67, 0x45, 0x23, 0x01, 0x00, // start DPA
            0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, // length
            0x5b, 0xe1, 0x3b, 0xce, 0xae, 0x34, 0x4a, 0x77, // tag, text order
            0xb6, 0xc3, 0x16, 0xdf, 0x97, 0x5f, 0xcf, 0x1a,
            0x02, 0x01,                                     // shared sequence
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00,             // reserved
        ];
        assert_eq!(extent.as_bytes(), bytes);
        assert_eq!(RawExtent::read_from_bytes(&bytes), Ok(extent));
    }

    #[test]
    fn an_answer_is_a_head_and_ranges() {
        let head = UpdateHeader { count: U32::new(2), flags: UPDATE_FLAG_MORE, reserved: [0; 3] };
        assert_eq!(head.as_bytes(), [2, 0, 0, 0, 1, 0, 0, 0]);
        let range = UpdatedExtent { start_dpa: U64::new(0x1000), len_bytes: U64::new(0x40), reserved: [0; 8] };
        assert_eq!(range.as_bytes()[..9], [0x00, 0x10, 0, 0, 0, 0, 0, 0, 0x40]);
    }
}
