//! `dcd replay`: folds a journal, checks the laws, decides it again, and says where that disagrees.

use std::path::PathBuf;

use anyhow::bail;
use device::Seq;
use device::backends::Holder;
use device::inspect::{self, Path};
use device::laws::LAWS;
use device::vm::Vm;
use replay::{HistoryError, Position, Replay as Replayed, lineage};
use serde_json::json;

use crate::journal_verify::span;
use crate::progress::Progress;
use crate::question::{Asked, json_of_all, lines_of};
use crate::{print_line, print_text, size};

/// Fold a journal's facts, check the laws, decide its inputs again with this build, and print the state.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: dcd replay ~/.local/state/dcd/journal --until law:backend-one-owner --state backends\n\n\
                        The exit code is 0 only if every record fits and every law holds; with --check, also only if \
                        every decision is what this build decides. The state never depends on what it would decide."
)]
pub(crate) struct Replay {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    /// Stop after a record (312), at a time of the VM clock (1.5s, 250ms, 5m, 1h) or where a law is broken first (law:NAME).
    #[arg(long, value_name = "#N|TIME|law:NAME")]
    until: Option<Position>,
    /// Print what stands at this path instead of the summary.
    #[arg(long, value_name = "PATH")]
    state: Option<Path>,
    /// Fail at the first decision that this build would make otherwise.
    #[arg(long)]
    check: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Replays.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let asked = Asked::open(self.journal.as_deref())?;
        let until = match self.until {
            Some(position) => position.of(&asked.history)?,
            None => asked.history.last(),
        };
        let mut progress = Progress::new("replay");
        let records = asked.history.records_up_to(until)?;
        let replayed = replay::replay(asked.history.start().clone(), records, &mut |done| {
            progress.show(done, records.len() as u64)
        })?;
        drop(progress);
        let at = replayed.fold.last();
        let path = self.state.clone().unwrap_or_default();
        let values = if self.json || self.state.is_some() {
            inspect::values(replayed.fold.vm(), &path).map_err(|error| HistoryError::Path { at, error })?
        } else {
            Vec::new()
        };
        if self.json {
            print_line(&self.json_of(&asked, &replayed, until, &values).to_string())?;
        } else if self.state.is_some() {
            print_text(&lines_of(&values))?;
        } else {
            print_summary(&asked, until)?;
            print_state(replayed.fold.vm())?;
        }
        self.verdict(&asked, &replayed, until)
    }

    fn json_of(
        &self,
        asked: &Asked,
        replayed: &Replayed,
        until: Seq,
        values: &[(String, inspect::Value)],
    ) -> serde_json::Value {
        let broken = replayed
            .broken
            .as_ref()
            .map(|(seq, broken)| json!({"record": seq.0, "law": broken.name, "detail": broken.detail}));
        json!({
            "journal": asked.dir, "build": asked.history.genesis().build, "parent": asked.history.genesis().parent,
            "before": asked.history.start().last().0, "until": until.0, "records": replayed.records, "equal": replayed.equal, "laws": LAWS.len(),
            "broken": broken, "time-ns": replayed.fold.time().0,
            "divergence": replayed.divergence.as_ref().map(ToString::to_string),
            "finding": replayed.finding().map(|finding| finding.to_string()),
            "state": json_of_all(values),
        })
    }

    /// What is wrong, or that nothing is.
    fn verdict(&self, asked: &Asked, replayed: &Replayed, until: Seq) -> anyhow::Result<()> {
        let before = asked.history.start().last().0;
        let total = until.0 - before;
        if let Some(divergence) = replayed.divergence.as_ref().filter(|_| self.check) {
            let line = asked.replay_line(divergence.seq);
            bail!(
                "{} of {total} records agree with this build; then\n{divergence}\n{line} --check",
                divergence.seq.0 - 1 - before
            );
        }
        // Who asks for the place where a law breaks knows that it does.
        let is_asked = matches!(self.until, Some(Position::Law(_)));
        if let Some(fault) = replayed.fault().filter(|_| !is_asked) {
            let at = replayed.broken.as_ref().map_or(Seq(replayed.fold.last().0 + 1), |(seq, _)| *seq);
            let done = at.0 - 1 - before;
            bail!("{done} of {total} records fold and keep the laws; then\n{fault}\n{}", asked.replay_line(at));
        }
        if self.json || self.state.is_some() {
            return Ok(());
        }
        let laws = match &replayed.broken {
            Some((seq, broken)) => format!("\nfrom {seq} on {broken}\n"),
            None => format!(", {} laws hold after each, ", LAWS.len()),
        };
        let decisions = match &replayed.divergence {
            None => "every decision is what this build decides".to_owned(),
            Some(divergence) => format!(
                "{} of {total} decisions are what this build decides; the first other one:\n{divergence}",
                replayed.equal
            ),
        };
        print_line(&format!("{} records fold{laws}{decisions}", replayed.records))
    }
}

fn print_summary(asked: &Asked, until: Seq) -> anyhow::Result<()> {
    let (genesis, records) = (asked.history.genesis(), asked.history.records());
    let (place, start) = (asked.dir.display(), asked.history.start());
    print_line(&format!("{place}: {} records by {}, {}", records.len(), genesis.build, span(records)))?;
    for line in lineage(genesis, start.last()) {
        print_line(&line)?;
    }
    if until < asked.history.last() {
        let time = asked.history.record(until).map_or(start.time(), |record| record.stamp.time);
        print_line(&format!("after {until}, at {:.3} ms:", time.0 as f64 / 1e6))?;
    }
    Ok(())
}

fn print_state(vm: &Vm) -> anyhow::Result<()> {
    for device in vm.devices.values() {
        let extents = &device.extents;
        let held: u64 = extents.accepted().iter().map(|extent| extent.range.len_bytes).sum();
        print_line(&format!(
            "{}: {} offers, {} extents of {} in all, generation {}, {} event records",
            device.config.id,
            extents.offers().len(),
            extents.accepted().len(),
            size::people(held),
            extents.generation(),
            extents.log().len()
        ))?;
        for extent in extents.accepted().listed() {
            let seen: Vec<_> = device.windows.hpas_of(extent.range).iter().map(ToString::to_string).collect();
            let seen = if seen.is_empty() { "nowhere".to_owned() } else { seen.join(" ") };
            print_line(&format!(
                "  {} {} of {} at {:#x}, tag {}, seen at {seen}",
                extent.accepted, extent.range, extent.backend, extent.offset_bytes, extent.tag
            ))?;
        }
    }
    for (id, backend) in vm.backends.iter() {
        let name = |index| vm.device_id(index);
        let holder = match backend.holder {
            Holder::Free => "free".to_owned(),
            Holder::Reserved { device, by } => format!("reserved by {}, {by}", name(device)),
            Holder::Attached { device, by } => format!("attached to {}, {by}", name(device)),
            Holder::Memdev { device, by } => format!("the memory of {}, {by}", name(device)),
        };
        print_line(&format!("backend {id}: {}, {holder}", size::people(backend.spec.size_bytes)))?;
    }
    Ok(())
}
