//! `dcd sim`: runs seeds of the simulator on all cores, and ends at the first in which something is wrong with its
//! journal, the few inputs that show it, and the line that replays it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, bail};
use device::laws::LAWS;
use replay::{Fold, History};
use serde_json::{Map, Value, json};
use sim::{Coverage, CrashPoints, Failure, Options, Outcome, Tally, simulate};

use crate::progress::Progress;
use crate::question::Asked;
use crate::shrink::CutDown;
use crate::{Differs, fork, print_line, shell};

/// Seeds, where nobody says how many nor which.
const SEEDS: u64 = 100;

/// Simulate hosts, fabric managers, crashes and disk faults around the device, seed by seed, and check every law.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: dcd sim --seeds 10000\n         dcd sim --seed 7 --keep /tmp/seven && dcd replay /tmp/seven\n\n\
                        A seed and a number of steps are a run: the same journal, byte for byte, on every machine. The exit code is \
                        0 only if nothing is wrong in any; else the journal of the first seed is kept, cut down where a \
                        law is broken or deciding panics, and the last line runs it again."
)]
pub(crate) struct Sim {
    /// How many seeds; default: 1 where --seed names one, else 100.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many things are done in each, by whomever.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    steps: u64,
    /// Try at every write all that a disk may hold then, not only where the run crashes. Slower; the run is the same.
    #[arg(long)]
    every_crash_point: bool,
    /// Where to keep the journal: of the seed in which something is wrong (default: in the directory for temporary
    /// files), or of a single seed whatever comes of it.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print one JSON object, which also says what the runs came across.
    #[arg(long)]
    json: bool,
}

/// What came of all seeds.
#[derive(Default)]
struct Done {
    tally: Tally,
    coverage: Coverage,
    /// The last run, if nothing was wrong in it.
    outcome: Option<Outcome>,
    /// The lowest seed in which something is wrong.
    failure: Option<Box<Failure>>,
}

impl Sim {
    /// Simulates.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let seeds = self.range()?;
        if let Some(dir) = self.keep.as_deref().filter(|dir| dir.exists()) {
            bail!("{} is there already: name another place with --keep DIR", dir.display());
        }
        // What panics is told with its seed.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let begun = Instant::now();
        let done = self.all(seeds.clone());
        let real_s = begun.elapsed().as_secs_f64();
        std::panic::set_hook(hook);
        if let Some(failure) = done.failure {
            return self.fail(*failure);
        }
        if self.json {
            print_line(&self.json_of(&seeds, &done, real_s).to_string())?;
        } else {
            print_text(&seeds, self.steps, &done.tally, real_s)?;
        }
        match (self.keep.as_deref(), done.outcome) {
            (Some(dir), Some(Outcome { genesis, records, .. })) if seeds.end - seeds.start == 1 => {
                fork::write(dir, &genesis, &Fold::new(&genesis)?, &records)?;
                if self.json { Ok(()) } else { print_line(&format!("its journal: dcd replay {}", shell::path(dir))) }
            }
            _ => Ok(()),
        }
    }

    fn range(&self) -> anyhow::Result<Range<u64>> {
        let first = self.seed.unwrap_or_default();
        let seeds = self.seeds.unwrap_or(if self.seed.is_some() { 1 } else { SEEDS });
        let end = first.checked_add(seeds).with_context(|| format!("there are no {seeds} seeds from {first} on"))?;
        if seeds == 0 {
            bail!("no seeds: ask for at least one with --seeds");
        }
        Ok(first..end)
    }

    /// Runs them on all cores. Workers take them in their order and none above one that failed, so that the one that is
    /// told is the lowest, whatever the machine.
    fn all(&self, seeds: Range<u64>) -> Done {
        let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
        let count = seeds.end - seeds.start;
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(count as usize);
        let mut progress = Progress::new("sim");
        let mut done = Done::default();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..cores {
                let (tell, next, end) = (tell.clone(), &next, &end);
                scope.spawn(move || {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end.load(Ordering::Relaxed) {
                            break;
                        }
                        let outcome = simulate(&self.options(seed));
                        if outcome.is_err() {
                            end.fetch_min(seed, Ordering::Relaxed);
                        }
                        // The other end hears until all have hung up.
                        tell.send(outcome).ok();
                    }
                });
            }
            drop(tell);
            for (number, outcome) in (1..).zip(told) {
                progress.bar(number, count);
                done.take(outcome);
            }
        });
        done
    }

    fn options(&self, seed: u64) -> Options {
        let crash_points = if self.every_crash_point { CrashPoints::Every } else { CrashPoints::Taken };
        Options { seed, steps: self.steps, crash_points }
    }

    fn json_of(&self, seeds: &Range<u64>, done: &Done, real_s: f64) -> Value {
        let Done { tally, coverage, .. } = done;
        let coverage: Map<_, _> = coverage.iter().map(|(what, count)| (what.to_owned(), json!(count))).collect();
        json!({
            "seed": seeds.start, "seeds": seeds.end - seeds.start, "steps": self.steps,
            "records": tally.records, "refusals": tally.refusals, "acceptances": tally.acceptances, "crashes": tally.crashes,
            "lost": tally.lost, "faults": tally.faults, "crash-points": tally.crash_points, "laws": LAWS.len(),
            "simulated-s": tally.simulated_ns as f64 / 1e9, "real-s": real_s,
            "records-per-s": tally.records as f64 / real_s, "failure": null, "coverage": coverage,
        })
    }

    /// Keeps what is wrong and says how to look at it; the last line is the one that runs it again.
    fn fail(&self, failure: Failure) -> anyhow::Result<()> {
        let dir = self.place(failure.seed)?;
        fork::write(&dir, &failure.genesis, &Fold::new(&failure.genesis)?, &failure.records)?;
        let cut_down = failure.question().map(|question| {
            let history = History::new(failure.genesis.clone(), failure.records.clone())?;
            CutDown::of(Asked { dir: dir.clone(), history }, question, None)
        });
        let again = failure.command();
        let look = format!("dcd replay {} --until {}", shell::path(&dir), failure.last().0);
        if self.json {
            let shrunk = cut_down.map(|cut_down| cut_down.map_or_else(|e| json!(format!("{e:#}")), |it| it.json()));
            let failure = json!({
                "seed": failure.seed, "steps": self.steps, "wrong": failure.wrong.to_string(), "record": failure.last().0,
                "journal": dir, "shrunk": shrunk, "look": look, "replay": again,
            });
            print_line(&json!({ "failure": failure }).to_string())?;
            return Err(Differs.into());
        }
        match cut_down {
            Some(Ok(cut_down)) => cut_down.print(false)?,
            // The run shows it and its journal does not: one of them is wrong, which is worth as much.
            Some(Err(error)) => print_line(&format!("it cannot be cut down: {error:#}"))?,
            None => {}
        }
        bail!("seed {}: {}\nits journal: {look}\nreplay with: {again}", failure.seed, failure.wrong)
    }

    /// Where the journal of a failure goes.
    fn place(&self, seed: u64) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.keep {
            return Ok(dir.clone());
        }
        let prefix = format!("dcd-sim-{seed}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().context("a place for the journal")?;
        Ok(Path::join(&dir.keep(), "journal"))
    }
}

impl Done {
    fn take(&mut self, outcome: Result<Outcome, Box<Failure>>) {
        match outcome {
            Ok(outcome) => {
                self.tally += outcome.tally;
                self.coverage += outcome.coverage.clone();
                self.outcome = Some(outcome);
            }
            Err(failure) => {
                if self.failure.as_ref().is_none_or(|other| failure.seed < other.seed) {
                    self.failure = Some(failure);
                }
            }
        }
    }
}

fn print_text(seeds: &Range<u64>, steps: u64, tally: &Tally, real_s: f64) -> anyhow::Result<()> {
    let Tally { records, refusals, acceptances, crashes, lost, faults, crash_points, simulated_ns } = *tally;
    let simulated_s = simulated_ns as f64 / 1e9;
    print_line(&format!(
        "seeds {} to {}, {steps} steps each: {records} records, {} laws hold after each",
        seeds.start,
        seeds.end - 1,
        LAWS.len()
    ))?;
    print_line(&format!("{acceptances} offers taken by hosts, {refusals} requests refused"))?;
    print_line(&format!(
        "{crashes} crashes, {faults} of them by a fault of the disk, {crash_points} crash points: every answered record \
         came back, {lost} that nobody knew of did not"
    ))?;
    print_line(&format!(
        "{} simulated in {}: {:.0} times real time, {:.0} records/s",
        span(simulated_s),
        span(real_s),
        simulated_s / real_s,
        records as f64 / real_s
    ))
}

/// A span of time as people say it.
fn span(s: f64) -> String {
    match s {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_said_in_its_unit() {
        assert_eq!([1.25, 119.0, 120.0, 7200.0].map(span), ["1.2 s", "119.0 s", "2.0 min", "2.0 h"]);
    }
}
