//! HDM decoding: from a guest-physical address to the device-physical one.
//!
//! ```text
//!  HPA - base = │ stripe │ way │ within a granule │      one stripe = ways x granularity
//!                   │               │
//!  DPA - skip = │ stripe      │ within a granule │       the way is dropped
//! ```
//!
//! The device does not know its place in an interleave set: whatever is routed to it is decoded, so that each of its
//! addresses is reached once for each way. Deliberately absent: registers, and whether a decoder may be committed.

use serde::Serialize;
use wire::{Dpa, Hpa};

/// How many devices an interleave set has (CXL r4.0 8.2.4.20.7, interleave ways).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ways(u8);

impl Ways {
    /// No interleave.
    pub const ONE: Self = Self(1);

    /// The ways of a 4-bit code, or `None` for a reserved one: powers of two up to 16, then 3, 6 and 12 from 8 on.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0..=4 => Some(Self(1 << code)),
            8..=10 => Some(Self(3 << (code - 8))),
            _ => None,
        }
    }

    /// The number of devices.
    pub const fn count(self) -> u8 {
        self.0
    }
}

/// Bytes that go to one device before the next one's turn (CXL r4.0 8.2.4.20.7, interleave granularity).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Granularity(u32);

impl Granularity {
    /// 256 bytes, the smallest.
    pub const MIN: Self = Self(256);

    /// The granularity of a 4-bit code, or `None` for a reserved one: 256 bytes to 16 KiB.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0..=6 => Some(Self(256 << code)),
            _ => None,
        }
    }

    /// The granularity in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

/// What one committed HDM decoder decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DecodedRange {
    /// First host-physical address.
    pub hpa: Hpa,
    /// Bytes of host-physical addresses.
    pub size_bytes: u64,
    /// First device-physical address.
    pub dpa: Dpa,
    /// Devices in the interleave set.
    pub ways: Ways,
    /// Granularity of the interleave; without effect for one way.
    pub granularity: Granularity,
}

impl DecodedRange {
    /// Bytes of device-physical addresses behind the range.
    pub const fn dpa_len_bytes(&self) -> u64 {
        self.size_bytes / self.ways.0 as u64
    }

    /// The device-physical address of `hpa`, and how many bytes from there on lie side by side in both address spaces;
    /// `None` where the decoder does not decode it (CXL r4.0 8.2.4.20.13).
    ///
    /// Dividing by the stripe is what the standard's bit selection does for a power of two, and its division by three
    /// for the other family.
    pub fn resolve(&self, hpa: Hpa) -> Option<(Dpa, u64)> {
        let offset = hpa.bytes_from(self.hpa).filter(|offset| *offset < self.size_bytes)?;
        if self.ways == Ways::ONE {
            return Some((self.dpa.checked_add(offset)?, self.size_bytes - offset));
        }
        let granule_bytes = u64::from(self.granularity.0);
        let stripe_bytes = granule_bytes * u64::from(self.ways.0);
        let within = offset % granule_bytes;
        let dpa_offset = offset / stripe_bytes * granule_bytes + within;
        // A size that is no multiple of the stripe (no register can hold one) ends in a part that no DPA stands behind.
        let left = self.dpa_len_bytes().checked_sub(dpa_offset).filter(|left| *left > 0)?;
        let contiguous_bytes = (granule_bytes - within).min(self.size_bytes - offset).min(left);
        Some((self.dpa.checked_add(dpa_offset)?, contiguous_bytes))
    }

    /// The one host-physical address that decodes to `dpa`; `None` where there is none, and for an interleaved decoder,
    /// where there are several.
    pub fn hpa_of(&self, dpa: Dpa) -> Option<Hpa> {
        let offset = dpa.bytes_from(self.dpa).filter(|offset| *offset < self.size_bytes)?;
        if self.ways == Ways::ONE { self.hpa.checked_add(offset) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ways() -> impl Strategy<Value = Ways> {
        prop::sample::select((0..16).filter_map(Ways::from_code).collect::<Vec<_>>())
    }

    fn granularity() -> impl Strategy<Value = Granularity> {
        prop::sample::select((0..16).filter_map(Granularity::from_code).collect::<Vec<_>>())
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        let counts: Vec<_> = (0..16).map(|code| Ways::from_code(code).map(Ways::count)).collect();
        assert_eq!(counts[..5], [1, 2, 4, 8, 16].map(Some));
        assert_eq!(counts[8..11], [3, 6, 12].map(Some));
        assert_eq!(counts.iter().flatten().count(), 8);
        assert_eq!(Granularity::from_code(6).map(Granularity::bytes), Some(16 << 10));
        assert_eq!(Granularity::from_code(7), None);
    }

    #[test]
    fn interleave_bits_are_dropped() {
        let ways = Ways::from_code(1).unwrap();
        let decoded = DecodedRange {
            hpa: Hpa(1 << 32),
            size_bytes: 1 << 30,
            dpa: Dpa(0x1000_0000),
            ways,
            granularity: Granularity::MIN,
        };
        assert_eq!(decoded.resolve(Hpa((1 << 32) + 0x0ff)), Some((Dpa(0x1000_00ff), 1)));
        assert_eq!(decoded.resolve(Hpa((1 << 32) + 0x100)), Some((Dpa(0x1000_0000), 0x100)));
        assert_eq!(decoded.resolve(Hpa((1 << 32) + 0x210)), Some((Dpa(0x1000_0110), 0xf0)));
        assert_eq!(decoded.resolve(Hpa((1 << 32) + (1 << 30))), None);
        assert_eq!(decoded.hpa_of(Dpa(0x1000_0000)), None);
        assert_eq!(decoded.dpa_len_bytes(), 1 << 29);
    }

    proptest! {
        #[test]
        fn without_interleave_it_is_a_bijection(
            hpa in any::<u32>(), dpa in any::<u32>(), size_bytes in 1u64..1 << 40, at in any::<u64>(),
        ) {
            let decoded = DecodedRange {
                hpa: Hpa(u64::from(hpa)),
                size_bytes,
                dpa: Dpa(u64::from(dpa)),
                ways: Ways::ONE,
                granularity: Granularity::MIN,
            };
            let at = decoded.hpa.checked_add(at % size_bytes).unwrap();
            let (there, contiguous_bytes) = decoded.resolve(at).unwrap();
            prop_assert_eq!(decoded.hpa_of(there), Some(at));
            prop_assert_eq!(at.0 + contiguous_bytes, decoded.hpa.0 + size_bytes);
            prop_assert_eq!(decoded.hpa_of(Dpa(decoded.dpa.0 + size_bytes)), None);
        }

        #[test]
        fn every_device_byte_is_reached_once_for_each_way(
            ways in ways(), granularity in granularity(), stripes in 1u64..4,
        ) {
            let size_bytes = stripes * u64::from(ways.count()) * u64::from(granularity.bytes());
            let decoded = DecodedRange { hpa: Hpa(0x5000), size_bytes, dpa: Dpa(0x300), ways, granularity };
            let mut reached = BTreeMap::<u64, u64>::new();
            let mut offset = 0;
            while offset < size_bytes {
                let (dpa, contiguous_bytes) = decoded.resolve(Hpa(0x5000 + offset)).unwrap();
                let granules = contiguous_bytes / u64::from(granularity.bytes());
                prop_assert_eq!(granules * u64::from(granularity.bytes()), contiguous_bytes);
                for granule in 0..granules {
                    *reached.entry(dpa.0 + granule * u64::from(granularity.bytes())).or_default() += 1;
                }
                offset += contiguous_bytes;
            }
            let granules = decoded.dpa_len_bytes() / u64::from(granularity.bytes());
            let expected: BTreeMap<_, _> = (0..granules)
                .map(|granule| (0x300 + granule * u64::from(granularity.bytes()), u64::from(ways.count())))
                .collect();
            prop_assert_eq!(reached, expected);
        }

        #[test]
        fn contiguous_bytes_are_contiguous(
            ways in ways(), granularity in granularity(), at in 0u64..1 << 20, step in any::<u64>(),
        ) {
            let decoded = DecodedRange { hpa: Hpa(0), size_bytes: 3 << 18, dpa: Dpa(7 << 28), ways, granularity };
            if let Some((dpa, contiguous_bytes)) = decoded.resolve(Hpa(at)) {
                let step = step % contiguous_bytes;
                prop_assert_eq!(decoded.resolve(Hpa(at + step)), Some((Dpa(dpa.0 + step), contiguous_bytes - step)));
            }
        }

        #[test]
        fn ends_of_the_address_space_do_not_panic(
            hpa in any::<u64>(), size_bytes in any::<u64>(), dpa in any::<u64>(), at in any::<u64>(),
            ways in ways(), granularity in granularity(),
        ) {
            let decoded = DecodedRange { hpa: Hpa(hpa), size_bytes, dpa: Dpa(dpa), ways, granularity };
            for at in [at, 0, u64::MAX, hpa, hpa.wrapping_add(size_bytes), hpa.wrapping_add(size_bytes / 2)] {
                decoded.resolve(Hpa(at));
                decoded.hpa_of(Dpa(at));
            }
        }
    }
}
