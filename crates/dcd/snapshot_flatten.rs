//! `dcd snapshot flatten`: makes a snapshot independent of those that it is built on.

use std::path::PathBuf;

use snapshot::Step;

use crate::progress::Progress;
use crate::snapshot_place::told;
use crate::{print_line, size, snapshot_place};

/// Make a snapshot hold all of its bytes itself, so that those that it is built on can be deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd snapshot flatten /var/lib/dcd/snapshots/tuesday\n\n\
                        Every byte is checked before and after it is copied; where the file system can share blocks (XFS, btrfs) it shares \
                        them. What is built on the snapshot stays so. Nobody may have one of them open at the end. Whatever \
                        interrupts it leaves the snapshot as it was.")]
pub(crate) struct Flatten {
    /// Its directory, DIR/NAME.
    path: PathBuf,
}

impl Flatten {
    /// Flattens.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let (dir, name) = snapshot_place::split(&self.path)?;
        let store = snapshot_place::store(&dir)?;
        let below: Vec<_> = {
            let snapshot = store.snapshot(&name).map_err(told)?;
            snapshot.chain().skip(1).map(|manifest| manifest.name.to_string()).collect()
        };
        if below.is_empty() {
            return print_line(&format!("{name} is built on no other: nothing was to be done"));
        }
        let mut progress = Progress::new("flatten");
        let mut own_bytes = 0;
        let flattened = store.flatten(&name, &mut |step| match step {
            Step::Chain { done_bytes, total_bytes } | Step::Copy { done_bytes, total_bytes } => {
                progress.bytes(done_bytes, total_bytes);
            }
            Step::Contents { done_bytes, total_bytes } => {
                own_bytes = total_bytes;
                progress.bytes(done_bytes, total_bytes);
            }
            Step::Runs | Step::Parts | Step::Manifest | Step::Name | Step::Sync => {}
        });
        drop(flattened.map_err(told)?);
        drop(progress);
        print_line(&format!(
            "flattened {name}: {} of memory are its own, and no longer on {}",
            size::people(own_bytes),
            below.join(", on ")
        ))
    }
}
