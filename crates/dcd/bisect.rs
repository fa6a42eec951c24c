//! `dcd bisect`: the first record where a law breaks or a path has a value.
//!
//! Neither question divides a journal in two for certain (a law that is broken may hold again, a value may come back), so
//! that the first record is found by one fold from the first record on, which looks only after records that can matter.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use device::Seq;
use device::laws::Law;
use replay::{Archived, PathValue};
use serde_json::json;

use crate::progress::Progress;
use crate::question::Asked;
use crate::reading::archived;
use crate::{place, print_text};

/// Find the first record after which a law is broken or a path has a value.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd bisect ~/.local/state/dcd/journal --law backend-one-owner\n\
                        Example: dcd bisect --path backends.tm0.holder.state=attached\n\n\
                        The value 'absent' is nothing at the path. The exit code is 0 only if there is such a record.")]
pub(crate) struct Bisect {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    #[command(flatten)]
    question: Question,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Question {
    /// Where this law is broken first; `dcd laws` lists them.
    #[arg(long, value_name = "NAME")]
    law: Option<String>,
    /// Where this path has this value first.
    #[arg(long, value_name = "PATH=VALUE")]
    path: Option<PathValue>,
}

impl Bisect {
    /// Finds it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let place = self.journal.clone().map_or_else(place::journal, Ok)?;
        // A long journal is read no further than to the answer.
        let (archived, _tail) = archived(&place)?;
        let mut progress = Progress::new("bisect");
        let progress_bar = &mut |done, total| progress.bar(done, total);
        let (what, found) = match (&self.question.law, &self.question.path) {
            (Some(name), _) => {
                let law = Law::named(name)?;
                let found = archived.first_broken(law, progress_bar)?;
                let found = found.map(|((seq, broken), history)| (seq, broken.detail, history));
                (format!("law {name} is broken"), found)
            }
            (None, Some(wanted)) => {
                let found = archived.first_value(wanted, progress_bar)?;
                (wanted.to_string(), found.map(|(seq, history)| (seq, String::new(), history)))
            }
            (None, None) => bail!("ask for a law or for a path"),
        };
        drop(progress);
        let Some((seq, detail, history)) = found else { return Err(self.none(&archived, &what)) };
        self.print(&Asked { dir: place, history }, &what, seq, &detail)
    }

    /// That it is never so: because there is never such a path, or never one value at it, or just so.
    fn none(&self, archived: &Archived, what: &str) -> anyhow::Error {
        let records = archived.last().0 - archived.before().0;
        let none = anyhow!("'{what}' is so after none of the {records} records");
        let Some(wanted) = &self.question.path else { return none };
        let mut progress = Progress::new("bisect");
        match archived.stood(&wanted.path, &mut |done, total| progress.bar(done, total)) {
            Ok(stood) => stood.and_then(|stood| stood.refusal(&wanted.path)).map_or(none, Into::into),
            Err(error) => error.into(),
        }
    }

    fn print(&self, asked: &Asked, what: &str, seq: Seq, detail: &str) -> anyhow::Result<()> {
        if seq == asked.history.start().last() {
            let line = json!({"question": what, "record": seq.0});
            let whence = match seq {
                Seq(0) => "from the start".to_owned(),
                seq => format!("at {seq} already, where the journal begins"),
            };
            return print_text(&if self.json { format!("{line}\n") } else { format!("{what} {whence}\n") });
        }
        let record = asked.history.record(seq).context("the record")?;
        if self.json {
            let row = asked.row(record);
            let line = json!({"question": what, "record": seq.0, "detail": detail, "row": row});
            return print_text(&format!("{line}\n"));
        }
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let lines = [format!("{what} first after {seq}{detail}"), asked.told(record), asked.replay_line(seq)];
        print_text(&format!("{}\n", lines.join("\n")))
    }
}
