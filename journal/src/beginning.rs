//! A journal that begins at a state: what another one has made is its first state, and its first record comes behind that.
//!
//! ```text
//! prepare ─▶ DIR/live/000001, empty; DIR/sealed          no journal yet: a start says that it was never begun
//! begin   ─▶ DIR/sealed/#121-#120.dcds: the state after #120, by one rename ─▶ Journal, whose first record is #121
//!
//! link of the genesis, which is in no frame and stands in the state's file ─▶ #121 ─▶ #122 ...
//! ```
//!
//! The chain begins with the link that the genesis' frame would have: records behind another genesis, or behind another
//! parent, do not continue it. Deliberately absent: the records of the parent, which are asked for where they are.

use std::path::{Path, PathBuf};

use device::{Seq, VmTime};

use crate::{
    directory::{Directory, Generation},
    follower::Row,
    form::{self, Base, Keyframe},
    frame::Chain,
    handle::{Journal, Options, Start},
    keeper::BaseFile,
    keyframe::StoredKeyframe,
    opening::Opening,
    portable::{SEQ_MAX, write_base},
    recover::{OpenError, Stored},
    sled_store::SledStore,
};

/// A directory in which a journal will begin: what can be made before its state is known.
#[derive(Debug)]
pub struct Beginning {
    directory: Directory,
    store: SledStore,
}

/// A journal at its state.
#[derive(Debug)]
pub(crate) struct Begun {
    beginning: Beginning,
    base: StoredKeyframe,
    time: VmTime,
}

impl Beginning {
    /// Makes `dir`, and what is missing above it, and the store in it. What an earlier one left that never began is removed.
    ///
    /// # Errors
    /// If there is a journal, another has it open, or the disk fails.
    pub fn prepare(dir: &Path) -> Result<Beginning, OpenError> {
        sweep(dir)?;
        let store = SledStore::create(dir)?;
        let directory = Directory::new(dir);
        directory.make_sealed()?;
        Ok(Beginning { directory, store })
    }

    /// Begins the journal, as [`Journal::begin`] says: writes one file, renames and syncs it.
    ///
    /// # Errors
    /// If the state is none at which a journal can begin, or the disk fails.
    pub fn begin(self, genesis: &[u8], base: Base, options: Options) -> Result<Journal, OpenError> {
        self.write(genesis, base, options.record_version)?.start(options)
    }

    /// The same, without waiting for the disk: the state is on it when [`Journal::flush`] has returned, and before the first
    /// record is. For who has something else to do until then.
    ///
    /// # Errors
    /// If the state is none at which a journal can begin. That the disk failed is said as it is of a record.
    pub fn begin_beside(self, genesis: &[u8], base: Base, options: Options) -> Result<Journal, OpenError> {
        let (begun, path) = self.stage(genesis, base, options.record_version)?;
        let base = BaseFile { path, keyframe: begun.base.clone() };
        begun.start_with(Some(base), options)
    }

    /// Makes it a journal, and durable. Its genesis is in the form `version`.
    pub(crate) fn write(self, genesis: &[u8], base: Base, version: u16) -> Result<Begun, OpenError> {
        let (begun, path) = self.stage(genesis, base, version)?;
        write_base(&path, &begun.base)?;
        Ok(begun)
    }

    /// Checks it. What is to be written, and where.
    fn stage(self, genesis: &[u8], base: Base, version: u16) -> Result<(Begun, PathBuf), OpenError> {
        let genesis = Stored { seq: Seq(0), version, body: genesis.to_vec() };
        let &Keyframe { seq, time, vm: _ } = base.keyframe();
        check(&genesis, base.keyframe()).map_err(|reason| OpenError::Base { seq, reason })?;
        let chain = Chain::default().next(Seq(0), version, &genesis.body);
        let (version, body) = base.into_body();
        let base = StoredKeyframe { seq, chain, genesis, version, body };
        let path = self.directory.sealed_path(Seq(seq.0 + 1), seq);
        Ok((Begun { beginning: self, base, time }, path))
    }
}

impl Begun {
    /// The same at the place to which its directory was moved.
    pub(crate) fn moved_to(mut self, dir: &Path) -> Self {
        let Beginning { directory, store } = &mut self.beginning;
        *directory = Directory::new(dir);
        store.moved_to(directory);
        self
    }

    pub(crate) fn start(self, options: Options) -> Result<Journal, OpenError> {
        self.start_with(None, options)
    }

    fn start_with(self, due: Option<BaseFile>, options: Options) -> Result<Journal, OpenError> {
        let Begun { beginning: Beginning { directory, store }, base, time } = self;
        let clock = options.clock.max(time);
        let (chain, last, row) = (base.chain, base.seq, Some(Row::behind(directory, base)));
        let start = Start { store: Box::new(store), chain, last, frame_bytes: 0, row, base: due };
        Journal::start(start, Options { clock, ..options })
    }
}

/// Whether a journal can begin at a state: what is refused here would be refused by every start.
fn check(genesis: &Stored, base: &Keyframe) -> Result<(), String> {
    // Room for as many records again.
    if base.seq.0 >= SEQ_MAX / 2 {
        return Err("no journal has so many records".to_owned());
    }
    let genesis = form::decode_genesis(genesis.version, &genesis.body);
    let genesis = genesis.map_err(|error| format!("its genesis cannot be read: {error}"))?;
    if genesis.config != base.vm.config {
        return Err("it is the state of another VM than its genesis describes".to_owned());
    }
    Ok(())
}

/// Removes what was left of a journal that was never begun.
fn sweep(dir: &Path) -> Result<(), OpenError> {
    let directory = Directory::new(dir);
    let generations = directory.generations()?;
    let has_database = |generation: &Generation| directory.generation(*generation).join("db").exists();
    if !directory.sealed_files()?.is_empty() {
        return Err(OpenError::Exists { place: dir.display().to_string() });
    }
    if generations.iter().any(has_database) {
        match Opening::of(dir) {
            // Nor does anything lie whole in its bytes.
            Err(OpenError::Unfinished { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(OpenError::Exists { place: dir.display().to_string() }),
        }
    }
    directory.remove_leftovers()?;
    Ok(generations.into_iter().try_for_each(|generation| directory.remove_generation(generation))?)
}
