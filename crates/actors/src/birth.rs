//! How a life of a VM begins: from a journal, a state, memory and perhaps what the guest saw of it, to actors.
//!
//! ```text
//!  state, memories ──▶ actors, their registers, mappings ──┬── nothing: the guest boots
//!                                                          └── the guest's side: registers, bridges and processors as they were
//! ```
//!
//! The guest stands still when it has begun. Deliberately absent: where all that comes from.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use device::Seq;
use device::vm::Vm as State;
use journal::Journal;
use kameo::actor::PreparedActor;
use kameo::mailbox::unbounded;
use memory::{HostMemory, Window};
use platform::{Platform, PlatformParts};
use replay::Followed;

use crate::backend_registry::BackendRegistry;
use crate::bus::GuestBus;
use crate::fatal::{FatalFlag, Raised};
use crate::gate::Gate;
use crate::guest_side::GuestSide;
use crate::guest_vcpu::GuestVcpu;
use crate::kvm_guest::{Ahead, KvmGuest, KvmParts};
use crate::outbox::Outbox;
use crate::parts::Parts;
use crate::processor::Processor;
use crate::recorder::Recorder;
use crate::slots::Slots;
use crate::start::{Accel, StartOptions};
use crate::start_error::StartError;

/// What a life begins with.
pub(crate) struct Birth {
    pub(crate) journal: Journal,
    pub(crate) followed: Option<Followed>,
    pub(crate) outbox: Outbox,
    pub(crate) state: State,
    /// The record after which the state is.
    pub(crate) last: Seq,
    pub(crate) ram: Arc<HostMemory>,
    pub(crate) memories: BTreeMap<String, Arc<HostMemory>>,
    /// What the guest sees and is; `None`: it boots.
    pub(crate) guest_side: Option<GuestSide>,
    /// What was made of its machine already.
    pub(crate) ahead: Option<Ahead>,
}

/// Begins a life.
pub(crate) fn begin(options: &StartOptions, raised: &Raised, birth: Birth) -> Result<Parts, StartError> {
    let Birth { journal, followed, outbox, state, last, ram, memories, guest_side, ahead } = birth;
    let State { config, backends, devices } = state;
    let fatal = FatalFlag::new(raised.clone(), outbox.clone());
    let config = Arc::new(config);
    let recorder = Recorder::new(journal.clone(), fatal.clone());
    // What is durable at the start is everything: answers to reads before the first record do not wait.
    outbox.durable(last);
    let registry = PreparedActor::<BackendRegistry>::new(unbounded());
    let window = Arc::new(Window::new(config.window_base, config.window_bytes()));
    let root_ports = config.root_ports.len() as u8;
    let platform = Arc::new(Platform::new(PlatformParts { ram, window: Arc::clone(&window), root_ports }));
    let gate = Arc::new(Gate::new());
    // Held back until the start is complete.
    gate.pause();
    let kvm = match options.accel {
        Accel::Soft => None,
        Accel::Kvm { vcpus } => Some(KvmGuest::new(KvmParts {
            platform: Arc::clone(&platform),
            vcpus,
            program: options.guest.clone(),
            fatal: fatal.clone(),
            journal: journal.clone(),
            state: guest_side.as_ref().and_then(|side| side.machine.as_ref()),
            ahead,
        })?),
    };
    let processor = Processor { gate: Arc::clone(&gate), kvm };
    let slots = Slots {
        recorder: recorder.clone(),
        outbox: outbox.clone(),
        registry: registry.actor_ref().clone(),
        listener: Arc::clone(&options.listener),
        platform: Arc::clone(&platform),
        window,
        processor: processor.clone(),
    };
    let mut actors = BTreeMap::new();
    for (index, device) in devices {
        let device = match &guest_side {
            None => slots.plug(index, device, &memories, last).map_err(StartError::Mapping)?,
            Some(side) => slots.plug_again(index, device, &memories, last, side.face(index)?)?,
        };
        actors.insert(index, device);
    }
    if let Some(side) = &guest_side {
        side.load(&platform)?;
        processor.settled();
    }
    registry.spawn(BackendRegistry {
        config: Arc::clone(&config),
        recorder,
        outbox,
        state: backends,
        memories,
        last_fact: last,
    });
    let bus = GuestBus::new(platform, gate);
    let guest = GuestVcpu::spawn_for(options.guest.clone(), &bus, processor);
    let devices = RwLock::new(actors);
    Ok(Parts { config, journal, followed, fatal, slots, devices, guest, bus })
}
