//! What a backend is asked to be: its type and its properties, by QEMU's names, checked together.
//!
//! ```text
//!  --object, object-add, --config ──▶ BackendRequest ── spec(type) ──▶ BackendSpec ──▶ the journal, host memory
//! ```
//!
//! Every property is obeyed or refused with its name. Deliberately absent: whether the host can do it, which only the
//! host can say.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wire::{Tag, TagError};

/// The types of backends, by their names in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendType {
    /// `memory-backend-ram`
    Ram,
    /// `memory-backend-memfd`
    Memfd,
    /// `memory-backend-file`
    File,
}

impl BackendType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ram, Self::Memfd, Self::File];

    /// The name that `qom-type` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ram => "memory-backend-ram",
            Self::Memfd => "memory-backend-memfd",
            Self::File => "memory-backend-file",
        }
    }

    /// The type of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for BackendType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands behind a backend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// `memory-backend-ram`: anonymous memory; its bytes end with the process.
    Ram,
    /// `memory-backend-memfd`: an unnamed file in memory, which another process can be given.
    Memfd {
        /// `seal`
        seal: Seal,
        /// `hugetlb` and `hugetlbsize`
        huge_pages: Option<HugePages>,
    },
    /// `memory-backend-file`: a file below the directory that `--backend-dir` names.
    File {
        /// `mem-path`, as it was given.
        path: String,
        /// `readonly`
        access: FileAccess,
        /// `discard-data`
        discard: Discard,
        /// `align`: the mapping begins at a multiple of so many bytes.
        align_bytes: Option<u64>,
    },
}

/// Whether the size of a memfd is fixed (`F_SEAL_GROW`, `F_SEAL_SHRINK`, `F_SEAL_SEAL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seal {
    /// `seal=on`, the default.
    Sealed,
    /// `seal=off`
    Unsealed,
}

/// Huge pages of a memfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct HugePages {
    /// `hugetlbsize`: the size of a page in bytes; the host's default where it is not given.
    pub page_bytes: Option<u64>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAccess {
    /// `readonly=off`, the default.
    ReadWrite,
    /// `readonly=on`: writes of guests vanish (`share=on`) or stay private to this process (`share=off`).
    ReadOnly,
}

/// What becomes of a file's bytes when its backend is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discard {
    /// `discard-data=off`, the default: they stay.
    Keep,
    /// `discard-data=on`: they leave the file, which keeps its length.
    Discard,
}

/// When the host memory of a backend is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Population {
    /// At its first use, page by page.
    OnDemand,
    /// All of it when the backend is made (`prealloc=on`).
    Preallocated,
}

/// Whether host memory is shared with other mappings of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// `share=off`
    Private,
    /// `share=on`
    Shared,
}

/// Whether the host sets swap aside for all of a backend when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reservation {
    /// `reserve=on`, the default: as the host's overcommit policy says.
    Reserved,
    /// `reserve=off`
    Unreserved,
}

/// What a backend is asked to be. Fixed for its life, the tag too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct BackendSpec {
    /// What stands behind it.
    pub kind: BackendKind,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Whether it is shared.
    pub sharing: Sharing,
    /// When its memory is taken.
    pub population: Population,
    /// Whether swap is set aside.
    pub reservation: Reservation,
    /// Its tag, [`Tag::NONE`] for a backend that no add can name.
    pub tag: Tag,
    /// The tag's text as it was given, which is what `qom-get` returns.
    pub tag_text: String,
}

impl BackendSpec {
    /// Its type.
    pub fn backend_type(&self) -> BackendType {
        match self.kind {
            BackendKind::Ram => BackendType::Ram,
            BackendKind::Memfd { .. } => BackendType::Memfd,
            BackendKind::File { .. } => BackendType::File,
        }
    }
}

/// The properties of a backend as they are asked for; what is `None` was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendRequest {
    /// `size` in bytes.
    pub size_bytes: Option<u64>,
    /// `share`
    pub share: Option<bool>,
    /// `prealloc`
    pub prealloc: Option<bool>,
    /// `reserve`
    pub reserve: Option<bool>,
    /// `tag`
    pub tag: Option<String>,
    /// `mem-path`
    pub mem_path: Option<String>,
    /// `readonly`
    pub readonly: Option<bool>,
    /// `discard-data`
    pub discard_data: Option<bool>,
    /// `align` in bytes.
    pub align_bytes: Option<u64>,
    /// `hugetlb`
    pub hugetlb: Option<bool>,
    /// `hugetlbsize` in bytes.
    pub hugetlbsize_bytes: Option<u64>,
    /// `seal`
    pub seal: Option<bool>,
}

/// Why properties make no backend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PropertyError {
    /// A property of another type.
    #[error("{kind} has no property '{property}'")]
    NotOfType {
        /// The type.
        kind: BackendType,
        /// The property.
        property: &'static str,
    },
    /// A property that must be there.
    #[error("{kind} needs the property '{property}'")]
    Missing {
        /// The type.
        kind: BackendType,
        /// The property.
        property: &'static str,
    },
    /// A size that is no power of two.
    #[error("{property}={value}: it must be a power of two of at least 4096 bytes")]
    NotAPage {
        /// The property.
        property: &'static str,
        /// What was asked, in bytes.
        value: u64,
    },
    /// A property that only another one gives a meaning.
    #[error("'{property}' needs '{needs}'")]
    Needs {
        /// The property.
        property: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Two properties that contradict each other.
    #[error("'{property}' and '{other}' exclude each other: {why}")]
    Excludes {
        /// The property.
        property: &'static str,
        /// The other one.
        other: &'static str,
        /// Why.
        why: &'static str,
    },
    /// No tag.
    #[error("tag={text}: {error}")]
    Tag {
        /// What was asked.
        text: String,
        /// What a tag is.
        error: TagError,
    },
}

const PAGE_BYTES: u64 = 4096;

impl BackendRequest {
    /// The backend of this type that these properties describe.
    ///
    /// # Errors
    ///
    /// Names the property that is missing, of another type, or contradicts another one.
    pub fn spec(self, kind: BackendType) -> Result<BackendSpec, PropertyError> {
        self.check_type(kind)?;
        let size_bytes = self.size_bytes.filter(|bytes| *bytes > 0);
        let size_bytes = size_bytes.ok_or(PropertyError::Missing { kind, property: "size" })?;
        let sharing = self.sharing(kind);
        let population = self.population();
        let reservation = if self.reserve == Some(false) { Reservation::Unreserved } else { Reservation::Reserved };
        if population == Population::Preallocated && reservation == Reservation::Unreserved {
            let why = "memory that is taken at once is set aside";
            return Err(PropertyError::Excludes { property: "prealloc", other: "reserve", why });
        }
        self.check_discard(sharing)?;
        let tag_text = self.tag.clone().unwrap_or_default();
        let tag = Tag::parse(&tag_text).map_err(|error| PropertyError::Tag { text: tag_text.clone(), error })?;
        let kind = self.kind(kind)?;
        Ok(BackendSpec { kind, size_bytes, sharing, population, reservation, tag, tag_text })
    }

    /// Memory of a memfd is shared unless it is asked otherwise: it is made to be given away.
    fn sharing(&self, kind: BackendType) -> Sharing {
        if self.share.unwrap_or(kind == BackendType::Memfd) { Sharing::Shared } else { Sharing::Private }
    }

    fn population(&self) -> Population {
        if self.prealloc == Some(true) { Population::Preallocated } else { Population::OnDemand }
    }

    /// Bytes that a backend does not put into its file are not its to take out.
    fn check_discard(&self, sharing: Sharing) -> Result<(), PropertyError> {
        if self.discard_data != Some(true) {
            return Ok(());
        }
        if self.readonly == Some(true) {
            let why = "a file that is only read loses nothing";
            return Err(PropertyError::Excludes { property: "discard-data", other: "readonly", why });
        }
        match sharing {
            Sharing::Shared => Ok(()),
            Sharing::Private => Err(PropertyError::Needs { property: "discard-data", needs: "share=on" }),
        }
    }

    fn check_type(&self, kind: BackendType) -> Result<(), PropertyError> {
        let of_file = [
            ("mem-path", self.mem_path.is_some()),
            ("readonly", self.readonly.is_some()),
            ("discard-data", self.discard_data.is_some()),
            ("align", self.align_bytes.is_some()),
        ];
        let of_memfd = [
            ("hugetlb", self.hugetlb.is_some()),
            ("hugetlbsize", self.hugetlbsize_bytes.is_some()),
            ("seal", self.seal.is_some()),
        ];
        let is_foreign = |of: BackendType| of != kind;
        let foreign = of_file.iter().filter(|_| is_foreign(BackendType::File));
        let mut foreign = foreign.chain(of_memfd.iter().filter(|_| is_foreign(BackendType::Memfd)));
        match foreign.find(|(_, is_given)| *is_given) {
            Some((property, _)) => Err(PropertyError::NotOfType { kind, property }),
            None => Ok(()),
        }
    }

    fn kind(self, kind: BackendType) -> Result<BackendKind, PropertyError> {
        Ok(match kind {
            BackendType::Ram => BackendKind::Ram,
            BackendType::Memfd => BackendKind::Memfd {
                seal: if self.seal == Some(false) { Seal::Unsealed } else { Seal::Sealed },
                huge_pages: self.huge_pages()?,
            },
            BackendType::File => BackendKind::File {
                align_bytes: page_multiple("align", self.align_bytes)?,
                path: self.mem_path.ok_or(PropertyError::Missing { kind, property: "mem-path" })?,
                access: if self.readonly == Some(true) { FileAccess::ReadOnly } else { FileAccess::ReadWrite },
                discard: if self.discard_data == Some(true) { Discard::Discard } else { Discard::Keep },
            },
        })
    }

    fn huge_pages(&self) -> Result<Option<HugePages>, PropertyError> {
        let page_bytes = page_multiple("hugetlbsize", self.hugetlbsize_bytes)?;
        if self.hugetlb == Some(true) && self.reserve == Some(false) {
            let why = "a huge page that is not there when it is touched ends the process";
            return Err(PropertyError::Excludes { property: "hugetlb", other: "reserve", why });
        }
        match (self.hugetlb, page_bytes) {
            (Some(true), page_bytes) => Ok(Some(HugePages { page_bytes })),
            (_, Some(_)) => Err(PropertyError::Needs { property: "hugetlbsize", needs: "hugetlb=on" }),
            (_, None) => Ok(None),
        }
    }
}

fn page_multiple(property: &'static str, bytes: Option<u64>) -> Result<Option<u64>, PropertyError> {
    match bytes {
        // 0 is what QEMU shows where nothing was asked.
        None | Some(0) => Ok(None),
        Some(value) if value.is_power_of_two() && value >= PAGE_BYTES => Ok(Some(value)),
        Some(value) => Err(PropertyError::NotAPage { property, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized() -> BackendRequest {
        BackendRequest { size_bytes: Some(1 << 30), ..BackendRequest::default() }
    }

    #[test]
    fn defaults_are_those_of_qemu() {
        let ram = sized().spec(BackendType::Ram).unwrap();
        assert_eq!((ram.kind, ram.sharing, ram.population), (BackendKind::Ram, Sharing::Private, Population::OnDemand));
        let memfd = sized().spec(BackendType::Memfd).unwrap();
        assert_eq!(memfd.sharing, Sharing::Shared);
        assert_eq!(memfd.kind, BackendKind::Memfd { seal: Seal::Sealed, huge_pages: None });
    }

    #[test]
    fn what_is_not_obeyed_is_named() {
        let refused = |request: BackendRequest, kind| request.spec(kind).unwrap_err().to_string();
        let share = BackendRequest { seal: Some(true), ..sized() };
        assert_eq!(refused(share, BackendType::Ram), "memory-backend-ram has no property 'seal'");
        assert_eq!(refused(sized(), BackendType::File), "memory-backend-file needs the property 'mem-path'");
        let path = BackendRequest { mem_path: Some("x".into()), ..sized() };
        assert_eq!(refused(path, BackendType::Memfd), "memory-backend-memfd has no property 'mem-path'");
        let size = BackendRequest { hugetlbsize_bytes: Some(2 << 20), ..sized() };
        assert_eq!(refused(size, BackendType::Memfd), "'hugetlbsize' needs 'hugetlb=on'");
        let align = BackendRequest { mem_path: Some("x".into()), align_bytes: Some(5000), ..sized() };
        assert!(refused(align, BackendType::File).contains("align=5000"));
        let reserve = BackendRequest { prealloc: Some(true), reserve: Some(false), ..sized() };
        assert!(refused(reserve, BackendType::Ram).contains("'prealloc' and 'reserve' exclude each other"));
        let huge = BackendRequest { hugetlb: Some(true), reserve: Some(false), ..sized() };
        assert!(refused(huge, BackendType::Memfd).contains("'hugetlb' and 'reserve' exclude each other"));
        let file = BackendRequest { mem_path: Some("x".into()), discard_data: Some(true), ..sized() };
        assert_eq!(refused(file.clone(), BackendType::File), "'discard-data' needs 'share=on'");
        let file = BackendRequest { share: Some(true), readonly: Some(true), ..file };
        assert!(refused(file, BackendType::File).contains("'discard-data' and 'readonly' exclude each other"));
        assert!(refused(BackendRequest::default(), BackendType::Ram).contains("'size'"));
        let tag = BackendRequest { tag: Some("tm0".into()), ..sized() };
        assert!(refused(tag, BackendType::Ram).contains("tag=tm0"));
    }
}
