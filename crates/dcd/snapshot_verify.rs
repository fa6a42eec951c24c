//! `dcd snapshot verify`: whether a snapshot is what was written.

use std::path::PathBuf;

use snapshot::Contents;

use crate::progress::Progress;
use crate::snapshot_place::{plain, told};
use crate::{print_line, snapshot_place};

/// Read a snapshot whole, and all those that it is built on, and check every byte.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd snapshot verify /var/lib/dcd/snapshots/monday\n\n\
                        The exit code is 0 only if all of it is what was written; else 1, with the file that is not. Memory that a snapshot \
                        has by reference is not its own, and not looked at.")]
pub(crate) struct Verify {
    /// Its directory, DIR/NAME.
    path: PathBuf,
}

impl Verify {
    /// Verifies.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let snapshot = snapshot_place::open(&self.path)?;
        let mut progress = Progress::new("verify");
        let mut read_bytes = 0;
        let verified = snapshot.verify(&mut |done, total| {
            read_bytes = done;
            progress.bytes(done, total);
        });
        verified.map_err(told)?;
        drop(progress);
        let keyframe = snapshot_place::keyframe(&snapshot)?;
        let chain: Vec<_> = snapshot.chain().map(|manifest| manifest.name.as_str()).collect();
        print_line(&format!(
            "{}: {read_bytes} bytes of memory, the state after {}",
            chain.join(", on "),
            keyframe.seq
        ))?;
        for memory in snapshot.memories() {
            if let Contents::Reference { path } = &memory.contents {
                let (id, path) = (&memory.id, plain(path));
                print_line(&format!("memory {id} is by reference: its bytes in {path} were not looked at"))?;
            }
        }
        print_line("every byte is what was written")
    }
}
