//! `dcd replay`: folds a journal, decides it again, and says where the two disagree.

use std::path::PathBuf;

use anyhow::bail;
use device::backends::Holder;
use device::laws::LAWS;
use device::vm::Vm;
use serde_json::json;

use crate::journal_verb::{Opened, open};
use crate::{print_line, size};

/// Fold a journal's facts, decide its inputs again with this build, and print the state or the first disagreement.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd replay ~/.local/state/dcd/journal\n\n\
                        The exit code is 0 only if every record fits, every law holds and every decision is equal.")]
pub(crate) struct Replay {
    /// The journal's directory; default: that of a bare `dcd run`.
    dir: Option<PathBuf>,
    /// Print the final state as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Replays.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let dir = self.dir.clone().map_or_else(crate::place::journal, Ok)?;
        let Opened { genesis, records } = open(&dir)?;
        let total = records.len();
        let replay = replay::replay(&genesis, records)?;
        let vm = replay.fold.vm();
        if self.json {
            let finding = replay.finding.as_ref().map(ToString::to_string);
            print_line(&json!({"records": replay.records, "finding": finding, "state": vm}).to_string())?;
        } else {
            print_line(&format!("{}: {total} records by {}", dir.display(), genesis.build))?;
            print_state(vm)?;
        }
        match replay.finding {
            Some(finding) => bail!("{} of {total} records agree with this build; then\n{finding}", replay.records),
            None if self.json => Ok(()),
            None => print_line(&format!(
                "{total} records fold, {} laws hold after each, every decision is what this build decides",
                LAWS.len() + 1
            )),
        }
    }
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
