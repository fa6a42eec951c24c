//! The journal of a VM that is started: opened where it ended, or made.
//!
//! ```text
//!  directory with a journal ── read, fold, compare ──▶ opened, the clock where it stood
//!  directory without one    ──────────────────────────▶ made: power-on state, or a state that another VM was in
//!  none                     ──────────────────────────▶ nothing is kept
//! ```
//!
//! Deliberately absent: host memory, and actors.

use device::vm::Vm as State;
use device::{Seq, VmTime};
use journal::form::{Base, Keyframe};
use journal::record::{Genesis, Parent, RECORD_VERSION};
use journal::{Beginning, Durability, Journal, OpenError, Opening, Options, Sealing, Succession};
use replay::{Fold, Followed};

use crate::fatal::{Fatal, FatalFlag, Raised};
use crate::heir;
use crate::outbox::Outbox;
use crate::refill::Refill;
use crate::restore::Source;
use crate::resume::{check_vm, fold};
use crate::snapshot_error::SnapshotError;
use crate::start::{JournalPlace, StartOptions};
use crate::start_error::StartError;

/// A journal and the state that its records make.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    pub(crate) followed: Option<Followed>,
    /// What waits for the journal.
    pub(crate) outbox: Outbox,
    pub(crate) state: State,
    pub(crate) last: Seq,
    pub(crate) torn_from: Option<Seq>,
    /// What a load that was cut short has left to do.
    pub(crate) refill: Option<Refill>,
}

impl Opened {
    /// A journal that begins at a state.
    fn at(journal: Journal, followed: Option<Followed>, hearers: Hearers, base: Keyframe) -> Self {
        let Keyframe { seq: last, time: _, vm: state } = base;
        Self { journal, followed, outbox: hearers.outbox, state, last, torn_from: None, refill: None }
    }
}

/// Whom the journal tells what.
struct Hearers {
    outbox: Outbox,
    /// The journal's own: it outlives a life.
    fatal: FatalFlag,
}

impl Hearers {
    fn new(raised: &Raised) -> Self {
        let outbox = Outbox::default();
        Self { fatal: FatalFlag::new(raised.clone(), outbox.clone()), outbox }
    }
}

/// Opens the journal that the options name, or makes it.
pub(crate) fn open(options: &StartOptions, raised: &Raised) -> Result<Opened, StartError> {
    let hearers = Hearers::new(raised);
    let config = &options.vm.as_ref().unwrap_or(&options.default_vm).config;
    config.check()?;
    let genesis = Genesis { config: config.clone(), build: options.build.clone(), parent: None };
    let fresh = |journal, followed, outbox| Opened {
        journal,
        followed,
        outbox,
        state: State::new(config.clone()),
        last: Seq(0),
        torn_from: None,
        refill: None,
    };
    match &options.journal {
        JournalPlace::None => {
            let durability = Durability::None;
            let journal_options = journal_options(options, &hearers, VmTime(0));
            Ok(fresh(Journal::volatile(Seq(0), Options { durability, ..journal_options }), None, hearers.outbox))
        }
        JournalPlace::Directory(dir) => match Opening::of(dir) {
            Err(OpenError::Missing { .. }) => {
                let (followed, sealing) = sealing(options, &hearers.fatal, Fold::new(&genesis)?);
                let journal_options = journal_options(options, &hearers, VmTime(0));
                let journal = Journal::create(dir, &genesis.to_bytes(), Options { sealing, ..journal_options })?;
                Ok(fresh(journal, Some(followed), hearers.outbox))
            }
            Err(error) => Err(error.into()),
            // Read first, so that a refused start has changed nothing; then opened with the clock where it stood.
            Ok(opening) => {
                heir::check(dir)?;
                let (base, fold) = fold(opening.recovered())?;
                check_vm(options, fold.vm())?;
                let (last, time) = (fold.last(), fold.time());
                let torn_from = opening.recovered().torn.map(|torn| torn.first);
                let refill = Refill::due(dir, opening.recovered());
                let (followed, sealing) = sealing(options, &hearers.fatal, base);
                let journal_options = journal_options(options, &hearers, time);
                let journal = opening.start(Options { sealing, ..journal_options })?;
                let (followed, outbox) = (Some(followed), hearers.outbox);
                Ok(Opened { journal, followed, outbox, state: fold.into_vm(), last, torn_from, refill })
            }
        },
    }
}

/// What of a journal can be made before its state is known.
pub(crate) struct Prepared(Option<Beginning>);

/// Makes what can be made of a journal that will begin at a state, where the options say that it is to be.
pub(crate) fn prepare(options: &StartOptions) -> Result<Prepared, StartError> {
    match &options.journal {
        JournalPlace::None => Ok(Prepared(None)),
        JournalPlace::Directory(dir) => match Beginning::prepare(dir) {
            Ok(beginning) => Ok(Prepared(Some(beginning))),
            Err(OpenError::Exists { .. }) => Err(SnapshotError::JournalThere { dir: dir.clone() }.into()),
            Err(error) => Err(error.into()),
        },
    }
}

/// Makes a journal that begins at a state that another VM was in.
pub(crate) fn begin(options: &StartOptions, raised: &Raised, base: Base, parent: Parent) -> Result<Opened, StartError> {
    let opened = begin_beside(options, raised, base, parent, prepare(options)?)?;
    opened.journal.flush()?;
    Ok(opened)
}

/// The same, of what was prepared. The state is on the disk when the journal was flushed.
pub(crate) fn begin_beside(
    options: &StartOptions,
    raised: &Raised,
    base: Base,
    parent: Parent,
    prepared: Prepared,
) -> Result<Opened, StartError> {
    let hearers = Hearers::new(raised);
    let keyframe = base.keyframe().clone();
    let (journal, followed) = match prepared.0 {
        None => {
            let journal_options = journal_options(options, &hearers, keyframe.time);
            (Journal::volatile(keyframe.seq, Options { durability: Durability::None, ..journal_options }), None)
        }
        Some(beginning) => {
            let genesis = genesis(options, &keyframe, Some(parent));
            let (followed, sealing) = sealing(options, &hearers.fatal, Fold::from_keyframe(keyframe.clone()));
            let journal_options = Options { sealing, ..journal_options(options, &hearers, keyframe.time) };
            (beginning.begin_beside(&genesis.to_bytes(), base, journal_options)?, Some(followed))
        }
    };
    Ok(Opened::at(journal, followed, hearers, keyframe))
}

/// Supersedes the journal that the options name, which is closed, by one that begins with a snapshot; and says where what was
/// until then is.
pub(crate) fn supersede(
    options: &StartOptions,
    raised: &Raised,
    source: &Source,
) -> Result<(Opened, Option<String>), StartError> {
    let (base, change) = (source.recalled.base.clone(), format!("restored from snapshot {}", source.snapshot.name()));
    let keyframe = base.keyframe().clone();
    let JournalPlace::Directory(dir) = &options.journal else {
        let nowhere = Parent { journal: String::new(), shared: keyframe.seq, change };
        return Ok((begin(options, raised, base, nowhere)?, None));
    };
    let hearers = Hearers::new(raised);
    let (followed, sealing) = sealing(options, &hearers.fatal, Fold::from_keyframe(keyframe.clone()));
    let journal_options = Options { sealing, ..journal_options(options, &hearers, keyframe.time) };
    let succession = Succession::prepare(dir)?;
    let past = succession.past();
    if source.fills_files() {
        Refill::begin(dir, &past, source).map_err(|source| SnapshotError::Mark { dir: dir.clone(), source })?;
    }
    let journal = succession.begin(genesis(options, &keyframe, None), base, &change, journal_options)?;
    Ok((Opened::at(journal, Some(followed), hearers, keyframe), Some(past)))
}

fn genesis(options: &StartOptions, base: &Keyframe, parent: Option<Parent>) -> Genesis {
    Genesis { config: base.vm.config.clone(), build: options.build.clone(), parent }
}

/// How the journal is followed, from a state on.
fn sealing(options: &StartOptions, fatal: &FatalFlag, base: Fold) -> (Followed, Option<Sealing>) {
    let (followed, follower) = Followed::new(base);
    let fatal = fatal.clone();
    let on_unfit = Box::new(move |seq, reason| {
        fatal.raise(Fatal::Unfit { seq, reason });
    });
    let keep_bytes = options.journal_keep_bytes;
    (followed, Some(Sealing { follower, seal_bytes: Sealing::SEAL_BYTES, keep_bytes, on_unfit }))
}

fn journal_options(options: &StartOptions, hearers: &Hearers, clock: VmTime) -> Options {
    let (outbox, fatal) = (hearers.outbox.clone(), hearers.fatal.clone());
    Options {
        durability: options.durability,
        record_version: RECORD_VERSION,
        limit_bytes: options.journal_limit_bytes,
        clock,
        on_durable: Box::new(move |seq| outbox.durable(seq)),
        on_failed: Box::new(move |error, last_durable| {
            fatal.raise(Fatal::Journal { last_durable, reason: error.to_string() });
        }),
        sealing: None,
    }
}
