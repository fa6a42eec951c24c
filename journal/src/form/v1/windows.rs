//! What reaches the window mapper, what it decides, and its state.

use device::windows;

use crate::form::frozen::frozen;

use super::extents::Range;

frozen! {
    enum Input of windows::Input {
        HdmGlobalControl { value: u32 },
        DecoderCommit { decoder: u8, fields: DecoderFields },
        DecoderUncommit { decoder: u8 },
    }

    enum Fact of windows::Fact {
        HdmGlobalControlSet { value: u32 },
        DecoderCommitted { decoder: u8, fields: DecoderFields, dpa: u64 },
        DecoderFailed { decoder: u8 },
        DecoderUncommitted { decoder: u8 },
        Mapped { pieces: Vec<Piece> },
        Unmapped { ranges: Vec<Range> },
        Reset,
    }

    struct DecoderFields of windows::DecoderFields {
        base: u64,
        size_bytes: u64,
        skip_bytes: u64,
        control: u32,
    }

    struct Piece of windows::Piece {
        range: Range,
        backend: String,
        offset_bytes: u64,
    }

    struct State of windows::Parts {
        decoders: Vec<DecoderParts>,
        hdm_control: u32,
        pieces: Vec<Piece>,
    }

    enum DecoderParts of windows::DecoderParts {
        Idle,
        Failed,
        Committed { fields: DecoderFields, dpa: u64 },
    }
}
