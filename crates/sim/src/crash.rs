//! Crash points: what a disk may hold when the power goes now, and whether a journal comes back from each.
//!
//! Between a write and its sync any beginning of what was written may be there. Deliberately absent: what is not a
//! beginning. A disk that reorders is the store's matter (sled checks its own segments) and is tested with real power cuts.

use journal::memory_store::MemoryDisk;

use crate::dice::Dice;
use crate::failure::Wrong;
use crate::keeper::{Keeper, recovered};

/// Which crash points of a run are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrashPoints {
    /// Those at which the run crashes.
    #[default]
    Taken,
    /// All: at each write, all that may be on the disk then. Costs a reading of the journal each.
    Every,
}

/// What a crash leaves: of a process everything that it wrote, of a power cut what was synced and a beginning of the rest.
pub(crate) fn left(disk: &MemoryDisk, dice: &mut Dice) -> MemoryDisk {
    if dice.one_in(3) { disk.live_image() } else { disk.crash_image(dice.below(disk.unsynced() as u64 + 1) as usize) }
}

/// Tries everything that a crash may leave now.
pub(crate) fn try_all(keeper: &Keeper) -> Result<(), Wrong> {
    (0..=keeper.disk().unsynced()).try_for_each(|in_flight| {
        let found = recovered(&keeper.disk().crash_image(in_flight))?;
        keeper.is_kept_by(&found).map_err(|reason| Wrong::NotKept { in_flight, reason })
    })
}
