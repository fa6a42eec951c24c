//! `dcd journal export`, `import`, `pack`: a journal as one file, and back.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use journal::portable::{About, Attached, read_file, write_file_with};
use journal::record::Genesis;
use journal::{Recovered, Sealing};
use replay::Followed;

use crate::journal_verb::Opened;
use crate::reading::Reading;
use crate::{BUILD, print_line, shell, snapshot_place};

/// Write a journal into one file: the same journal gives the same bytes.
#[derive(Debug, clap::Args)]
#[command(
    allow_missing_positional = true,
    after_help = "Example: dcd journal export ~/.local/state/dcd/journal run.dcd\n\n\
                  Every verb that reads a journal takes the file too."
)]
pub(crate) struct Export {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    /// The file to make; it must not be there.
    file: PathBuf,
}

/// Make a directory of a journal that is one file, frame for frame the same, to resume it or to go on with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd journal import run.dcd /tmp/run && dcd run --journal /tmp/run")]
pub(crate) struct Import {
    /// The file.
    file: PathBuf,
    /// The directory to make; it must hold no journal.
    dir: PathBuf,
}

/// Write the one file of a bug report: a journal, and what it was recorded on.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "dcd journal pack [OPTIONS] [JOURNAL] <FILE>",
    after_help = "Example: dcd journal pack bug.dcd && dcd replay bug.dcd\n\n\
                  Beside the journal it says the configuration, the builds and this host's kernel and architecture; dcd journal \
                  verify prints that. In the journal are the paths of backends and the payloads of the guest's commands, not \
                  the contents of its memory.\n\n\
                  With --snapshot the state of a snapshot goes with it: devices, registers and processors, whose registers hold \
                  what the guest had in them; not the contents of memories, so that nothing is restored from it. Look into it \
                  with: dcd inspect --snapshot FILE. A build from before this option does not read such a file, and says so."
)]
pub(crate) struct Pack {
    /// The journal, a directory or a file (not named: that of the snapshot, or of the latest bare `dcd run`), then the file to
    /// make, which must not be there.
    // Two of their own, of which the first may be missing, took no option between them.
    #[arg(value_name = "PLACE", num_args = 1..=2, required = true)]
    places: Vec<PathBuf>,
    /// A snapshot of it whose state goes with it, without the contents of memories.
    #[arg(long, value_name = "DIR/NAME")]
    snapshot: Option<PathBuf>,
}

impl Export {
    /// Exports.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let reading = Reading::open(self.journal.as_deref())?;
        // What a file says of itself goes with it, and what is attached.
        write(&reading, &reading.about.clone().unwrap_or_default(), &reading.attached()?, &self.file)
    }
}

impl Import {
    /// Imports.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let (recovered, _) = read_file(&self.file)?;
        restore(&self.dir, &recovered)?;
        let (link, dir) = (journal::read(&self.dir)?.link(), self.dir.display());
        ensure!(link == recovered.link(), "{dir} ends with the link {link}, and the file with {}", recovered.link());
        print_line(&format!("{dir}: records up to {}, with the link {link} as in the file", recovered.last))?;
        print_line(&format!("replay with: dcd replay {}", shell::path(&self.dir)))
    }
}

/// Sealed as a run would have, so that a question reads no more than it needs; where this build does not even come to the
/// first state, all in one file.
fn restore(dir: &Path, recovered: &Recovered) -> anyhow::Result<()> {
    let start = Genesis::of(recovered).map_err(anyhow::Error::from);
    let start = start.and_then(|genesis| Ok(replay::start_of(&genesis, recovered.base.as_ref())?));
    match start {
        Ok(start) => {
            let (_, follower) = Followed::new(start);
            let (seal_bytes, on_unfit) = (Sealing::SEAL_BYTES, Box::new(|_, _| ()));
            let sealing = Sealing { follower, seal_bytes, keep_bytes: None, on_unfit };
            Ok(journal::restore_sealed(dir, recovered, sealing)?)
        }
        Err(_) => Ok(journal::restore(dir, recovered)?),
    }
}

impl Pack {
    /// Where a run keeps its snapshots: below its journal.
    fn journal_of_snapshot(&self) -> Option<&Path> {
        let snapshots = self.snapshot.as_deref()?.parent().filter(|dir| dir.ends_with("snapshots"))?;
        snapshots.parent().filter(|journal| journal.join("live").is_dir())
    }

    /// Packs.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let (named, file) = match &self.places[..] {
            [journal, file] => (Some(journal.as_path()), file),
            [file] => (self.journal_of_snapshot(), file),
            places => bail!("{} places are named: a journal and a file are wanted", places.len()),
        };
        let reading = Reading::open(named)?;
        let opened = reading.decode()?;
        if let Some(path) = &self.snapshot {
            check_is_of(&opened, path)?;
        }
        let Genesis { config, build, .. } = opened.genesis;
        // A host that does not tell is no reason to have no bug report.
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|error| error.to_string());
        let entries = [
            ("recorded by", build),
            ("packed by", BUILD.to_owned()),
            ("kernel", kernel.trim().to_owned()),
            ("architecture", std::env::consts::ARCH.to_owned()),
            ("config", serde_json::to_string(&config)?),
        ];
        let mut about: Vec<_> = entries.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
        let attached = match &self.snapshot {
            Some(path) => {
                let (said, parts) = snapshot_place::packed(path)?;
                about.push(("snapshot".to_owned(), said));
                parts
            }
            None => reading.attached()?,
        };
        write(&reading, &About(about), &attached, file)
    }
}

/// A state that goes with a journal is one that its records make.
fn check_is_of(opened: &Opened, snapshot: &Path) -> anyhow::Result<()> {
    let saved = snapshot_place::keyframe_at(snapshot)?;
    let (first, last) = (opened.start.last(), opened.records.last().map_or(opened.start.last(), |last| last.stamp.seq));
    let place = snapshot.display();
    ensure!(
        (first..=last).contains(&saved.seq),
        "{place} is of after {}, and the journal has {first} to {last}: name the journal that it was saved of",
        saved.seq
    );
    let mut fold = opened.start.clone();
    opened
        .records
        .iter()
        .take_while(|record| record.stamp.seq <= saved.seq)
        .try_for_each(|record| fold.apply(record))?;
    ensure!(
        *fold.vm() == saved.vm,
        "{place} is of another journal: after {} the state there is another one; name the journal that it was saved of",
        saved.seq
    );
    Ok(())
}

fn write(reading: &Reading, about: &About, attached: &[Attached], path: &Path) -> anyhow::Result<()> {
    write_file_with(path, &reading.recovered, about, attached)?;
    let (file, recovered) = (path.display(), &reading.recovered);
    let len_bytes = std::fs::metadata(path)?.len();
    print_line(&format!(
        "{file}: records up to {} in {len_bytes} bytes, with the link {}",
        recovered.last,
        recovered.link()
    ))?;
    print_line(&format!("replay with: dcd replay {}", shell::path(path)))
}
