//! `dcd journal verify`: whether a journal is what was written.

use std::path::PathBuf;

use anyhow::ensure;
use device::VmTime;
use journal::portable::Attached;
use journal::record::Record;
use serde_json::{Map, Value as Json, json};

use crate::journal_verb::Opened;
use crate::reading::{Reading, archived};
use crate::{print_line, print_text};

/// Read a journal whole and check every frame, its place in the row, its link and its body.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd journal verify ~/.local/state/dcd/journal\n\n\
                        The exit code is 0 only if all of it is what was written. What was cut off behind \
                        the last record without a trace is not seen: compare the last link with one that was written down.")]
pub(crate) struct Verify {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Verifies.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let reading = Reading::open(self.journal.as_deref())?;
        let opened = reading.decode()?;
        check_places(&reading, opened.start.time(), &opened.records)?;
        let keyframes = archived(&reading.place)?.0.check_keyframes()?;
        if self.json {
            print_line(&json_of(&reading, &opened, keyframes)?.to_string())
        } else {
            print(&reading, &opened, keyframes)
        }
    }
}

fn json_of(reading: &Reading, Opened { genesis, start, records }: &Opened, keyframes: u64) -> anyhow::Result<Json> {
    let about = reading.about.iter().flat_map(|about| &about.0);
    let about: Map<_, _> = about.map(|(name, text)| (name.clone(), text.clone().into())).collect();
    let attached = reading.attached()?.into_iter();
    let attached: Vec<_> = attached
        .map(|part| json!({"name": part.name, "version": part.version, "len-bytes": part.bytes.len()}))
        .collect();
    let torn = reading.recovered.torn.map(|torn| json!({"from": torn.first.0, "parts": torn.parts}));
    Ok(json!({
        "journal": reading.place, "build": genesis.build, "parent": genesis.parent, "before": start.last().0,
        "records": records.len(), "last": reading.recovered.last.0, "link": reading.recovered.link().to_string(),
        "keyframes": keyframes, "torn": torn, "about": about, "attached": attached,
    }))
}

fn print(reading: &Reading, opened: &Opened, keyframes: u64) -> anyhow::Result<()> {
    let Opened { genesis, start: _, records } = opened;
    let (place, last) = (reading.place.display(), reading.recovered.last);
    print_line(&format!("{place}: {} records by {}, {}", records.len(), genesis.build, span(records)))?;
    print_text(&opened.lineage())?;
    for (name, text) in reading.about.iter().flat_map(|about| &about.0) {
        print_line(&format!("  {name}: {text}"))?;
    }
    for Attached { name, version, bytes } in reading.attached()? {
        print_line(&format!("  attached: {name}, {} bytes in form {version}", bytes.len()))?;
    }
    if let Some(torn) = reading.recovered.torn {
        print_line(&format!(
            "a torn group from {} on ({} parts) is left out: it was not durable, and nobody was told of it",
            torn.first, torn.parts
        ))?;
    }
    match keyframes {
        0 => {}
        1 => print_line("1 keyframe is the state that the records before it make")?,
        _ => print_line(&format!("{keyframes} keyframes are the states that the records before them make"))?,
    }
    print_line(&format!("{last} is the last record, its link is {}", reading.recovered.link()))?;
    print_line("every frame, its place in the row, its link and its body are right")
}

/// The time that records span.
pub(crate) fn span(records: &[Record]) -> String {
    let ns = |record: Option<&Record>| record.map_or(0, |record| record.stamp.time.0);
    format!("{:.3} ms of the VM clock", ns(records.last()).saturating_sub(ns(records.first())) as f64 / 1e6)
}

/// A record says its sequence too, and time does not go back.
fn check_places(reading: &Reading, start: VmTime, records: &[Record]) -> anyhow::Result<()> {
    let mut before = start;
    for (stored, record) in reading.recovered.records.iter().zip(records) {
        let (seq, time) = (stored.seq, record.stamp.time);
        ensure!(record.stamp.seq == seq, "{seq}: the frame's body says that it is {}", record.stamp.seq);
        ensure!(time >= before, "{seq}: its time is {} ns and that of the record before it {} ns", time.0, before.0);
        before = time;
    }
    Ok(())
}
