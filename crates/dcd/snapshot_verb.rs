//! `dcd snapshot`: saves a running VM, goes back to what was saved, and looks into it.

use clap::Subcommand;

use crate::snapshot_delete::Delete;
use crate::snapshot_flatten::Flatten;
use crate::snapshot_list::List;
use crate::snapshot_restore::Restore;
use crate::snapshot_save::Save;
use crate::snapshot_show::Show;
use crate::snapshot_verify::Verify;

/// Save a running VM, go back to what was saved, or look into it.
#[derive(Debug, clap::Args)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    verb: SnapshotVerb,
}

#[derive(Debug, Subcommand)]
enum SnapshotVerb {
    Save(Save),
    Restore(Restore),
    List(List),
    Show(Show),
    Verify(Verify),
    Flatten(Flatten),
    Delete(Delete),
}

impl Snapshot {
    /// Does it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.verb {
            SnapshotVerb::Save(save) => save.run(),
            SnapshotVerb::Restore(restore) => restore.run(),
            SnapshotVerb::List(list) => list.run(),
            SnapshotVerb::Show(show) => show.run(),
            SnapshotVerb::Verify(verify) => verify.run(),
            SnapshotVerb::Flatten(flatten) => flatten.run(),
            SnapshotVerb::Delete(delete) => delete.run(),
        }
    }
}

/// How these verbs find the running program, and how they answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Running {
    /// The control socket of the running dcd: unix:PATH or tcp:HOST:PORT. Default: that of a bare `dcd run`.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) qmp: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
