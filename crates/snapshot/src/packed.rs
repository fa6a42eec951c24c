//! A file of named byte strings, packed: the caller's parts in one, the runs of each memory in another.
//!
//! ```text
//!  0       4     6     8       12
//!  ├ magic ┼ ver ┼ 0   ┼ count ┼ entry ...       ┼ payload ...
//!  │       │ u16 │ u16 │ u32   │ one for each    │ zstd, in the order of the entries
//!
//!  0      2          n+2   n+6        n+14     n+22     n+54
//!  ├ n    ┼ name     ┼ ver ┼ unpacked ┼ stored ┼ digest │      an entry
//!  │ u16  │ n bytes  │ u32 │ bytes u64│ u64    │ blake3 of what is packed
//! ```
//!
//! All numbers are little-endian. Magic is `DCDP` of parts, `DCDX` of runs. What is packed is only unpacked when it is asked
//! for, and memory is only taken for what comes. Deliberately absent: changing one.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use crate::digest::Digest;
use crate::error::Damage;
use crate::pages::CHUNK_BYTES;

/// Version of this form.
pub const PACKED_VERSION: u16 = 1;

/// Parts of a snapshot.
pub const PARTS_MAX: usize = 4096;

/// Bytes of a part: 1 GiB.
pub const PART_MAX_BYTES: u64 = 1 << 30;

/// Bytes of the name of a part.
pub const PART_NAME_MAX_BYTES: usize = 160;

/// What zstd may keep at hand while it unpacks: 128 MiB, as much as its own command takes without being asked.
const WINDOW_LOG_MAX: u32 = 27;

/// Room that is taken for a part by what is said of its length: 4 MiB.
const AT_ONCE_MAX_BYTES: usize = 4 << 20;

/// How hard it tries: it packs beside a VM that runs.
const LEVEL: i32 = 3;

/// What such a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Parts,
    Runs,
}

impl Kind {
    pub(crate) fn magic(self) -> &'static str {
        match self {
            Self::Parts => "DCDP",
            Self::Runs => "DCDX",
        }
    }

    /// Bytes of one of them, unpacked.
    fn max_bytes(self) -> u64 {
        match self {
            Self::Parts => PART_MAX_BYTES,
            Self::Runs => crate::runs::RUNS_MAX_BYTES,
        }
    }
}

/// What a part is, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// Its name.
    pub name: String,
    /// The version of its form, by whoever wrote it.
    pub version: u32,
    /// Its length.
    pub len_bytes: u64,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The version of its form, by whoever wrote it.
    pub version: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A part that is to be packed.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) name: String,
    pub(crate) part: Part,
}

/// Why a file of these cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    Io(io::Error),
    Damaged(Damage),
    Version { found: u16 },
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Damage> for Unusable {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// Where what lies in such a file.
#[derive(Debug)]
pub(crate) struct Index {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    info: PartInfo,
    stored_bytes: u64,
    digest: Digest,
    /// Where its payload is.
    at: u64,
}

/// The bytes of a file of these, in pieces: the header with the entries, then each payload.
pub(crate) fn encode(kind: Kind, unpacked: &[Unpacked]) -> io::Result<Vec<Vec<u8>>> {
    let mut head = kind.magic().as_bytes().to_vec();
    head.extend(PACKED_VERSION.to_le_bytes());
    head.extend([0; 2]);
    head.extend((unpacked.len() as u32).to_le_bytes());
    let mut pieces = vec![Vec::new()];
    for Unpacked { name, part: Part { version, bytes } } in unpacked {
        let payload = zstd::bulk::compress(bytes, LEVEL)?;
        head.extend((name.len() as u16).to_le_bytes());
        head.extend(name.as_bytes());
        head.extend(version.to_le_bytes());
        head.extend((bytes.len() as u64).to_le_bytes());
        head.extend((payload.len() as u64).to_le_bytes());
        head.extend(Digest::of(bytes).0);
        pieces.push(payload);
    }
    pieces[0] = head;
    Ok(pieces)
}

impl Index {
    /// Reads where what is in a file of `len_bytes`.
    pub(crate) fn read(kind: Kind, file: &File, len_bytes: u64) -> Result<Self, Unusable> {
        let mut reader = Reader { stretch: BufReader::new(Stretch { file, at: 0, end: len_bytes }), at: 0 };
        if reader.take::<4>()? != kind.magic().as_bytes() {
            return Err(Damage::Magic { magic: kind.magic() }.into());
        }
        let found = u16::from_le_bytes(reader.take()?);
        if found != PACKED_VERSION {
            return Err(Unusable::Version { found });
        }
        if reader.take::<2>()? != [0; 2] {
            return Err(Damage::Says("bytes 6 and 7 are not 0".into()).into());
        }
        let count = u32::from_le_bytes(reader.take()?);
        if count as usize > PARTS_MAX {
            return Err(Damage::Says(format!("there are {count} entries, of at most {PARTS_MAX}")).into());
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(reader.entry(kind)?);
        }
        let mut at = reader.at;
        for entry in &mut entries {
            entry.at = at;
            let end = at.checked_add(entry.stored_bytes).filter(|end| *end <= len_bytes);
            at = end.ok_or(Damage::Cut { at })?;
        }
        if at != len_bytes {
            return Err(Damage::Length { found_bytes: len_bytes, expected_bytes: at }.into());
        }
        Ok(Self { entries })
    }

    pub(crate) fn infos(&self) -> impl Iterator<Item = &PartInfo> {
        self.entries.iter().map(|entry| &entry.info)
    }

    /// Unpacks and checks the part of this name, if it is there.
    pub(crate) fn part(&self, file: &File, name: &str) -> Result<Option<Part>, Unusable> {
        let entry = self.entries.iter().find(|entry| entry.info.name == name);
        entry.map(|entry| entry.unpack(file)).transpose()
    }
}

impl Entry {
    fn unpack(&self, file: &File) -> Result<Part, Unusable> {
        let bytes = match self.unpack_at_once(file) {
            Some(bytes) => bytes,
            None => self.unpack_as_it_comes(file)?,
        };
        let found = Digest::of(&bytes);
        if found != self.digest {
            return Err(self.bad(format!("their digest is {found}, and was {}", self.digest)).into());
        }
        Ok(Part { version: self.info.version, bytes })
    }

    fn bad(&self, reason: String) -> Damage {
        Damage::Unpack { name: self.info.name.clone(), expected_bytes: self.info.len_bytes, reason }
    }

    /// Where room can be taken for all of it: twice as fast. `None` as well where anything is wrong with it.
    fn unpack_at_once(&self, file: &File) -> Option<Vec<u8>> {
        let expected = usize::try_from(self.info.len_bytes).ok()?;
        let stored = usize::try_from(self.stored_bytes).ok()?;
        // What is said of its length is not yet known to be true.
        if expected > AT_ONCE_MAX_BYTES || stored > AT_ONCE_MAX_BYTES {
            return None;
        }
        let mut payload = vec![0; stored];
        file.read_exact_at(&mut payload, self.at).ok()?;
        let bytes = zstd::bulk::decompress(&payload, expected).ok()?;
        (bytes.len() == expected).then_some(bytes)
    }

    fn unpack_as_it_comes(&self, file: &File) -> Result<Vec<u8>, Unusable> {
        let expected_bytes = self.info.len_bytes;
        let bad = |reason: String| self.bad(reason);
        let payload = Stretch { file, at: self.at, end: self.at + self.stored_bytes };
        let mut decoder = zstd::stream::read::Decoder::new(payload)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        let mut bytes = Vec::new();
        decoder.take(expected_bytes + 1).read_to_end(&mut bytes).map_err(|why| bad(why.to_string()))?;
        match bytes.len() as u64 {
            found if found > expected_bytes => return Err(bad("more come".into()).into()),
            found if found < expected_bytes => return Err(bad(format!("{found} come")).into()),
            _ => {}
        }
        Ok(bytes)
    }
}

/// A stretch of a file that nobody else's reading moves.
struct Stretch<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let wanted = to.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut to[..wanted], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Reads the header and the entries.
struct Reader<'a> {
    stretch: BufReader<Stretch<'a>>,
    at: u64,
}

impl Reader<'_> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Unusable> {
        self.stretch.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Damage::Cut { at: self.at }.into(),
            _ => Unusable::Io(error),
        })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unusable> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(&mut self, kind: Kind) -> Result<Entry, Unusable> {
        let begin = self.at;
        let says = |what: String| Damage::Says(format!("the entry at byte {begin} {what}"));
        let len = usize::from(u16::from_le_bytes(self.take()?));
        if !(1..=PART_NAME_MAX_BYTES).contains(&len) {
            return Err(says(format!("has a name of {len} bytes, of 1 to {PART_NAME_MAX_BYTES}")).into());
        }
        let mut name = vec![0; len];
        self.fill(&mut name)?;
        let name = String::from_utf8(name).map_err(|why| says(format!("has a name that is no text: {why}")))?;
        let version = u32::from_le_bytes(self.take()?);
        let len_bytes = u64::from_le_bytes(self.take()?);
        if len_bytes > kind.max_bytes() {
            return Err(says(format!("has {len_bytes} bytes unpacked, of at most {}", kind.max_bytes())).into());
        }
        let stored_bytes = u64::from_le_bytes(self.take()?);
        let digest = Digest(self.take()?);
        Ok(Entry { info: PartInfo { name, version, len_bytes }, stored_bytes, digest, at: 0 })
    }
}

/// The digest of a whole file of `len_bytes`.
pub(crate) fn digest(file: &File, len_bytes: u64) -> io::Result<Digest> {
    let mut stretch = Stretch { file, at: 0, end: len_bytes };
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; CHUNK_BYTES]);
    loop {
        match stretch.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            got => hasher.update(&buffer[..got]),
        };
    }
}
