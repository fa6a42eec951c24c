//! What is aimed at where QEMU does the same: a fifth of what it takes.

use crate::report::Row;

const SHARE: f64 = 5.0;

/// A figure that QEMU has too.
pub(crate) trait AgainstQemu {
    /// Beside what QEMU takes.
    #[must_use]
    fn qemu(self, qemu: f64) -> Self;
}

impl AgainstQemu for Row {
    fn qemu(self, qemu: f64) -> Self {
        Row { qemu: Some(qemu), ..self }.target(qemu / SHARE)
    }
}
