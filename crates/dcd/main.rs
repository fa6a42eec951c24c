//! `dcd`: an emulator of a CXL Type 3 Dynamic Capacity Device with tagged memory, over a durable journal.
//!
//! One file a verb. Deliberately absent: everything that a verb does not need to read its options and print its answer.
#![forbid(unsafe_code)]

mod accel;
mod add;
mod bisect;
mod client;
mod config_file;
mod config_schema;
mod date;
mod demo;
mod diff;
mod fd_store;
mod fork;
mod inherited;
mod inspect;
mod journal_compact;
mod journal_file;
mod journal_salvage;
mod journal_stats;
mod journal_verb;
mod journal_verify;
mod kept_memory;
mod laws;
mod list;
mod options;
mod owner;
mod parted;
mod patch;
mod place;
mod progress;
mod qmp_doc;
mod qtest;
mod question;
mod reading;
mod release;
mod replay_verb;
mod run;
mod schema_verb;
mod service_manager;
mod shell;
mod shrink;
mod sim;
mod size;
mod snapshot_delete;
mod snapshot_flatten;
mod snapshot_job;
mod snapshot_list;
mod snapshot_place;
mod snapshot_restore;
mod snapshot_save;
mod snapshot_show;
mod snapshot_verb;
mod snapshot_verify;
mod status;
mod table;
mod takeover;
mod vm_parts;
mod watch;
mod whatif;
mod why;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A CXL Type 3 Dynamic Capacity Device with tagged memory, emulated over a durable journal.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Run(Box<run::Run>),
    Add(add::Add),
    Release(release::Release),
    Status(status::Status),
    List(list::List),
    Watch(watch::Watch),
    Snapshot(snapshot_verb::Snapshot),
    Journal(journal_verb::Journal),
    Replay(replay_verb::Replay),
    Inspect(inspect::Inspect),
    Why(why::Why),
    Diff(diff::Diff),
    Bisect(bisect::Bisect),
    Whatif(whatif::Whatif),
    Shrink(shrink::Shrink),
    Sim(sim::Sim),
    Laws(laws::Laws),
    QmpDoc(qmp_doc::QmpDoc),
    Schema(schema_verb::Schema),
}

/// The program's name and version, as journals remember it.
const BUILD: &str = concat!("dcd ", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    // A simulated crash leaves torn groups by the thousand, which is what it is for.
    // What sled warns of, of a copy that is read, is said again by who reads it, with what to do.
    let level = if matches!(verb, Verb::Sim(_)) { "error" } else { "warn,sled=error" };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("DCD_LOG").unwrap_or_else(|_| level.into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
    let done = match verb {
        Verb::Demo(demo) => demo.run(),
        Verb::Run(run) => run.run(),
        Verb::Add(add) => add.run(),
        Verb::Release(release) => release.run(),
        Verb::Status(status) => status.run(),
        Verb::List(list) => list.run(),
        Verb::Watch(watch) => watch.run(),
        Verb::Snapshot(snapshot) => snapshot.run(),
        Verb::Journal(journal) => journal.run(),
        Verb::Replay(replay) => replay.run(),
        Verb::Inspect(inspect) => inspect.run(),
        Verb::Why(why) => why.run(),
        Verb::Diff(diff) => diff.run(),
        Verb::Bisect(bisect) => bisect.run(),
        Verb::Whatif(whatif) => whatif.run(),
        Verb::Shrink(shrink) => shrink.run(),
        Verb::Sim(sim) => sim.run(),
        Verb::Laws(laws) => laws.run(),
        Verb::QmpDoc(doc) => doc.run(),
        Verb::Schema(schema) => schema.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        // It has been said what differs.
        Err(error) if error.is::<Differs>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dcd: {}", in_words(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, of which none is said twice: some errors have their cause in their own words.
fn in_words(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |words, cause| match cause.to_string() {
        cause if words.contains(&cause) => words,
        cause => format!("{words}: {cause}"),
    })
}

/// The answer is no, and it has been printed.
#[derive(Debug)]
struct Differs;

impl std::fmt::Display for Differs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("they differ")
    }
}

impl std::error::Error for Differs {}

/// A reader that has seen enough (`dcd … | head`) is no error. A broken pipe to anybody else is one: a `dcd snapshot save` whose
/// program ended once said nothing, and that all was well.
#[derive(Debug)]
struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads what is printed")
    }
}

impl std::error::Error for ReaderGone {}

/// Prints a line at once; a reader that is gone is an error, not a panic.
fn print_line(line: &str) -> anyhow::Result<()> {
    print_text(&format!("{line}\n"))
}

/// Prints lines as [`print_line`] prints one.
fn print_text(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => error.into(),
    })
}
