//! What a vCPU's stubs count, and its last words.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a text at most.
pub const TEXT_LEN_BYTES_MAX: usize = 2048;

/// A text of the guest: UTF-8 as far as it means well.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Text {
    /// How many bytes there are.
    pub len_bytes: u64,
    /// The bytes.
    pub bytes: [u8; TEXT_LEN_BYTES_MAX],
}

impl Text {
    /// The bytes that are meant, whatever the length says.
    pub fn meant(&self) -> &[u8] {
        let len = usize::try_from(self.len_bytes).unwrap_or(TEXT_LEN_BYTES_MAX);
        self.bytes.get(..len).unwrap_or(&self.bytes)
    }
}

/// What a vCPU's ring 0 stubs count, and what its panic said.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct VcpuPage {
    /// Interrupts so far.
    pub interrupts: u64,
    /// Those of them that devices sent.
    pub device_interrupts: u64,
    /// What a panic said.
    pub panic: Text,
}
