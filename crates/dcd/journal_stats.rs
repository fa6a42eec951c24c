//! `dcd journal stats`: what a journal is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use device::operation::{Input, Reply};
use device::{extents, mailbox};
use journal::frame::HEADER_LEN_BYTES;
use journal::record::{Record, RecordedReply};
use serde_json::{Value as Json, json};
use wire::ReturnCode;

use crate::journal_verb::Opened;
use crate::journal_verify::span;
use crate::reading::Reading;
use crate::{print_line, print_text, table};

/// Longest bodies that are named.
const LONGEST: usize = 5;

/// Count a journal's records, bytes and refusals.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd journal stats run.dcd --json")]
pub(crate) struct Stats {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Records of one kind.
#[derive(Default)]
struct Tally {
    records: u64,
    body_bytes: u64,
}

#[derive(Default)]
struct Counted {
    kinds: BTreeMap<(&'static str, String), Tally>,
    refusals: BTreeMap<String, u64>,
    /// Sequence, bytes and what it is.
    longest: Vec<(u64, u64, String)>,
    body_bytes: u64,
    frame_bytes: u64,
    stored_bytes: u64,
}

impl Stats {
    /// Counts.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let reading = Reading::open(self.journal.as_deref())?;
        let opened = reading.decode()?;
        let mut counted = Counted { stored_bytes: stored_bytes(&reading.place)?, ..Counted::default() };
        counted.count(&reading, &opened.records)?;
        if self.json {
            print_line(&counted.json(&reading, &opened).to_string())
        } else {
            print_text(&counted.told(&reading, &opened))
        }
    }
}

impl Counted {
    fn count(&mut self, reading: &Reading, records: &[Record]) -> anyhow::Result<()> {
        // Behind a state the genesis is in no frame.
        let is_framed = reading.recovered.base.is_none();
        self.body_bytes = if is_framed { reading.recovered.genesis.len() as u64 } else { 0 };
        for (stored, record) in reading.recovered.records.iter().zip(records) {
            let len_bytes = stored.body.len() as u64;
            let (actor, kind) = (replay::actor_name(record.actor()), kind(&record.input)?);
            self.longest.push((stored.seq.0, len_bytes, kind.clone()));
            let tally = self.kinds.entry((actor, kind)).or_default();
            tally.records += 1;
            tally.body_bytes += len_bytes;
            self.body_bytes += len_bytes;
            if let Some(refusal) = refusal(&record.reply)? {
                *self.refusals.entry(refusal).or_default() += 1;
            }
        }
        self.longest.sort_by_key(|(seq, len_bytes, _)| (std::cmp::Reverse(*len_bytes), *seq));
        self.longest.truncate(LONGEST);
        self.frame_bytes = self.body_bytes + (records.len() as u64 + u64::from(is_framed)) * HEADER_LEN_BYTES as u64;
        Ok(())
    }

    fn told(&self, reading: &Reading, opened: &Opened) -> String {
        let Opened { genesis, start: _, records } = opened;
        let place = reading.place.display();
        let mut lines = format!("{place}: {} records by {}, {}", records.len(), genesis.build, span(records));
        lines.push_str(&per_second(records).map(|per| format!(", {per:.0} records/s\n")).unwrap_or("\n".into()));
        lines.push_str(&opened.lineage());
        let held = if reading.about.is_some() { "in the file, packed" } else { "in the directory" };
        lines.push_str(&format!(
            "{} bytes of bodies, {} of frames, {} {held}\n",
            self.body_bytes, self.frame_bytes, self.stored_bytes
        ));
        let row = |((actor, kind), tally): (&(&str, String), &Tally)| {
            [(*actor).to_owned(), kind.clone(), tally.records.to_string(), tally.body_bytes.to_string()]
        };
        lines.push_str(&table::columns(["actor", "input", "records", "bytes"], self.kinds.iter().map(row)));
        let longest = self.longest.iter().map(|(seq, bytes, kind)| format!("#{seq} {bytes} bytes ({kind})"));
        lines.push_str(&format!("\nlongest bodies: {}\n", longest.collect::<Vec<_>>().join(", ")));
        let refusals = self.refusals.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>();
        lines.push_str(&match refusals.is_empty() {
            true => "no refusals\n".to_owned(),
            false => format!("refusals: {}\n", refusals.join(", ")),
        });
        lines
    }

    fn json(&self, reading: &Reading, Opened { genesis, start, records }: &Opened) -> Json {
        let kind = |((actor, kind), tally): (&(&str, String), &Tally)| json!({"actor": actor, "input": kind, "records": tally.records, "body-bytes": tally.body_bytes});
        let longest =
            |(seq, bytes, kind): &(u64, u64, String)| json!({"record": seq, "body-bytes": bytes, "input": kind});
        let time = |record: Option<&Record>| record.map(|record| record.stamp.time.0);
        json!({
            "journal": reading.place, "build": genesis.build, "parent": genesis.parent, "before": start.last().0,
            "records": records.len(),
            "first-time-ns": time(records.first()), "last-time-ns": time(records.last()),
            "records-per-second": per_second(records),
            "bytes": {"bodies": self.body_bytes, "frames": self.frame_bytes, "stored": self.stored_bytes},
            "packed": reading.about.is_some(),
            "inputs": self.kinds.iter().map(kind).collect::<Vec<_>>(),
            "longest": self.longest.iter().map(longest).collect::<Vec<_>>(),
            "refusals": self.refusals, "link": reading.recovered.link().to_string(),
        })
    }
}

/// Records in a second of the VM clock, if any of it has passed.
fn per_second(records: &[Record]) -> Option<f64> {
    let ns = records.last()?.stamp.time.0.saturating_sub(records.first()?.stamp.time.0);
    (ns > 0).then(|| records.len() as f64 * 1e9 / ns as f64)
}

/// An input's kind: the command's opcode, or the name that the journal's JSON has for it.
fn kind(input: &Input) -> anyhow::Result<String> {
    match input {
        Input::Mailbox(mailbox::Input::Doorbell { opcode, .. })
        | Input::Extents(extents::Input::Command { opcode, .. }) => Ok(opcode.to_string()),
        input => Ok(variant(&serde_json::to_value(input)?, 2)),
    }
}

/// What was refused, by the name that the journal's JSON has for it; a command's return code that is not success.
fn refusal(reply: &RecordedReply) -> anyhow::Result<Option<String>> {
    let failed = |code: ReturnCode| (code != ReturnCode::Success).then(|| code.to_string());
    Ok(match reply {
        RecordedReply::Whole(Reply::Done) => None,
        RecordedReply::Whole(Reply::Refused(refusal)) => Some(variant(&serde_json::to_value(refusal)?, 1)),
        RecordedReply::Whole(Reply::Command(reply)) => failed(reply.return_code),
        RecordedReply::Digest { return_code, .. } => failed(*return_code),
        RecordedReply::Panicked(_) => Some("panic".to_owned()),
    })
}

/// The name of the variant that stands so deep in an enum's JSON.
fn variant(value: &Json, depth: usize) -> String {
    match value {
        Json::String(name) => name.clone(),
        Json::Object(map) => match map.iter().next() {
            Some((_, inner)) if depth > 1 => variant(inner, depth - 1),
            Some((name, _)) => name.clone(),
            None => String::new(),
        },
        other => other.to_string(),
    }
}

/// Bytes of the file, or of the journal in the directory.
fn stored_bytes(place: &Path) -> anyhow::Result<u64> {
    let found = std::fs::metadata(place)?;
    Ok(if found.is_dir() { journal::stored_bytes(place)? } else { found.len() })
}
