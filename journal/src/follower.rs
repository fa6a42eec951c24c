//! The follower: behind the keeper, it folds what is durable, makes keyframes of it, and seals full generations into files.
//!
//! ```text
//! keeper ── frames of a durable group ─▶ follow ─▶ chunk: frames, keyframe, frames ...
//!        ── half full ─▶ makes the next generation ─▶ keeper, which goes over to it between two groups
//!        ── the full generation ─▶ chunk ─▶ DIR/sealed/#first-#last.dcds ─▶ generation removed ─▶ files over --keep removed
//! ```
//!
//! The keeper never waits for it. What it cannot seal stays in its generation, and the next start tries again. Deliberately
//! absent: what a state is (a [`Follower`] knows), and any answer of the VM that depends on it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use device::Seq;

use crate::{
    directory::{Directory, Generation},
    frame::{self, Chain},
    keyframe::StoredKeyframe,
    portable::{About, Index, Level, Segments, make_file},
    recover::{OpenError, Stored},
    sled_store::SledStore,
    store::{Store, StoreError},
};

/// In the file's words about itself: bytes of the frames in it.
const FRAME_BYTES: &str = "frame-bytes";

/// Between two keyframes there are at least so many records.
const KEYFRAME_RECORDS_MIN: u64 = 4096;

/// Who knows what a record means. Called on the follower's thread, behind the keeper.
pub trait Follower: Send {
    /// The next record in the row, which is durable.
    ///
    /// # Errors
    /// If it cannot follow the ones before it. It is not called again then.
    fn follow(&mut self, record: &Stored) -> Result<(), String>;

    /// The version and the bytes of the state after the last record.
    ///
    /// # Errors
    /// If it is one that would not be read again. Then all records stay in the store, from which it can be folded.
    fn keyframe(&self) -> Result<(u16, Vec<u8>), String>;

    /// How many records a keyframe is worth: the more a state holds, the rarer they are.
    fn weight(&self) -> u64;
}

/// How a journal is kept short.
pub struct Sealing {
    /// At the state that the opened journal's base has; that of the genesis where there is no base.
    pub follower: Box<dyn Follower>,
    /// Bytes of frames after which a generation is sealed.
    pub seal_bytes: u64,
    /// Bytes that the sealed files may take together; the oldest go first. `None` keeps all.
    pub keep_bytes: Option<u64>,
    /// A record could not be followed: the journal would not fold at the next start.
    pub on_unfit: Box<dyn Fn(Seq, String) + Send>,
}

impl Sealing {
    /// Bytes of frames after which a generation is sealed, unless a test wants less: a start reads at most two of these.
    pub const SEAL_BYTES: u64 = 8 << 20;
}

/// What the keeper, and those who ask, send to the follower.
pub(crate) enum Message {
    /// The next frames.
    Frames(Vec<u8>),
    /// The generation after the one that is written to will be needed.
    Prepare,
    /// Nothing more is written to this generation. Its store, where it is open.
    Full(Option<Box<dyn Store>>, Generation),
    /// Write what is in no sealed file into one at this path.
    Tail(PathBuf, mpsc::Sender<Result<Seq, TailError>>),
}

/// Why the records that are in no sealed file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The journal has no follower.
    #[error("this journal is not followed: nothing can be read from it while it is open")]
    Unfollowed,
    /// The follower has stopped.
    #[error("the journal's follower has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Told how many bytes of frames are gone from the journal's beginning.
pub(crate) type OnForgotten = Box<dyn Fn(u64) + Send>;

/// A generation that is ready to be written to.
pub(crate) type Next = (Box<dyn Store>, Generation);

/// The thread's own state.
pub(crate) struct FollowerThread {
    directory: Directory,
    sealing: Sealing,
    genesis: Stored,
    next: mpsc::SyncSender<Next>,
    newest: Generation,
    on_forgotten: OnForgotten,
    chunk: Chunk,
    stopped: Option<Stop>,
}

/// Why nothing is sealed any more: what is written stays where it is.
enum Stop {
    /// A record cannot follow the ones before it, and no later one can.
    Unfit(String),
    /// A file or a keyframe cannot be made; the records are followed on.
    Unsealed(String),
}

impl Stop {
    fn reason(&self) -> &str {
        let (Self::Unfit(reason) | Self::Unsealed(reason)) = self;
        reason
    }
}

/// What is in no sealed file.
#[derive(Default)]
struct Chunk {
    pieces: Vec<Piece>,
    frame_bytes: u64,
    first: Option<Seq>,
    last: Seq,
    chain: Chain,
    /// Where the last keyframe is.
    keyframe: Seq,
}

enum Piece {
    Frames(Vec<u8>),
    Keyframe(Arc<StoredKeyframe>),
}

/// Where the follower stands when it begins.
pub(crate) struct Standing {
    pub(crate) genesis: Stored,
    /// Where the state of the [`Follower`] is.
    pub(crate) base: Option<StoredKeyframe>,
    /// Sealed records behind that.
    pub(crate) sealed: Vec<Stored>,
    /// The link of the last sealed record.
    pub(crate) chain: Chain,
    /// The generation that is written to.
    pub(crate) newest: Generation,
}

/// What a journal in a directory has besides its store.
pub(crate) struct Row {
    pub(crate) directory: Directory,
    pub(crate) standing: Standing,
    /// What the follower has to take in and to seal first.
    pub(crate) backlog: Vec<Message>,
    /// Bytes of frames in the generation that is written to.
    pub(crate) bytes: u64,
}

impl Row {
    /// Of a journal that has its genesis only.
    pub(crate) fn new(directory: Directory, genesis: Stored, frames: Vec<u8>) -> Row {
        let (chain, newest, bytes) = (Chain::default(), Generation(1), frames.len() as u64);
        let standing = Standing { genesis, base: None, sealed: Vec::new(), chain, newest };
        Row { directory, standing, backlog: vec![Message::Frames(frames)], bytes }
    }

    /// Of a journal that has the state only at which it begins.
    pub(crate) fn behind(directory: Directory, base: StoredKeyframe) -> Row {
        let (genesis, chain, newest) = (base.genesis.clone(), base.chain, Generation(1));
        let standing = Standing { genesis, base: Some(base), sealed: Vec::new(), chain, newest };
        Row { directory, standing, backlog: Vec::new(), bytes: 0 }
    }
}

impl FollowerThread {
    /// Stands where the journal was opened.
    pub(crate) fn begin(
        directory: Directory,
        sealing: Sealing,
        standing: Standing,
        next: mpsc::SyncSender<Next>,
        on_forgotten: OnForgotten,
    ) -> Self {
        let Standing { genesis, base, sealed, chain, newest } = standing;
        let last = base.as_ref().map_or(Seq(0), |base| base.seq);
        let chunk = Chunk { last, chain, ..Chunk::default() };
        let mut thread =
            FollowerThread { directory, sealing, genesis, next, newest, on_forgotten, chunk, stopped: None };
        for record in &sealed {
            thread.follow(record);
            thread.chunk.last = record.seq;
        }
        // A file tells what came before it, except the one that begins with the genesis.
        if base.is_some() || thread.chunk.last > Seq(0) {
            thread.make_keyframe();
        }
        thread
    }

    /// Follows until nobody sends any more.
    pub(crate) fn run(mut self, messages: &mpsc::Receiver<Message>) {
        messages.iter().for_each(|message| self.take(message));
    }

    /// Seals what was written before the journal was opened.
    pub(crate) fn seal_all(mut self, backlog: Vec<Message>) -> Result<(), OpenError> {
        backlog.into_iter().for_each(|message| self.take(message));
        match self.stopped {
            Some(stop) => {
                let (dir, reason) = (self.directory.path().to_owned(), stop.reason().to_owned());
                Err(OpenError::Unsealable { dir, reason })
            }
            None => Ok(()),
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Frames(frames) => self.take_in(frames),
            Message::Prepare => self.prepare(),
            Message::Full(store, generation) => self.seal(store, generation),
            Message::Tail(path, answer) => {
                // Who asked may have gone.
                answer.send(self.tail(&path)).ok();
            }
        }
    }

    /// Writes what is in no sealed file into one, and returns its last record.
    fn tail(&self, path: &Path) -> Result<Seq, TailError> {
        match &self.stopped {
            Some(stop) => Err(TailError::Stopped { reason: stop.reason().to_owned() }),
            None => Ok(self.chunk.write(path).map(|()| self.chunk.last)?),
        }
    }

    fn take_in(&mut self, frames: Vec<u8>) {
        let mut offset = 0;
        // Our own frames, a moment ago: what is not a frame ends the group.
        while let Ok(frame) = frame::decode_alone(&frames, offset, self.chunk.last) {
            offset += frame.len_bytes();
            self.chunk.first.get_or_insert(frame.seq);
            (self.chunk.last, self.chunk.chain) = (frame.seq, frame.chain);
            if frame.seq > Seq(0) {
                self.follow(&Stored { seq: frame.seq, version: frame.version, body: frame.body.to_vec() });
            }
        }
        if self.stopped.is_none() {
            self.chunk.frame_bytes += frames.len() as u64;
            self.chunk.pieces.push(Piece::Frames(frames));
            let since = self.chunk.last.0 - self.chunk.keyframe.0;
            if since >= KEYFRAME_RECORDS_MIN && since >= self.sealing.follower.weight() {
                self.make_keyframe();
            }
        }
    }

    fn follow(&mut self, record: &Stored) {
        if !matches!(self.stopped, Some(Stop::Unfit(_)))
            && let Err(reason) = self.sealing.follower.follow(record)
        {
            self.stop(Stop::Unfit(format!("{} cannot follow the records before it: {reason}", record.seq)));
            (self.sealing.on_unfit)(record.seq, reason);
        }
    }

    fn make_keyframe(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        let (version, body) = match self.sealing.follower.keyframe() {
            Ok(keyframe) => keyframe,
            Err(reason) => {
                return self.stop(Stop::Unsealed(format!("no keyframe after {}: {reason}", self.chunk.last)));
            }
        };
        let (seq, chain, genesis) = (self.chunk.last, self.chunk.chain, self.genesis.clone());
        self.chunk.keyframe = seq;
        self.chunk.pieces.push(Piece::Keyframe(Arc::new(StoredKeyframe { seq, chain, genesis, version, body })));
    }

    /// From now on what is written stays where it is.
    fn stop(&mut self, stop: Stop) {
        tracing::error!(dir = %self.directory.path().display(), "nothing more is sealed: {}", stop.reason());
        self.chunk = Chunk { last: self.chunk.last, chain: self.chunk.chain, ..Chunk::default() };
        self.stopped = Some(stop);
    }

    fn prepare(&mut self) {
        if self.stopped.is_some() {
            return;
        }
        let generation = Generation(self.newest.0 + 1);
        match SledStore::create_next(&self.directory, generation) {
            Ok(store) => {
                self.newest = generation;
                // It asks once for each, so there is room; and where it has ended, this one is found empty at the next start.
                self.next.try_send((Box::new(store), generation)).ok();
            }
            Err(error) => self.stop(Stop::Unsealed(error.to_string())),
        }
    }

    fn seal(&mut self, store: Option<Box<dyn Store>>, generation: Generation) {
        let sealed = self.try_seal(store, generation);
        if let Err(error) = sealed {
            self.stop(Stop::Unsealed(error.to_string()));
        }
    }

    /// Seals frames that are in no generation, file by file, and returns whether all of them are.
    pub(crate) fn seal_frames(
        mut self,
        groups: impl Iterator<Item = Result<Vec<u8>, StoreError>>,
    ) -> Result<bool, StoreError> {
        for frames in groups {
            self.take_in(frames?);
            if self.chunk.frame_bytes >= self.sealing.seal_bytes {
                self.seal_chunk()?;
            }
        }
        self.seal_chunk()?;
        Ok(self.stopped.is_none())
    }

    /// Writes what is in no sealed file into one, unless nothing is sealed any more.
    fn seal_chunk(&mut self) -> Result<(), StoreError> {
        // Whoever opens the journal goes on from here.
        if self.chunk.keyframe != self.chunk.last {
            self.make_keyframe();
        }
        // Asked behind the keyframe: where there is none, nothing of the chunk is left to be written.
        let Some(first) = self.chunk.first.filter(|_| self.stopped.is_none()) else { return Ok(()) };
        self.directory.make_sealed()?;
        self.chunk.write(&self.directory.sealed_path(first, self.chunk.last))?;
        let keyframe = self.chunk.pieces.pop();
        let Chunk { last, chain, keyframe: at, .. } = self.chunk;
        self.chunk = Chunk { pieces: Vec::from_iter(keyframe), last, chain, keyframe: at, ..Chunk::default() };
        Ok(())
    }

    fn try_seal(&mut self, store: Option<Box<dyn Store>>, generation: Generation) -> Result<(), StoreError> {
        self.seal_chunk()?;
        // Where nothing is sealed any more the generation has the only copy.
        if self.stopped.is_some() {
            return Ok(());
        }
        drop(store);
        self.directory.remove_generation(generation)?;
        if let Some(keep_bytes) = self.sealing.keep_bytes {
            let removed_bytes = remove_oldest(&self.directory, keep_bytes)?;
            (self.on_forgotten)(removed_bytes);
        }
        Ok(())
    }
}

impl Chunk {
    fn write(&self, path: &Path) -> Result<(), StoreError> {
        let about = About(vec![(FRAME_BYTES.to_owned(), self.frame_bytes.to_string())]);
        make_file(path, |out| {
            let mut segments = Segments::begin(out, Level::Fast, &about)?;
            for piece in &self.pieces {
                match piece {
                    Piece::Keyframe(keyframe) => segments.keyframe(keyframe)?,
                    Piece::Frames(frames) => segments.frames(frames)?,
                }
            }
            segments.end()
        })
    }
}

/// Removes the oldest sealed files until the others take at most this much, and returns how many bytes of frames went.
/// The newest stays: its last keyframe is where the next start begins.
pub(crate) fn remove_oldest(directory: &Directory, keep_bytes: u64) -> Result<u64, StoreError> {
    let files = directory.sealed_files()?;
    let mut held_bytes: u64 = files.iter().map(|file| file.len_bytes).sum();
    let mut removed_bytes = 0;
    for file in files.iter().take(files.len().saturating_sub(1)) {
        if held_bytes <= keep_bytes {
            break;
        }
        removed_bytes += frame_bytes(&file.path);
        directory.remove_sealed(file)?;
        held_bytes -= file.len_bytes;
    }
    Ok(removed_bytes)
}

/// Bytes of the frames in a sealed file, for the journal's limit; 0 where it does not say.
pub(crate) fn frame_bytes(path: &Path) -> u64 {
    let about = Index::open(path).and_then(|index| index.about()).unwrap_or_default();
    about.get(FRAME_BYTES).and_then(|text| text.parse().ok()).unwrap_or(0)
}
