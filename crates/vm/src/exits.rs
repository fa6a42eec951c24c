//! Who answers what a guest's processor cannot do by itself.

use wire::Hpa;

/// Who answers exits. Called on the vCPU's thread, on several at once; it may wait, but not for a pause of the machine.
pub trait Exits: Send + Sync {
    /// Fills `to`, of 1 to 8 bytes, with what a load at `hpa` sees.
    fn mmio_read(&self, hpa: Hpa, to: &mut [u8]);

    /// Takes what a store put at `hpa`, 1 to 8 bytes.
    fn mmio_write(&self, hpa: Hpa, from: &[u8]);

    /// Fills `to`, of 1, 2 or 4 bytes, with what `in` sees at a port.
    fn port_read(&self, port: u16, to: &mut [u8]);

    /// Takes what `out` put at a port, 1, 2 or 4 bytes.
    fn port_write(&self, port: u16, from: &[u8]);
}
