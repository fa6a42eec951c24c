//! The backend registry: tagged host memory by id and by tag, who holds it, and the devices that are plugged.
//!
//! ```text
//!   object-add            Reserve               Attach
//! ───────────────▶ free ───────────▶ reserved ───────────▶ attached
//!                   ▲ ▲                  │                     │
//!  object-del ◀─────┘ └──────────────────┴─────── Free ◀───────┘
//! ```
//!
//! Reserved at the add, attached at the accept, free again when the last piece is released. The three transitions in
//! the middle are other actors' decisions: the registry *prepares* them (a pure answer) and the coordinator's record
//! carries its facts. A backend that a device names as its own memory is the device's from the plug to the unplug; that
//! is why the registry decides on plugs. Deliberately absent: the memory itself, and what a device does with it.

mod devices;
mod parts;
mod spec;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::Tag;

use crate::config::{DeviceConfig, DeviceIndex, VmConfig};
use crate::limits::BACKENDS_MAX;
use crate::operation::HostOutcome;
use crate::refusal::Refusal;
use crate::stamp::{Seq, Stamp};

pub use devices::Plugged;
pub use parts::Parts;
pub use spec::{
    BackendKind, BackendRequest, BackendSpec, BackendType, Discard, FileAccess, HugePages, Population, PropertyError,
    Reservation, Seal, Sharing,
};

/// Who asked for a backend: it decides who has to bring it again at a resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `--object` on the command line: the next run's command line must have it while it is in use.
    CommandLine,
    /// `object-add`: the journal remembers it, the next run makes it again.
    Request,
}

/// Who holds a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Holder {
    /// Nobody.
    Free,
    /// An offer that the host has not answered.
    Reserved {
        /// The device.
        device: DeviceIndex,
        /// The record of the offer.
        by: Seq,
    },
    /// Accepted extents.
    Attached {
        /// The device.
        device: DeviceIndex,
        /// The record of the acceptance.
        by: Seq,
    },
    /// A device, as its own memory.
    Memdev {
        /// The device.
        device: DeviceIndex,
        /// The record that plugged it.
        by: Seq,
    },
}

/// Whether a backend still has the bytes that were written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Contents {
    /// Nothing was lost since the backend was made.
    Intact,
    /// The process that had the bytes ended; the memory was made again, all zeros.
    Lost {
        /// The record that says so.
        by: Seq,
    },
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// What it was asked to be.
    pub spec: BackendSpec,
    /// Who asked for it.
    pub source: Source,
    /// The record that made it.
    pub created: Seq,
    /// Who holds it.
    pub holder: Holder,
    /// Whether its bytes are still there.
    pub contents: Contents,
}

/// What happened to a backend's bytes between two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Survival {
    /// The bytes are those of the last run.
    Kept,
    /// The memory was made again.
    Lost,
}

/// The registry's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    backends: BTreeMap<String, Backend>,
    by_tag: BTreeMap<Tag, String>,
    devices: BTreeMap<DeviceIndex, Plugged>,
    plugs: u64,
    runs: u64,
}

/// What reaches the registry itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Input {
    /// `object-add`, after the asking edge has made the memory (or failed: the record's host outcome).
    ObjectAdd {
        /// Its id.
        id: String,
        /// What it is asked to be.
        spec: BackendSpec,
        /// Who asked.
        source: Source,
    },
    /// `qom-set` of the tag.
    Retag {
        /// The backend.
        id: String,
        /// Its new tag.
        tag: Tag,
        /// The tag's text.
        tag_text: String,
    },
    /// `object-del`.
    ObjectDel {
        /// Its id.
        id: String,
    },
    /// A device is plugged into the root port that the record names.
    DeviceAdd {
        /// What it is made of.
        config: DeviceConfig,
        /// Who asked.
        source: Source,
    },
    /// A process took the journal over and opened the memory of every backend again.
    RunStart {
        /// The build that runs.
        build: String,
        /// For each backend whether its bytes survived.
        survivals: Vec<(String, Survival)>,
    },
}

/// What was decided to have happened to backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Fact {
    /// A backend was made.
    Added {
        /// Its id.
        id: String,
        /// What it is.
        spec: BackendSpec,
        /// Who asked.
        source: Source,
    },
    /// A backend has another tag.
    Retagged {
        /// Its id.
        id: String,
        /// Its tag.
        tag: Tag,
        /// The tag's text.
        tag_text: String,
    },
    /// A backend was deleted.
    Removed {
        /// Its id.
        id: String,
    },
    /// An offer took it.
    Reserved {
        /// Its id.
        id: String,
        /// The offering device.
        device: DeviceIndex,
    },
    /// The host accepted capacity on it.
    Attached {
        /// Its id.
        id: String,
        /// The accepting device.
        device: DeviceIndex,
    },
    /// Nobody holds it any more.
    Freed {
        /// Its id.
        id: String,
    },
    /// A device was plugged.
    DeviceAdded {
        /// What it is made of.
        config: DeviceConfig,
        /// Who asked.
        source: Source,
    },
    /// A backend became a device's own memory.
    Dedicated {
        /// Its id.
        id: String,
        /// The device.
        device: DeviceIndex,
    },
    /// A device was unplugged; all that it had is free.
    DeviceRemoved,
    /// A process began to run the VM.
    RunStarted {
        /// Its build.
        build: String,
    },
    /// Its bytes are gone.
    ContentsLost {
        /// Its id.
        id: String,
    },
}

/// What a coordinator asks the registry to prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Find the free backend of a tag and reserve it.
    Reserve {
        /// The tag.
        tag: Tag,
        /// How long the extents are together, in bytes.
        len_bytes: u64,
    },
    /// Attach a reserved backend.
    Attach {
        /// Its id.
        id: String,
    },
    /// Free held backends.
    Free {
        /// Their ids.
        ids: Vec<String>,
    },
    /// Lend a device its own memory, to map a piece of it. Changes nothing.
    Lend {
        /// Its id.
        id: String,
    },
    /// Unplug the asking device: free what it holds, and its own memory.
    Unplug {
        /// Ids of backends that it holds for extents.
        ids: Vec<String>,
    },
}

/// The registry's answer to [`Prepare`]: the facts that commit would make true.
pub type Prepared = Result<Vec<Fact>, Refusal>;

impl State {
    /// A backend by its id.
    pub fn get(&self, id: &str) -> Option<&Backend> {
        self.backends.get(id)
    }

    /// The backend that a tag names.
    pub fn by_tag(&self, tag: Tag) -> Option<(&str, &Backend)> {
        let id = self.by_tag.get(&tag)?;
        Some((id, self.backends.get(id)?))
    }

    /// All backends in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Backend)> {
        self.backends.iter().map(|(id, backend)| (id.as_str(), backend))
    }

    /// How many processes have run the VM.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// How many devices were ever plugged.
    pub fn plugs(&self) -> u64 {
        self.plugs
    }

    /// Answers what a coordinator wants to do, and changes nothing.
    pub fn prepare(&self, device: DeviceIndex, prepare: &Prepare) -> Prepared {
        match prepare {
            Prepare::Reserve { tag, len_bytes } => self.prepare_reserve(device, *tag, *len_bytes),
            Prepare::Attach { id } => Ok(vec![Fact::Attached { id: id.clone(), device }]),
            Prepare::Free { ids } => Ok(ids.iter().map(|id| Fact::Freed { id: id.clone() }).collect()),
            Prepare::Lend { .. } => Ok(Vec::new()),
            Prepare::Unplug { ids } => Ok(self.unplugged(device, ids)),
        }
    }

    fn prepare_reserve(&self, device: DeviceIndex, tag: Tag, len_bytes: u64) -> Prepared {
        let Some((id, backend)) = self.by_tag(tag) else {
            return Err(Refusal::NoBackend { tag });
        };
        if let Some((device, holding, by)) = self.holder_names(backend.holder) {
            return Err(Refusal::TagHeld { tag, backend: id.into(), device, holding, by });
        }
        if backend.spec.size_bytes != len_bytes {
            let backend_bytes = backend.spec.size_bytes;
            return Err(Refusal::BackendSize { backend: id.into(), backend_bytes, len_bytes });
        }
        Ok(vec![Fact::Reserved { id: id.into(), device }])
    }

    /// Decides what reaches the registry itself.
    pub fn decide(
        &self,
        vm: &VmConfig,
        device: DeviceIndex,
        input: &Input,
        outcomes: &[HostOutcome],
    ) -> Result<Vec<Fact>, Refusal> {
        match input {
            Input::ObjectAdd { id, spec, source } => self.decide_add(id, spec, *source, outcomes),
            Input::Retag { id, tag, tag_text } => self.decide_retag(id, *tag, tag_text),
            Input::ObjectDel { id } => self.decide_del(id),
            Input::DeviceAdd { config, source } => self.decide_device_add(vm, device, config, *source),
            Input::RunStart { build, survivals } => {
                let lost = survivals.iter().filter(|(_, survival)| *survival == Survival::Lost);
                let lost = lost.map(|(id, _)| Fact::ContentsLost { id: id.clone() });
                Ok(std::iter::once(Fact::RunStarted { build: build.clone() }).chain(lost).collect())
            }
        }
    }

    fn decide_add(
        &self,
        id: &str,
        spec: &BackendSpec,
        source: Source,
        outcomes: &[HostOutcome],
    ) -> Result<Vec<Fact>, Refusal> {
        if let Some(backend) = self.backends.get(id) {
            return Err(Refusal::DuplicateBackend { id: id.into(), by: backend.created });
        }
        self.check_new_tag(spec.tag)?;
        if self.backends.len() >= BACKENDS_MAX {
            return Err(Refusal::TooManyBackends { count: BACKENDS_MAX as u32 });
        }
        if let Some(HostOutcome::Failed(reason)) = outcomes.first() {
            return Err(Refusal::HostMemory { id: id.into(), reason: reason.clone() });
        }
        Ok(vec![Fact::Added { id: id.into(), spec: spec.clone(), source }])
    }

    fn check_new_tag(&self, tag: Tag) -> Result<(), Refusal> {
        match self.by_tag(tag).filter(|_| !tag.is_none()) {
            Some((backend, holder)) => Err(Refusal::DuplicateTag { tag, backend: backend.into(), by: holder.created }),
            None => Ok(()),
        }
    }

    fn decide_retag(&self, id: &str, tag: Tag, tag_text: &str) -> Result<Vec<Fact>, Refusal> {
        let Some(backend) = self.backends.get(id) else {
            return Err(Refusal::NoSuchBackend { id: id.into() });
        };
        if let Some((device, holding, by)) = self.holder_names(backend.holder) {
            return Err(Refusal::TagInUse { id: id.into(), tag: backend.spec.tag, device, holding, by });
        }
        if backend.spec.tag != tag {
            self.check_new_tag(tag)?;
        }
        Ok(vec![Fact::Retagged { id: id.into(), tag, tag_text: tag_text.into() }])
    }

    fn decide_del(&self, id: &str) -> Result<Vec<Fact>, Refusal> {
        let Some(backend) = self.backends.get(id) else {
            return Err(Refusal::NoSuchBackend { id: id.into() });
        };
        match self.holder_names(backend.holder) {
            Some((device, holding, by)) => Err(Refusal::BackendInUse { id: id.into(), device, holding, by }),
            None => Ok(vec![Fact::Removed { id: id.into() }]),
        }
    }

    /// Whether a fact from a file can be true of this state; if not, why.
    pub fn admit(&self, vm: &VmConfig, device: DeviceIndex, fact: &Fact) -> Result<(), String> {
        let held = |id: &str| self.backends.get(id).map(|backend| backend.holder);
        let fits = match fact {
            Fact::Added { id, spec, .. } => {
                !self.backends.contains_key(id) && (spec.tag.is_none() || !self.by_tag.contains_key(&spec.tag))
            }
            Fact::Retagged { id, tag, .. } => {
                let is_its_own = self.backends.get(id).is_some_and(|backend| backend.spec.tag == *tag);
                let is_new = tag.is_none() || is_its_own || !self.by_tag.contains_key(tag);
                held(id) == Some(Holder::Free) && is_new
            }
            Fact::Removed { id } | Fact::Reserved { id, .. } | Fact::Dedicated { id, .. } => {
                held(id) == Some(Holder::Free)
            }
            Fact::DeviceAdded { config, .. } => {
                config.check().is_ok()
                    && usize::from(device.0) < vm.root_ports.len()
                    && !self.devices.contains_key(&device)
            }
            Fact::DeviceRemoved => self.devices.contains_key(&device),
            Fact::Attached { id, .. } => matches!(held(id), Some(Holder::Reserved { .. })),
            Fact::Freed { id } => held(id).is_some_and(|holder| holder != Holder::Free),
            Fact::RunStarted { .. } => true,
            Fact::ContentsLost { id } => self.backends.contains_key(id),
        };
        if fits { Ok(()) } else { Err(format!("{fact:?} does not fit the backends")) }
    }

    /// Makes a fact true.
    pub fn evolve(&mut self, device: DeviceIndex, stamp: Stamp, fact: &Fact) {
        match fact {
            Fact::Added { id, spec, source } => {
                if !spec.tag.is_none() {
                    self.by_tag.insert(spec.tag, id.clone());
                }
                let (holder, contents) = (Holder::Free, Contents::Intact);
                let backend = Backend { spec: spec.clone(), source: *source, created: stamp.seq, holder, contents };
                self.backends.insert(id.clone(), backend);
            }
            Fact::Retagged { id, tag, tag_text } => self.retag(id, *tag, tag_text),
            Fact::Removed { id } => {
                if let Some(backend) = self.backends.remove(id) {
                    self.by_tag.remove(&backend.spec.tag);
                }
            }
            Fact::Reserved { id, device } => self.hold(id, Holder::Reserved { device: *device, by: stamp.seq }),
            Fact::Attached { id, device } => self.hold(id, Holder::Attached { device: *device, by: stamp.seq }),
            Fact::Freed { id } => self.hold(id, Holder::Free),
            Fact::Dedicated { id, device } => self.hold(id, Holder::Memdev { device: *device, by: stamp.seq }),
            Fact::DeviceAdded { config, source } => {
                let plugged = Plugged { config: config.clone(), source: *source, by: stamp.seq };
                self.devices.insert(device, plugged);
                self.plugs = self.plugs.saturating_add(1);
            }
            Fact::DeviceRemoved => drop(self.devices.remove(&device)),
            Fact::RunStarted { .. } => self.runs = self.runs.saturating_add(1),
            Fact::ContentsLost { id } => {
                if let Some(backend) = self.backends.get_mut(id) {
                    backend.contents = Contents::Lost { by: stamp.seq };
                }
            }
        }
    }

    fn retag(&mut self, id: &str, tag: Tag, tag_text: &str) {
        let Some(backend) = self.backends.get_mut(id) else { return };
        self.by_tag.remove(&backend.spec.tag);
        (backend.spec.tag, backend.spec.tag_text) = (tag, tag_text.into());
        if !tag.is_none() {
            self.by_tag.insert(tag, id.into());
        }
    }

    fn hold(&mut self, id: &str, holder: Holder) {
        if let Some(backend) = self.backends.get_mut(id) {
            backend.holder = holder;
        }
    }

    /// How a holder is named to people: device id, how it holds, since which record.
    fn holder_names(&self, holder: Holder) -> Option<(String, String, Seq)> {
        let (device, holding, by) = match holder {
            Holder::Free => return None,
            Holder::Reserved { device, by } => (device, "reserved", by),
            Holder::Attached { device, by } => (device, "attached", by),
            Holder::Memdev { device, by } => (device, "its own memory", by),
        };
        let plugged = self.devices.get(&device);
        let name = plugged.map_or_else(|| format!("device {}", device.0), |plugged| plugged.config.id.clone());
        Some((name, holding.into(), by))
    }
}
