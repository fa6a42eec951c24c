//! A journal that was read, written again into a directory: frame for frame what it was.
//!
//! ```text
//! Recovered ─▶ one sealed file, under its last name at once ─┐
//! an empty generation, to be written to ─────────────────────┴─▶ DIR
//!
//! Recovered ─ follower ─▶ DIR/sealed.part: files with keyframes ─▶ DIR/sealed        where its records fold
//! ```
//!
//! Deliberately absent: new times and sequences (an import is the same journal, its chain ends in the same link), and a
//! journal that is half there: the file, or the directory of files, comes last and by one rename.

use std::{fs, iter::from_fn, path::Path, sync::mpsc};

use device::Seq;

use crate::{
    directory::{Directory, Generation, failed},
    follower::{FollowerThread, Sealing, Standing},
    frame,
    portable::{About, write_base, write_file},
    recover::{OpenError, Recovered, Stored},
    sled_store::SledStore,
    store::StoreError,
};

/// Bytes of frames that the follower is given at a time.
const GROUP_GOAL_BYTES: usize = 256 << 10;

/// Makes a journal in `dir` that holds exactly this.
///
/// # Errors
/// If there is a journal already, or the disk fails.
pub fn restore(dir: &Path, recovered: &Recovered) -> Result<(), OpenError> {
    drop(SledStore::create(dir)?);
    Ok(write_one(&Directory::new(dir), recovered)?)
}

/// Makes a journal in `dir` that holds exactly this, in files as a run would have sealed them, of which any part is read
/// without the rest. Where its records do not fold, or their state makes no keyframe, it is one file as by [`restore`].
///
/// # Errors
/// If there is a journal already, or the disk fails.
pub fn restore_sealed(dir: &Path, recovered: &Recovered, sealing: Sealing) -> Result<(), OpenError> {
    drop(SledStore::create(dir)?);
    let directory = Directory::new(dir);
    let part = directory.with_sealed_part();
    part.make_sealed()?;
    if seal(&part, recovered, sealing)? {
        return Ok(directory.rename_sealed_part()?);
    }
    fs::remove_dir_all(part.sealed()).map_err(failed("remove", &part.sealed()))?;
    Ok(write_one(&directory, recovered)?)
}

fn write_one(directory: &Directory, recovered: &Recovered) -> Result<(), StoreError> {
    directory.make_sealed()?;
    // Without a base the genesis is the first frame; with one and no record the name says that there is none, and none that
    // comes later has the same.
    let first = recovered.base.as_ref().map_or(Seq(0), |base| Seq(base.seq.0 + 1));
    write_file(&directory.sealed_path(first, recovered.last), recovered, &About::default())
}

/// Writes sealed files, and returns whether all records are in them.
fn seal(directory: &Directory, recovered: &Recovered, sealing: Sealing) -> Result<bool, OpenError> {
    let base = recovered.base.clone();
    if let Some(base) = &base {
        // Bit by bit what it was; the files behind it begin with what the follower makes of it.
        write_base(&directory.sealed_path(Seq(base.seq.0 + 1), base.seq), base)?;
    }
    let genesis = Stored { seq: Seq(0), version: recovered.genesis_version, body: recovered.genesis.clone() };
    let chain = base.as_ref().map(|base| base.chain).unwrap_or_default();
    let standing = Standing { genesis, base, sealed: Vec::new(), chain, newest: Generation(1) };
    let (next, _) = mpsc::sync_channel(1);
    let thread = FollowerThread::begin(directory.clone(), sealing, standing, next, Box::new(|_| ()));
    Ok(thread.seal_frames(groups(recovered))?)
}

/// The frames of a journal, some at a time.
fn groups(recovered: &Recovered) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> {
    let mut chain = recovered.base.as_ref().map(|base| base.chain).unwrap_or_default();
    let mut bodies = recovered.bodies().peekable();
    from_fn(move || {
        bodies.peek()?;
        let mut group = Vec::new();
        while let Some((seq, version, body)) = bodies.next_if(|_| group.len() < GROUP_GOAL_BYTES) {
            match frame::encode(&mut group, chain, seq, version, body) {
                Ok(next) => chain = next,
                Err(error) => return Some(Err(error.into())),
            }
        }
        Some(Ok(group))
    })
}
