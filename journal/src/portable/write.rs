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

use crate::{
    codec,
    frame::{self, Chain},
    recover::Recovered,
    store::StoreError,
};

use super::{
    About,
    segment::{self, Kind, UNPACKED_GOAL_BYTES},
};

/// Writes a journal into a file that is not there yet, durably.
///
/// # Errors
/// If the file is there, or the disk fails.
pub fn write_file(path: &Path, recovered: &Recovered, about: &About) -> Result<(), StoreError> {
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
    let written =
        write_to(&mut out, recovered, about).and_then(|()| out.flush()).and_then(|()| out.get_ref().sync_all());
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
    let mut segments = Segments { out, link: Chain::default(), count: 0 };
    segments.put(Kind::About, about.0.len() as u32, 0, &codec::encode(about))?;
    let (mut frames, mut chain, mut first, mut count) = (Vec::new(), Chain::default(), 0, 0);
    for (seq, version, body) in recovered.bodies() {
        if frames.is_empty() {
            first = seq.0;
        }
        chain = frame::encode(&mut frames, chain, seq, version, body).map_err(io::Error::other)?;
        count += 1;
        if frames.len() >= UNPACKED_GOAL_BYTES {
            segments.put(Kind::Records, count, first, &frames)?;
            frames.clear();
            count = 0;
        }
    }
    if !frames.is_empty() {
        segments.put(Kind::Records, count, first, &frames)?;
    }
    let before = segments.count;
    segments.put(Kind::End, before, recovered.last.0, &[])
}

struct Segments<'a> {
    out: &'a mut dyn Write,
    link: Chain,
    count: u32,
}

impl Segments<'_> {
    fn put(&mut self, kind: Kind, count: u32, first: u64, unpacked: &[u8]) -> io::Result<()> {
        let (bytes, link) = segment::encode(self.link, kind, count, first, unpacked)?;
        self.link = link;
        self.count += 1;
        self.out.write_all(&bytes)
    }
}
