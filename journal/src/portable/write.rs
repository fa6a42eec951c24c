//! Writes a journal as one file.
//!
//! ```text
//! FILE.part ─ segments, end ─▶ fsync ─▶ renamed to FILE ─▶ fsync of its directory
//! ```
//!
//! Deliberately absent: a file of this name that is half written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use device::Seq;

use crate::{
    codec,
    frame::{self, Chain},
    keyframe::StoredKeyframe,
    recover::Recovered,
    store::StoreError,
};

use super::{
    ATTACHED_LIMIT_BYTES, About, Attached,
    segment::{self, Kind, Level, UNPACKED_GOAL_BYTES, UNPACKED_LIMIT_BYTES},
};

/// Writes a journal into a file that is not there yet, durably.
///
/// # Errors
/// If the file is there, or the disk fails.
pub fn write_file(path: &Path, recovered: &Recovered, about: &About) -> Result<(), StoreError> {
    write_file_with(path, recovered, about, &[])
}

/// The same, with something attached.
///
/// # Errors
/// If the file is there, something is longer than a file takes, or the disk fails.
pub fn write_file_with(
    path: &Path,
    recovered: &Recovered,
    about: &About,
    attached: &[Attached],
) -> Result<(), StoreError> {
    make_file(path, |out| write_segments(out, recovered, about, attached))
}

/// Writes the file of a journal that begins at a state and has no record yet, durably.
///
/// # Errors
/// If the file is there, the state is too long for one, or the disk fails.
pub(crate) fn write_base(path: &Path, base: &StoredKeyframe) -> Result<(), StoreError> {
    make_file(path, |out| {
        // Somebody waits for it.
        let mut segments = Segments::begin(out, Level::Fast, &About::default())?;
        segments.base(base)?;
        segments.end()
    })
}

/// Makes a file that is not there yet, whole and durable or not at all.
pub(crate) fn make_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), StoreError> {
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::File { doing, path, source }
    };
    if path.exists() {
        return Err(failed("make", path)(io::Error::from(io::ErrorKind::AlreadyExists)));
    }
    let part = with_suffix(path, ".part");
    let file = File::create(&part).map_err(failed("make", &part))?;
    let mut out = BufWriter::new(file);
    let written = write(&mut out).and_then(|()| out.flush()).and_then(|()| out.get_ref().sync_all());
    if let Err(source) = written {
        // What is left is of no use; that it could not be removed is no second error.
        std::fs::remove_file(&part).ok();
        return Err(failed("write", path)(source));
    }
    std::fs::rename(&part, path).map_err(failed("make", path))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes a journal's segments: the same journal gives the same bytes.
///
/// # Errors
/// What `out` fails with.
pub fn write_to(out: &mut dyn Write, recovered: &Recovered, about: &About) -> io::Result<()> {
    write_segments(out, recovered, about, &[])
}

fn write_segments(out: &mut dyn Write, recovered: &Recovered, about: &About, attached: &[Attached]) -> io::Result<()> {
    let mut segments = Segments::begin(out, Level::Small, about)?;
    attached.iter().try_for_each(|attached| segments.attached(attached))?;
    if let Some(base) = &recovered.base {
        segments.base(base)?;
    }
    let (mut frame, mut chain) = (Vec::new(), recovered.base.as_ref().map(|base| base.chain).unwrap_or_default());
    for (seq, version, body) in recovered.bodies() {
        frame.clear();
        chain = frame::encode(&mut frame, chain, seq, version, body).map_err(io::Error::other)?;
        segments.frame(seq, &frame)?;
    }
    segments.end()
}

/// A file that is being written, segment by segment.
pub(crate) struct Segments<'a> {
    out: &'a mut dyn Write,
    level: Level,
    link: Chain,
    count: u32,
    /// Frames that are no segment yet, and how many.
    frames: Vec<u8>,
    frames_count: u32,
    first: Seq,
    last: Seq,
}

impl<'a> Segments<'a> {
    pub(crate) fn begin(out: &'a mut dyn Write, level: Level, about: &About) -> io::Result<Self> {
        let (link, frames) = (Chain::default(), Vec::new());
        let mut segments = Self { out, level, link, count: 0, frames, frames_count: 0, first: Seq(0), last: Seq(0) };
        segments.put(Kind::About, about.0.len() as u32, 0, &codec::encode(about))?;
        Ok(segments)
    }

    /// Something that goes with the journal, before all frames.
    fn attached(&mut self, Attached { name, version, bytes }: &Attached) -> io::Result<()> {
        let len_bytes = name.len() + bytes.len();
        if len_bytes > ATTACHED_LIMIT_BYTES {
            let too_long = format!("'{name}' has {len_bytes} bytes and {ATTACHED_LIMIT_BYTES} is the limit");
            return Err(io::Error::other(too_long));
        }
        self.put(Kind::Attached, *version, 0, &codec::encode(&(name, bytes)))
    }

    /// A state after the last frame. One that is too long for a segment is left out: without it the file says the same.
    pub(crate) fn keyframe(&mut self, keyframe: &StoredKeyframe) -> io::Result<()> {
        self.flush()?;
        self.last = keyframe.seq;
        match keyframe.payload(UNPACKED_LIMIT_BYTES) {
            Some(payload) => self.put(Kind::Keyframe, keyframe.version.into(), keyframe.seq.0, &payload),
            None => Ok(()),
        }
    }

    /// The state at which the journal begins, without which it says nothing.
    pub(crate) fn base(&mut self, keyframe: &StoredKeyframe) -> io::Result<()> {
        if keyframe.payload(UNPACKED_LIMIT_BYTES).is_none() {
            let len_bytes = keyframe.body.len();
            let too_long =
                format!("the state at {} takes {len_bytes} bytes, which is more than a segment holds", keyframe.seq);
            return Err(io::Error::other(too_long));
        }
        self.keyframe(keyframe)
    }

    /// The next frame.
    pub(crate) fn frame(&mut self, seq: Seq, frame: &[u8]) -> io::Result<()> {
        if self.frames.is_empty() {
            self.first = seq;
        }
        self.frames.extend_from_slice(frame);
        self.frames_count += 1;
        self.last = seq;
        if self.frames.len() >= UNPACKED_GOAL_BYTES { self.flush() } else { Ok(()) }
    }

    /// The next frames, one behind the other.
    pub(crate) fn frames(&mut self, frames: &[u8]) -> io::Result<()> {
        let mut offset = 0;
        while offset < frames.len() {
            let frame = frame::decode_alone(frames, offset, self.last).map_err(io::Error::other)?;
            let end = offset + frame.len_bytes();
            self.frame(frame.seq, &frames[offset..end])?;
            offset = end;
        }
        Ok(())
    }

    /// Nothing comes behind this.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.flush()?;
        let (before, last) = (self.count, self.last.0);
        self.put(Kind::End, before, last, &[])
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.frames);
        let count = std::mem::take(&mut self.frames_count);
        self.put(Kind::Records, count, self.first.0, &frames)
    }

    fn put(&mut self, kind: Kind, count: u32, first: u64, unpacked: &[u8]) -> io::Result<()> {
        let (bytes, link) = segment::encode(self.level, self.link, kind, count, first, unpacked)?;
        self.link = link;
        self.count += 1;
        self.out.write_all(&bytes)
    }
}
