//! `dcd journal salvage`: takes out of a damaged journal what is intact.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use device::Seq;
use journal::portable::{About, write_file};
use journal::{Recovered, Stored, remains};

use crate::reading::intact;
use crate::{print_line, shell, size};

/// Take every intact record out of what is left of a journal, by the records' own frames.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd journal salvage /tmp/broken whole.dcd && dcd replay whole.dcd\n\n\
                        The raw bytes of every file below the directory (or of the one file) are searched; the database is not \
                        asked. The records from the first to the first gap are written as an ordinary journal. What stands \
                        behind a gap cannot be folded, for what it builds on is missing: it is written beside it to be read, as \
                        `dcd journal show --json` prints records. What is salvaged is left as it is.")]
pub(crate) struct Salvage {
    /// What is left: a directory or a file.
    remains: PathBuf,
    /// Where to put the intact records: a file if the name ends with .dcd, else a directory; it must not be there.
    out: PathBuf,
}

impl Salvage {
    /// Salvages.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let (from, out) = (self.remains.display(), self.out.display());
        ensure!(!self.out.exists(), "{out} is there already: name another place");
        let remains = remains::find(&self.remains)?;
        let files = if remains.files == 1 { "file" } else { "files" };
        let read = format!("{} {files}, {}", remains.files, size::people(remains.len_bytes));
        if let Some(prefix) = &remains.prefix {
            write(&self.out, prefix)?;
            print_line(&format!("{from}: {}, found in {read}", intact(prefix)))?;
            print_line(&format!("it ends at {}, whose link is {}", prefix.last, remains.link))?;
        }
        if let Some(prefix) = remains.prefix.as_ref().filter(|prefix| remains.whole < Some(prefix.last)) {
            let first = remains.whole.map_or(0, |whole| whole.0 + 1);
            print_line(&format!(
                "{}-{} stand in groups that are not whole: perhaps they were never durable, and nobody was told of them",
                Seq(first),
                prefix.last.0
            ))?;
        }
        for (first, last) in remains.gaps() {
            let range = if first == last { format!("{first} is") } else { format!("{first}-{} are", last.0) };
            print_line(&format!("{range} missing"))?;
        }
        for row in &remains.beyond {
            self.print_beyond(row)?;
        }
        match remains.prefix {
            Some(_) => print_line(&format!("replay with: dcd replay {}", shell::path(&self.out))),
            None => bail!("{from}: no genesis was found in {read}, and without it no journal can be made"),
        }
    }

    /// Writes a row behind a gap where it can be read.
    fn print_beyond(&self, row: &[Stored]) -> anyhow::Result<()> {
        let (Some(first), Some(last)) = (row.first(), row.last()) else { return Ok(()) };
        let mut path = self.out.as_os_str().to_owned();
        path.push(format!(".beyond-{}.jsonl", first.seq.0));
        let path = PathBuf::from(path);
        write_rows(&path, row).with_context(|| format!("the records behind the gap, in {}", path.display()))?;
        let range = if row.len() == 1 { first.seq.to_string() } else { format!("{}-{}", first.seq, last.seq.0) };
        print_line(&format!("behind the gap {range}: written to {}, to be read, not replayed", path.display()))
    }
}

fn write(out: &Path, prefix: &Recovered) -> anyhow::Result<()> {
    if out.extension().is_some_and(|extension| extension == "dcd") {
        write_file(out, prefix, &About::default())?;
    } else {
        journal::restore(out, prefix)?;
    }
    Ok(())
}

/// One JSON object a record; of one that this build does not read, its sequence and why.
fn write_rows(path: &Path, row: &[Stored]) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::fs::File::create_new(path)?);
    for stored in row {
        match replay::record_of(stored) {
            Ok(record) => serde_json::to_writer(&mut out, &record)?,
            Err(error) => {
                serde_json::to_writer(
                    &mut out,
                    &serde_json::json!({"seq": stored.seq.0, "error": format!("{error:#}")}),
                )?;
            }
        }
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
