//! The mix of a run: how often who does what. Each seed draws its own, so that some runs are all crashes, some have none,
//! and in some nobody is polite.
//!
//! Deliberately absent: knobs. What a person may ask for is a seed and a length; all else follows from the seed.

use device::config::VmConfig;
use wire::Hpa;

use crate::devices::{Kind, PORTS};
use crate::dice::Dice;
use crate::host::Temper;

const GIB: u64 = 1 << 30;

/// Where the CXL window of the simulated VM begins.
pub(crate) const WINDOW_BASE: u64 = 0x1_1000_0000;

/// How a run is made up.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// How the host behind each port is.
    pub(crate) tempers: [Temper; PORTS as usize],
    /// What is plugged into each port.
    pub(crate) kinds: [Kind; PORTS as usize],
    /// Devices that are plugged from the start.
    pub(crate) plugged: u8,
    /// Between two things that the operator does, in nanoseconds at most.
    pub(crate) operator_ns: u64,
    /// Between two bursts of the fabric manager.
    pub(crate) manager_ns: u64,
    /// Between two misfortunes.
    pub(crate) misfortune_ns: u64,
    /// How often each misfortune is the one, as [`crate::misfortune::Misfortune::ALL`] lists them.
    pub(crate) misfortunes: [u64; 6],
    /// How long a sync takes at most.
    pub(crate) sync_ns: u64,
    /// How many blocks of each region are fought for: few make collisions.
    pub(crate) blocks: u64,
    /// How many tags.
    pub(crate) tags: u64,
    /// Whether the fabric manager fills event logs.
    pub(crate) has_floods: bool,
}

impl Mix {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut tempers: [Temper; PORTS as usize] = std::array::from_fn(|_| dice.pick(&Temper::ALL));
        let kinds = std::array::from_fn(|_| Kind::draw(dice));
        let misfortunes = std::array::from_fn(|_| dice.below(4) * dice.below(4));
        let has_floods = dice.one_in(10);
        if has_floods {
            // A log overflows where a host holds something, and it takes a driver to hear of it.
            tempers[0] = Temper::Polite;
        }
        Self {
            tempers,
            kinds,
            plugged: dice.between(1, u64::from(PORTS)) as u8,
            operator_ns: dice.scale(1_000_000, 200_000_000),
            manager_ns: if has_floods {
                dice.scale(50_000_000, 400_000_000)
            } else {
                dice.scale(100_000_000, 8_000_000_000)
            },
            misfortune_ns: dice.scale(80_000_000, 20_000_000_000),
            misfortunes,
            sync_ns: dice.scale(20_000, 20_000_000),
            blocks: dice.scale(8, 1024),
            tags: dice.scale(2, 48),
            has_floods,
        }
    }
}

/// The simulated VM.
pub(crate) fn vm_config() -> VmConfig {
    VmConfig {
        memory_bytes: GIB,
        window_base: Hpa(WINDOW_BASE),
        windows_bytes: vec![64 * GIB],
        root_ports: (0..PORTS).map(|port| format!("rp{port}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_vm_can_be() {
        vm_config().check().expect("a VM");
    }
}
