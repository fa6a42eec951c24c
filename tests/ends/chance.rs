//! Chance, for the moment of an end.

use std::time::{SystemTime, UNIX_EPOCH};

/// Random enough for the moment of a cut.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new() -> Chance {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Chance(now.as_nanos() as u64 | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
