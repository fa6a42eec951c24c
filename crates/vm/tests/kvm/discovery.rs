//! The driver on a vCPU, in front of this house's platform.

use std::sync::Arc;

use device::config_space::ConfigSpace;
use driver::HpaRange;
use memory::{HostMemory, Window};
use platform::{
    AddressMap, CommandSink, CommandedWrite, Face, MMIO_BASE, MMIO_LEN_BYTES, MailboxCommandImage, Platform,
    PlatformParts, ROOT_PORT_BUS,
};
use vm::{Exits, GuestDriver, GuestPlatform, GuestWord};
use wire::Hpa;

use crate::needs_kvm;
use crate::rig::{RAM_LEN_BYTES, Recorder, Rig, Shown};

/// A device that never answers.
struct Silence;

impl CommandSink for Silence {
    fn doorbell(&self, _: MailboxCommandImage) {}
    fn commanded(&self, _: CommandedWrite) {}
}

/// Exits that the platform answers.
struct OfPlatform(Platform);

impl Exits for OfPlatform {
    fn mmio_read(&self, hpa: Hpa, to: &mut [u8]) {
        self.0.read(hpa, to);
    }

    fn mmio_write(&self, hpa: Hpa, from: &[u8]) {
        self.0.write(hpa, from);
    }

    fn port_read(&self, port: u16, to: &mut [u8]) {
        let value = self.0.port_read(port, to.len() as u8);
        to.copy_from_slice(&value.to_le_bytes()[..to.len()]);
    }

    fn port_write(&self, port: u16, from: &[u8]) {
        let value = from.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        self.0.port_write(port, from.len() as u8, value);
    }
}

/// What the driver says of a device behind this house's platform that is there, but dead.
fn word_of_a_dead_device(ecam_base: Option<Hpa>) -> (GuestWord, Rig) {
    let base = AddressMap::new(RAM_LEN_BYTES).fixed_window_base().expect("a base");
    let window = Arc::new(Window::new(base, 1 << 30));
    let ram = Arc::new(HostMemory::anonymous(RAM_LEN_BYTES).expect("memory"));
    let platform = Platform::new(PlatformParts { ram, window, root_ports: 1 });
    platform
        .plug(0, Arc::new(Face::new(ConfigSpace::new(1, 11), 11, Arc::new(Silence)).expect("memory")))
        .expect("an empty port");
    let parts = GuestPlatform {
        root_buses: vec![ROOT_PORT_BUS],
        mmio: HpaRange { base: MMIO_BASE, size_bytes: MMIO_LEN_BYTES },
        window: HpaRange { base, size_bytes: 1 << 30 },
        ecam_base,
    };
    let driver = GuestDriver { policy: driver::Policy::Accept, busy: Vec::new() };
    let shown = Arc::new(Shown::new(RAM_LEN_BYTES));
    let answers = Arc::new(OfPlatform(platform));
    let rig = Rig::assemble(1, parts, Some(driver), shown, answers, Arc::<Recorder>::default());
    rig.machine.boot(1_700_000_000_000).expect("a boot");
    rig.machine.run();
    (rig.heard.wait_word(|word| matches!(word, GuestWord::Failed(_))), rig)
}

#[test]
fn a_dead_device_is_found_by_memory_and_given_up_after_its_time() {
    needs_kvm!();
    let begun = std::time::Instant::now();
    let (word, rig) = word_of_a_dead_device(Some(Hpa(0xb000_0000)));
    let GuestWord::Failed(text) = word else { panic!("{word:?}") };
    assert!(text.starts_with("0d:00.0: ") && text.contains("2000 ms"), "{text}");
    // The guest's clock is the host's, and it slept: a poll without rest would be a hundred thousand exits.
    assert!((1_900..4_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    let counts = rig.machine.exit_counts()[0];
    assert!(counts.accesses() < 3_000, "{counts:?}");
}

/// Ports reach 256 bytes of configuration space, and what makes a device a CXL device is behind them.
#[test]
fn by_ports_the_device_is_seen_but_not_what_it_is() {
    needs_kvm!();
    let (word, _rig) = word_of_a_dead_device(None);
    let GuestWord::Failed(text) = word else { panic!("{word:?}") };
    assert!(text.starts_with("0d:00.0: "), "{text}");
}
