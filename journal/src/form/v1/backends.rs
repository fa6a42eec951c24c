//! What reaches the backend registry, what it decides, and its state, the devices aside.

use device::backends;

use crate::codec::Reader;
use crate::form::frozen::{Frozen, Passed, frozen};

use super::config::DeviceConfig;

frozen! {
    enum Input of backends::Input {
        ObjectAdd { id: String, spec: BackendSpec, source: Source },
        Retag { id: String, tag: [u8; 16], tag_text: String },
        ObjectDel { id: String },
        DeviceAdd { config: DeviceConfig, source: Source },
        RunStart { build: String, survivals: Vec<BackendSurvival> },
    }

    enum Fact of backends::Fact {
        Added { id: String, spec: BackendSpec, source: Source },
        Retagged { id: String, tag: [u8; 16], tag_text: String },
        Removed { id: String },
        Reserved { id: String, device: u8 },
        Attached { id: String, device: u8 },
        Freed { id: String },
        DeviceAdded { config: DeviceConfig, source: Source },
        Dedicated { id: String, device: u8 },
        DeviceRemoved,
        RunStarted { build: String },
        ContentsLost { id: String },
    }

    enum Source of backends::Source {
        CommandLine,
        Request,
    }

    enum Survival of backends::Survival {
        Kept,
        Lost,
    }

    struct BackendSpec of backends::BackendSpec {
        kind: BackendKind,
        size_bytes: u64,
        sharing: Sharing,
        population: Population,
        reservation: Reservation,
        tag: [u8; 16],
        tag_text: String,
    }

    enum BackendKind of backends::BackendKind {
        Ram,
        Memfd { seal: Seal, huge_pages: Option<HugePages> },
        File { path: String, access: FileAccess, discard: Discard, align_bytes: Option<u64> },
    }

    enum Seal of backends::Seal {
        Sealed,
        Unsealed,
    }

    struct HugePages of backends::HugePages {
        page_bytes: Option<u64>,
    }

    enum FileAccess of backends::FileAccess {
        ReadWrite,
        ReadOnly,
    }

    enum Discard of backends::Discard {
        Keep,
        Discard,
    }

    enum Population of backends::Population {
        OnDemand,
        Preallocated,
    }

    enum Sharing of backends::Sharing {
        Private,
        Shared,
    }

    enum Reservation of backends::Reservation {
        Reserved,
        Unreserved,
    }

    struct Backend of backends::Backend {
        spec: BackendSpec,
        source: Source,
        created: u64,
        holder: Holder,
        contents: Contents,
    }

    enum Holder of backends::Holder {
        Free,
        Reserved { device: u8, by: u64 },
        Attached { device: u8, by: u64 },
        Memdev { device: u8, by: u64 },
    }

    enum Contents of backends::Contents {
        Intact,
        Lost { by: u64 },
    }
}

/// A backend and what became of its bytes.
#[derive(bincode::Encode)]
pub(super) struct BackendSurvival {
    id: String,
    survival: Survival,
}

impl Frozen<(String, backends::Survival)> for BackendSurvival {
    fn of((id, survival): &(String, backends::Survival)) -> Self {
        Self { id: Frozen::of(id), survival: Frozen::of(survival) }
    }

    fn read(reader: &mut Reader<'_>) -> Option<(String, backends::Survival)> {
        Some((String::read(reader)?, Survival::read(reader)?))
    }
}

impl Passed for BackendSurvival {
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        String::pass(reader)?;
        Survival::pass(reader)
    }
}
