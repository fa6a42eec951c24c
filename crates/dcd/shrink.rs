//! `dcd shrink`: the few inputs of a journal that still show what is wrong, as a journal and as a test.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use device::laws::Law;
use journal::form::KEYFRAME_VERSION;
use journal::record::{Genesis, Parent, Record};
use replay::{Fold, PathValue, Question, Search, ShrinkError, Shrunk, Step};
use serde_json::json;

use crate::progress::Progress;
use crate::question::{Asked, replay_line};
use crate::{fork, print_line, print_text, shell, table};

/// Most inputs that are shown to people.
const SHOWN: usize = 40;

/// Cut a journal down to the few inputs that still show a broken law, a value, a panic or another decision.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd shrink ~/.local/state/dcd/journal --law backend-one-owner\n\n\
                        This build decides every candidate. Beside the journal DIR the test DIR.rs is written, ready for \
                        journal/corpus/bugs/.")]
pub(crate) struct Shrink {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    #[command(flatten)]
    question: QuestionOptions,
    /// Where to put the journal; default: beside the one that is shrunk, named after what it shows.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct QuestionOptions {
    /// This law is broken; `dcd laws` lists them.
    #[arg(long, value_name = "NAME")]
    law: Option<String>,
    /// This path has this value.
    #[arg(long, value_name = "PATH=VALUE")]
    path: Option<PathValue>,
    /// Deciding panics.
    #[arg(long)]
    panics: bool,
    /// A recorded decision is not what this build decides.
    #[arg(long)]
    diverges: bool,
}

impl QuestionOptions {
    fn question(&self) -> anyhow::Result<Question> {
        Ok(match self {
            Self { law: Some(name), .. } => Question::Law(Law::named(name)?),
            Self { path: Some(wanted), .. } => Question::Path(wanted.clone()),
            Self { panics: true, .. } => Question::Panics,
            Self { diverges: true, .. } => Question::Diverges,
            _ => bail!("ask for a law, a path, a panic or a divergence"),
        })
    }
}

impl Shrink {
    /// Shrinks.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let asked = Asked::open(self.journal.as_deref())?;
        CutDown::of(asked, self.question.question()?, self.into.as_deref())?.print(self.json)
    }
}

/// What is left of a journal, and where it is written.
pub(crate) struct CutDown {
    asked: Asked,
    question: Question,
    shrunk: Shrunk,
    into: PathBuf,
    test: PathBuf,
}

impl CutDown {
    /// Shrinks a journal, and writes what is left as a journal and as a test.
    pub(crate) fn of(asked: Asked, question: Question, into: Option<&Path>) -> anyhow::Result<Self> {
        // What panics is asked to, hundreds of times.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let mut progress = Progress::new("shrink");
        let tell = &mut |runs: u64, inputs: usize| progress.tell(&format!("{inputs} inputs left after {runs} runs"));
        let shrunk = replay::shrink(&asked.history, &question, tell);
        drop(progress);
        std::panic::set_hook(hook);
        let shrunk = shrunk.map_err(|error| match error {
            // Only what is there can be looked at.
            ShrinkError::Decided { at, .. } => anyhow!("{error}\n{}", asked.replay_line(at)),
            error => error.into(),
        })?;

        let change = format!("shrink {}", shown(&question));
        let into = fork::place(into, &asked.dir, &change);
        let (journal, start) = (asked.dir.display().to_string(), asked.history.start());
        let shared = start.last();
        let parent = Some(Parent { journal, shared, change });
        let genesis = Genesis { parent, ..asked.history.genesis().clone() };
        fork::write(&into, &genesis, start, &shrunk.records)?;
        let test = into.with_file_name(format!("{}.rs", into.file_name().unwrap_or_default().to_string_lossy()));
        std::fs::write(&test, test_text(&asked, &question, &genesis, &shrunk)?)
            .with_context(|| format!("the test {}", test.display()))?;
        Ok(Self { asked, question, shrunk, into, test })
    }

    /// For programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        let Self { question, shrunk: Shrunk { steps, records, from, runs, detail, search, .. }, into, test, .. } = self;
        let from_records: Vec<_> = steps.iter().map(|step| step.record.0).collect();
        json!({
            "question": question.to_string(), "inputs": records.len(), "from": from, "runs": runs, "records": from_records,
            "detail": detail, "is_least": *search == Search::Done, "journal": into, "test": test,
        })
    }

    /// Prints it.
    pub(crate) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            return print_line(&self.json().to_string());
        }
        let Self { asked, question, shrunk, into, test } = self;
        let Shrunk { records, from, runs, detail, search, .. } = shrunk;
        print_line(&format!("{question}: {} of {from} inputs show it, found in {runs} runs", records.len()))?;
        if *search == Search::GivenUp {
            print_line("enough was tried: fewer may show it, too")?;
        }
        let shown = &records[..records.len().min(SHOWN)];
        print_text(&format!("{}\n", table::table(table::rows(asked.history.start(), shown))))?;
        let more = match records.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if !more.is_empty() {
            print_line(&format!(" …{more}: dcd journal show {}", shell::path(into)))?;
        }
        print_line(detail)?;
        let places: Vec<_> = shrunk.steps.iter().take(SHOWN).map(|step| step.record.to_string()).collect();
        print_line(&format!("they are {}{more} of {}", places.join(" "), asked.dir.display()))?;
        print_line(&format!("the test: {}", test.display()))?;
        print_line(&replay_line(into, shrunk.at))
    }
}

/// The question in a few words.
fn shown(question: &Question) -> String {
    match question {
        Question::Law(law) => format!("law {}", law.name),
        Question::Path(wanted) => wanted.to_string(),
        Question::Panics => "panics".into(),
        Question::Diverges => "diverges".into(),
    }
}

/// A test that fails while this build shows it, for journal/corpus/bugs/.
fn test_text(asked: &Asked, question: &Question, genesis: &Genesis, shrunk: &Shrunk) -> anyhow::Result<String> {
    let start = asked.history.start();
    let mut lines = vec![match start.last() {
        device::Seq(0) => json!({"config": genesis.config}).to_string(),
        _ => json!({"config": genesis.config, "state": state(start)}).to_string(),
    }];
    for record in &shrunk.records {
        lines.push(serde_json::to_string(&Step::of(record))?);
    }
    let at = shrunk.steps.last().map_or(device::Seq(0), |step| step.record);
    let call = match question {
        Question::Law(law) => format!("law_holds({:?}, CASE)", law.name),
        Question::Path(wanted) => format!("never_is({:?}, CASE)", wanted.to_string()),
        Question::Panics => "never_panics(CASE)".to_owned(),
        Question::Diverges => format!("decides(CASE, {})", raw(&decided(start, shrunk)?)),
    };
    let name: String =
        shown(question).chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    Ok(format!(
        "//! {} of {}, recorded by {}: {}.\n//!\n//! Cut down from {} inputs by `dcd shrink`.\n\nuse crate::bugs;\n\n\
         const CASE: &str = {};\n\n#[test]\nfn {}_{}() {{\n    bugs::{call};\n}}\n",
        at,
        asked.dir.display(),
        genesis.build,
        shrunk.detail.replace('\n', "\n//! "),
        shrunk.from,
        raw(&format!("\n{}\n", lines.join("\n"))),
        name.trim_matches('_'),
        at.0,
    ))
}

/// The state at which a case begins: a keyframe's form and its bytes.
fn state(start: &Fold) -> serde_json::Value {
    let hex: String = start.to_keyframe().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"form": KEYFRAME_VERSION, "hex": hex})
}

/// What this build decides on the last input: its facts and its reply.
fn decided(start: &Fold, shrunk: &Shrunk) -> anyhow::Result<String> {
    let steps: Vec<_> = shrunk.records.iter().map(Step::of).collect();
    let (records, _) = replay::rerun_all(start.vm().clone(), &steps, replay::Numbers::Own);
    let Record { facts, reply, .. } = records.last().context("a record")?;
    Ok(json!({"facts": facts, "reply": reply}).to_string())
}

/// A raw string literal of a text.
fn raw(text: &str) -> String {
    let longest = text.split(|c| c != '#').map(str::len).max().unwrap_or_default();
    let hashes = "#".repeat(longest + 1);
    format!("r{hashes}\"{text}\"{hashes}")
}
