//! Which variants the samples have. A variant that the device gets does not compile here until it has its line.

use std::collections::BTreeSet;

use device::backends::{
    self, BackendKind, BackendSpec, Contents, Discard, FileAccess, Holder, Population, Reservation, Seal, Sharing,
    Source, Survival,
};
use device::config::{DeviceConfig, DynamicMemory, TagRule};
use device::extents::{
    self, ChainPlace, EventKind, LoggedEvent, RejectReason, ReleaseCause, Removal, RemovalPolicy, Sanitize,
    SelectionPolicy, Standing, TagState, Told,
};
use device::operation::{Fact, HostOutcome, Input, Reply};
use device::vm::Device;
use device::windows::{self, DecoderParts};
use device::{Refusal, mailbox};
use journal::form::Keyframe;
use journal::record::{Origin, Record, RecordedReply};

use super::Sample;

/// The names of the variants of an enum, and which a value is.
trait Variants {
    const ALL: &'static [&'static str];
    fn name(&self) -> &'static str;
}

macro_rules! variants {
    ($($live:ty { $($variant:ident),+ $(,)? })+) => {
        $(impl Variants for $live {
            const ALL: &'static [&'static str] = &[$(concat!(stringify!($live), " ", stringify!($variant))),+];

            fn name(&self) -> &'static str {
                type Live = $live;
                match self {
                    $(Live::$variant { .. } => concat!(stringify!($live), " ", stringify!($variant)),)+
                }
            }
        })+

        /// Of everything that the form stores.
        fn every_variant() -> impl Iterator<Item = &'static str> {
            [$(<$live as Variants>::ALL),+].into_iter().flatten().copied()
        }
    };
}

variants! {
    Origin { Guest, Operator, CommandLine, Supervisor, CausedBy }
    Input { Mailbox, Extents, Backends, Windows }
    Fact { Mailbox, Extents, Backends, Windows }
    HostOutcome { Done, Failed }
    Result<(), ()> { Ok, Err }
    RecordedReply { Whole, Digest, Panicked }
    Reply { Done, Refused, Command }
    mailbox::Input { ConfigWrite, MailboxControl, MsixWrite, Doorbell }
    mailbox::Fact { ConfigWritten, MailboxControlSet, MsixWritten, PolicySet, Reset }
    extents::Input { Add, Release, Command, Reset, Unplug }
    SelectionPolicy { Free, Contiguous, Prescriptive, EnableSharedAccess }
    RemovalPolicy { TagBased, Prescriptive }
    Removal { Requested, Forced }
    Sanitize { Keep, OnRelease }
    extents::Fact {
        Offered, Logged, LogOverflowed, EventsCleared, AllEventsCleared, ResponseChained, ChainEnded, Accepted, Rejected,
        Died, DeadAnswered, Retired, ReleaseRequested, Released, TimestampSet, Reset,
    }
    RejectReason { Host, Reset, Forced, Unplug }
    ReleaseCause { Host, Forced, Unplug }
    EventKind { Add, Release, ForcedRelease }
    ChainPlace { More, Last }
    Standing { Pending, Dead }
    Told { NotYet, Refused }
    TagState { Unknown, Offered, Accepted, PartlyAccepted, Rejected, ReleaseRequested, Released, Forced, Dead }
    backends::Input { ObjectAdd, Retag, ObjectDel, DeviceAdd, RunStart }
    backends::Fact {
        Added, Retagged, Removed, Reserved, Attached, Freed, DeviceAdded, Dedicated, DeviceRemoved, RunStarted,
        ContentsLost,
    }
    Source { CommandLine, Request }
    Survival { Kept, Lost }
    BackendKind { Ram, Memfd, File }
    Seal { Sealed, Unsealed }
    FileAccess { ReadWrite, ReadOnly }
    Discard { Keep, Discard }
    Population { OnDemand, Preallocated }
    Sharing { Private, Shared }
    Reservation { Reserved, Unreserved }
    Holder { Free, Reserved, Attached, Memdev }
    Contents { Intact, Lost }
    DynamicMemory { Tagged, Plain }
    TagRule { Reusable, Unique }
    windows::Input { HdmGlobalControl, DecoderCommit, DecoderUncommit }
    windows::Fact {
        HdmGlobalControlSet, DecoderCommitted, DecoderFailed, DecoderUncommitted, Mapped, Unmapped, Reset,
    }
    DecoderParts { Idle, Failed, Committed }
    Refusal {
        Host, Region, SelectionPolicy, Sanitize, NoExtents, ZeroLength, Alignment, BeyondRegion, Overlap, AlreadyAccepted,
        AlreadyOffered, EventLogFull, ExtentTracking, TagTracking, TagNeeded, ReleaseTagNeeded, NoBackend, TagHeld,
        BackendSize, TagUnknown, TagInOtherRegion, TagRejected, TagDead, StillOffered, NotAccepted, OtherTag,
        DuplicateBackend, DuplicateTag, NoSuchBackend, TagInUse, DuplicateDevice, NoSuchPort, PortTaken, MemdevInUse,
        DeviceInUse, TagLive, Plug, BackendInUse, TooManyBackends, HostMemory, Mapping,
    }
}

/// The variants that were seen.
#[derive(Default)]
pub(crate) struct Seen(BTreeSet<&'static str>);

impl Seen {
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        every_variant().filter(|name| !self.0.contains(name)).collect()
    }

    pub(crate) fn look_at(&mut self, sample: &Sample) {
        match sample {
            Sample::Genesis(_) => {}
            Sample::Record(record) => self.record(record),
            Sample::Keyframe(keyframe) => self.keyframe(keyframe),
        }
    }

    fn see(&mut self, value: &impl Variants) {
        self.0.insert(value.name());
    }

    fn record(&mut self, record: &Record) {
        self.see(&record.origin);
        self.input(&record.input);
        record.outcomes.iter().for_each(|outcome| self.see(outcome));
        if let Some(prepared) = &record.answers.backends {
            self.see(&prepared.as_ref().map(drop).map_err(drop));
        }
        record.facts.iter().for_each(|fact| self.fact(fact));
        self.see(&record.reply);
        if let RecordedReply::Whole(reply) = &record.reply {
            self.see(reply);
            if let Reply::Refused(refusal) = reply {
                self.see(refusal);
            }
        }
    }

    fn input(&mut self, input: &Input) {
        self.see(input);
        match input {
            Input::Mailbox(input) => self.see(input),
            Input::Windows(input) => self.see(input),
            Input::Extents(input) => {
                self.see(input);
                match input {
                    extents::Input::Add(request) => self.see(&request.policy),
                    extents::Input::Release(request) => {
                        self.see(&request.policy);
                        self.see(&request.removal);
                        self.see(&request.sanitize);
                    }
                    extents::Input::Unplug { removal, .. } => self.see(removal),
                    extents::Input::Command { .. } | extents::Input::Reset => {}
                }
            }
            Input::Backends(input) => {
                self.see(input);
                match input {
                    backends::Input::ObjectAdd { spec, source, .. } => self.spec(spec, *source),
                    backends::Input::DeviceAdd { config, source } => self.config(config, *source),
                    backends::Input::RunStart { survivals, .. } => {
                        survivals.iter().for_each(|(_, survival)| self.see(survival));
                    }
                    backends::Input::Retag { .. } | backends::Input::ObjectDel { .. } => {}
                }
            }
        }
    }

    fn fact(&mut self, fact: &Fact) {
        self.see(fact);
        match fact {
            Fact::Mailbox(fact) => self.see(fact),
            Fact::Windows(fact) => self.see(fact),
            Fact::Backends(fact) => self.see(fact),
            Fact::Extents(fact) => {
                self.see(fact);
                match fact {
                    extents::Fact::Logged { events } => events.iter().for_each(|event| self.event(event)),
                    extents::Fact::Rejected { reason, .. } => self.see(reason),
                    extents::Fact::Released { cause, .. } => self.see(cause),
                    _ => {}
                }
            }
        }
    }

    fn event(&mut self, event: &LoggedEvent) {
        self.see(&event.kind);
        self.see(&event.place);
    }

    fn spec(&mut self, spec: &BackendSpec, source: Source) {
        self.see(&source);
        self.see(&spec.kind);
        self.see(&spec.sharing);
        self.see(&spec.population);
        self.see(&spec.reservation);
        match &spec.kind {
            BackendKind::Ram => {}
            BackendKind::Memfd { seal, .. } => self.see(seal),
            BackendKind::File { access, discard, .. } => {
                self.see(access);
                self.see(discard);
            }
        }
    }

    fn config(&mut self, config: &DeviceConfig, source: Source) {
        self.see(&source);
        self.see(&config.dynamic_memory);
        if let DynamicMemory::Plain { tag_rule, .. } = &config.dynamic_memory {
            self.see(tag_rule);
        }
    }

    fn keyframe(&mut self, keyframe: &Keyframe) {
        for (_, backend) in keyframe.vm.backends.iter() {
            self.see(&backend.holder);
            self.see(&backend.contents);
        }
        for (_, plugged) in keyframe.vm.backends.devices() {
            self.config(&plugged.config, plugged.source);
        }
        keyframe.vm.devices.values().for_each(|device| self.device(device));
    }

    fn device(&mut self, device: &Device) {
        let extents = device.extents.parts();
        for offer in &extents.offers {
            self.see(&offer.standing);
            if let Standing::Dead { told, .. } = &offer.standing {
                self.see(told);
            }
        }
        extents.ended.values().for_each(|ended| self.see(&ended.state));
        device.windows.parts().decoders.iter().for_each(|decoder| self.see(decoder));
    }
}
