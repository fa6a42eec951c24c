//! A guest's processor.

use memory::{FakeHypervisor, Window};
use wire::Hpa;

/// Through a slot where there is one, else by an exit that the lookup answers.
pub(crate) struct Cpu<'a> {
    pub(crate) hypervisor: &'a FakeHypervisor,
    pub(crate) window: &'a Window,
}

impl Cpu<'_> {
    pub(crate) fn load(&self, hpa: Hpa) -> u8 {
        self.hypervisor.load(hpa).unwrap_or_else(|| {
            let mut byte = [0x55];
            self.window.read(hpa, &mut byte);
            byte[0]
        })
    }

    pub(crate) fn store(&self, hpa: Hpa, value: u8) {
        if self.hypervisor.store(hpa, value).is_none() {
            self.window.write(hpa, &[value]);
        }
    }
}
