//! Component registers: the CXL.cachemem capability headers and the HDM decoders.
//!
//! ```text
//! 1000h  capability header      id 1, versions, number of entries      (from the start of the component block)
//! 1004h  entry (4) each         id, version, pointer from 1000h
//!   ...
//! HDM    00 capability  04 global control  10h + 20h*n decoder n
//! decoder  +00 base lo/hi  +08 size lo/hi  +10 control  +14 skip lo/hi
//! ```
//!
//! Deliberately absent: the fields of the RAS capability, and when a commit succeeds.

use bitfield_struct::bitfield;

/// Length of a component register block in bytes (CXL r4.0 8.2.3).
pub const COMPONENT_BLOCK_LEN_BYTES: usize = 0x1_0000;
/// Offset of the CXL.cachemem registers in a component register block (CXL r4.0 8.2.4).
pub const CACHEMEM_OFFSET: usize = 0x1000;
/// Length of the CXL.cachemem registers in bytes.
pub const CACHEMEM_LEN_BYTES: usize = 0x1000;

/// The first dword of the CXL.cachemem registers (CXL r4.0 8.2.4.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ComponentCapabilityArray {
    /// [`COMPONENT_CAPABILITY_ID`].
    pub id: u16,
    /// Version of this header.
    #[bits(4)]
    pub version: u8,
    /// Version of the CXL.cachemem protocol.
    #[bits(4)]
    pub cachemem_version: u8,
    /// Entries that follow.
    pub count: u8,
}

/// One entry after [`ComponentCapabilityArray`] (CXL r4.0 8.2.4.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ComponentCapabilityEntry {
    /// Which capability it is.
    pub id: u16,
    /// Version of its layout.
    #[bits(4)]
    pub version: u8,
    /// Offset in bytes from the array's header.
    #[bits(12)]
    pub pointer: u16,
}

/// Id of the array's own header.
pub const COMPONENT_CAPABILITY_ID: u16 = 1;
/// Id of the RAS capability (CXL r4.0 8.2.4.17).
pub const COMPONENT_CAPABILITY_RAS: u16 = 2;
/// Id of the HDM decoder capability (CXL r4.0 8.2.4.20).
pub const COMPONENT_CAPABILITY_HDM: u16 = 5;
/// Length of the RAS capability in bytes.
pub const RAS_LEN_BYTES: usize = 0x58;

/// Offset of [`HdmCapability`] in the HDM decoder capability.
pub const HDM_CAPABILITY: usize = 0x00;
/// Offset of [`HdmGlobalControl`] in the HDM decoder capability.
pub const HDM_GLOBAL_CONTROL: usize = 0x04;
/// Offset of decoder 0 in the HDM decoder capability.
pub const HDM_DECODER_0: usize = 0x10;
/// Bytes from one decoder to the next.
pub const HDM_DECODER_STRIDE_BYTES: usize = 0x20;
/// Offset of the low half of the base in a decoder; bits 31:28 count.
pub const HDM_DECODER_BASE_LOW: usize = 0x00;
/// Offset of the high half of the base in a decoder.
pub const HDM_DECODER_BASE_HIGH: usize = 0x04;
/// Offset of the low half of the size in a decoder; bits 31:28 count.
pub const HDM_DECODER_SIZE_LOW: usize = 0x08;
/// Offset of the high half of the size in a decoder.
pub const HDM_DECODER_SIZE_HIGH: usize = 0x0c;
/// Offset of [`HdmDecoderControl`] in a decoder.
pub const HDM_DECODER_CONTROL: usize = 0x10;
/// Offset of the low half of the DPA skip in a device's decoder; bits 31:28 count.
pub const HDM_DECODER_SKIP_LOW: usize = 0x14;
/// Offset of the high half of the DPA skip in a device's decoder.
pub const HDM_DECODER_SKIP_HIGH: usize = 0x18;
/// The bits of a low half that count: bases, sizes and skips are multiples of 256 MiB.
pub const HDM_DECODER_LOW_MASK: u32 = 0xf000_0000;
/// Decoders of a device at most.
pub const HDM_DEVICE_DECODERS_MAX: usize = 10;

/// Offset of decoder `index` in the HDM decoder capability.
pub const fn hdm_decoder_offset(index: usize) -> usize {
    HDM_DECODER_0 + index * HDM_DECODER_STRIDE_BYTES
}

/// Length of an HDM decoder capability with `count` decoders in bytes.
pub const fn hdm_len_bytes(count: usize) -> usize {
    hdm_decoder_offset(count)
}

/// What the HDM decoders can do (CXL r4.0 8.2.4.20.1).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HdmCapability {
    /// Number of decoders: 0 is one, then 2, 4, 6, 8, 10 (see [`HdmCapability::decoder_count`]).
    #[bits(4)]
    pub decoder_count_code: u8,
    /// Targets of a decoder in a switch or host bridge; 0 in a device.
    #[bits(4)]
    pub target_count: u8,
    /// Interleave on address bits 11:8 works.
    pub interleave_11_8: bool,
    /// Interleave on address bits 14:12 works.
    pub interleave_14_12: bool,
    /// Reads that decode to nothing can give poison.
    pub poison_on_decode_error_capable: bool,
    /// 3, 6 and 12 ways work.
    pub ways_3_6_12: bool,
    /// 16 ways work.
    pub ways_16: bool,
    #[bits(7)]
    __: u8,
    /// Reads that decode to nothing can give the MemData-NXM response.
    pub memdata_nxm_capable: bool,
    /// Which coherency models a decoder knows: 1 device, 2 host-only, 3 both.
    #[bits(2)]
    pub coherency_models: u8,
    #[bits(9)]
    __: u16,
}

impl HdmCapability {
    /// The number of decoders, or `None` for a code that a device does not use.
    pub const fn decoder_count(self) -> Option<usize> {
        match self.decoder_count_code() {
            0 => Some(1),
            code @ 1..=5 => Some(code as usize * 2),
            _ => None,
        }
    }
}

/// What holds for all decoders (CXL r4.0 8.2.4.20.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HdmGlobalControl {
    /// Reads that decode to nothing give poison instead of all ones.
    pub poison_on_decode_error: bool,
    /// Decoders count, not the range registers of DVSEC 0.
    pub hdm_enable: bool,
    #[bits(30)]
    __: u32,
}

/// Control and state of one decoder (CXL r4.0 8.2.4.20.7).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HdmDecoderControl {
    /// Interleave granularity: 256 bytes times two to this power.
    #[bits(4)]
    pub interleave_granularity: u8,
    /// Interleave ways as a code: 0 is one way, 1 two, 2 four, 3 eight, 4 sixteen, 8 three, 9 six, Ah twelve.
    #[bits(4)]
    pub interleave_ways: u8,
    /// A commit makes the decoder read only until reset.
    pub lock_on_commit: bool,
    /// Set to ask for a commit, cleared to undo it.
    pub commit: bool,
    /// The device took the decoder.
    pub committed: bool,
    /// The device refused the decoder.
    pub error_not_committed: bool,
    /// The range is host-only coherent (HDM-H); else device coherent.
    pub host_only: bool,
    #[bits(19)]
    __: u32,
}

const _: () = {
    assert!(hdm_decoder_offset(1) == 0x30);
    assert!(hdm_decoder_offset(0) + HDM_DECODER_CONTROL == 0x20);
    assert!(hdm_decoder_offset(0) + HDM_DECODER_SKIP_LOW == 0x24);
    assert!(hdm_decoder_offset(0) + HDM_DECODER_SKIP_HIGH == 0x28);
    assert!(hdm_len_bytes(4) == 0x90);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_the_code() {
        let count = |code| HdmCapability::new().with_decoder_count_code(code).decoder_count();
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(count), [Some(1), Some(2), Some(4), Some(6), Some(8), Some(10), None]);
    }

    #[test]
    fn fields_have_the_bits_of_the_standard() {
        let committed = HdmDecoderControl::from(0x1600);
        assert!(committed.commit() && committed.committed() && committed.host_only());
        assert!(!committed.lock_on_commit() && !committed.error_not_committed());
        assert_eq!(u32::from(HdmGlobalControl::new().with_hdm_enable(true)), 2);
        assert_eq!(
            u32::from(ComponentCapabilityEntry::new().with_id(5).with_version(3).with_pointer(0x110)),
            0x1103_0005
        );
        let head = ComponentCapabilityArray::new().with_id(1).with_version(1).with_cachemem_version(1).with_count(2);
        assert_eq!(u32::from(head), 0x0211_0001);
        assert_eq!(u32::from(HdmCapability::new().with_coherency_models(2).with_memdata_nxm_capable(true)), 0x50_0000);
        assert_eq!(u32::from(HdmCapability::new().with_ways_16(true)), 1 << 12);
    }
}
