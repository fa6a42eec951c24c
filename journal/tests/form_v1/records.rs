//! Genesis and records: one for every input, fact, answer, outcome, origin and reply, refusals aside.

use device::backends::{
    self, BackendKind, BackendSpec, Discard, FileAccess, HugePages, Population, Reservation, Seal, Sharing, Source,
    Survival,
};
use device::config::{DeviceConfig, DeviceIndex, DynamicMemory, RegionConfig, StaticMemory, TagRule, VmConfig};
use device::extents::{
    self, AcceptedPiece, AddRequest, ChainPlace, EventKind, LoggedEvent, RegionRange, RejectReason, ReleaseCause,
    ReleaseRequest, Removal, RemovalPolicy, Sanitize, SelectionPolicy, TaggedRange,
};
use device::operation::{Answers, CommandReply, Fact, HostOutcome, Input, Reply};
use device::windows::{self, DecoderFields, Piece};
use device::{DpaRange, Refusal, Seq, Stamp, VmTime, mailbox};
use journal::record::{Genesis, Origin, Parent, Record, RecordedReply};
use wire::{BlockSize, Dpa, Hpa, Opcode, ReturnCode, Tag};

use super::Sample;

const MULTIPLE: u64 = 256 << 20;

/// Of sixteen different bytes.
pub(crate) fn tag(n: u8) -> Tag {
    Tag::from_bytes(std::array::from_fn(|place| n << 4 | place as u8))
}

pub(crate) fn range(n: u64) -> DpaRange {
    DpaRange { start: Dpa(n << 32 | 0x20_0000), len_bytes: n << 24 | 0x40_0000 }
}

pub(crate) fn vm_config() -> VmConfig {
    VmConfig {
        memory_bytes: 0x4000_0000,
        window_base: Hpa(0x1_1000_0000),
        windows_bytes: vec![0x2_0000_0000, 0x1000_0000],
        root_ports: vec!["rp0".into(), "rp1".into()],
    }
}

/// With no memory of its own.
pub(crate) fn tagged_config() -> DeviceConfig {
    let block = BlockSize::DEFAULT;
    DeviceConfig {
        id: "cxl-vmem0".into(),
        serial: 0x0102_0304_0506_0708,
        mailbox_payload_log2: 15,
        static_memory: None,
        dynamic_memory: DynamicMemory::Tagged,
        regions: vec![
            RegionConfig { base: Dpa(0), len_bytes: 2 * MULTIPLE, block },
            RegionConfig { base: Dpa(2 * MULTIPLE), len_bytes: MULTIPLE, block },
        ],
    }
}

/// With one backend behind its regions and one below them.
pub(crate) fn plain_config(tag_rule: TagRule) -> DeviceConfig {
    DeviceConfig {
        id: "cxl-vmem1".into(),
        serial: 7,
        mailbox_payload_log2: 20,
        static_memory: Some(StaticMemory { backend: "fixed".into(), len_bytes: MULTIPLE }),
        dynamic_memory: DynamicMemory::Plain { backend: "dc".into(), tag_rule },
        regions: vec![RegionConfig {
            base: Dpa(MULTIPLE),
            len_bytes: 4 * MULTIPLE,
            block: BlockSize::new(0x40).expect("a block size"),
        }],
    }
}

pub(crate) fn spec(kind: BackendKind) -> BackendSpec {
    BackendSpec {
        kind,
        size_bytes: 0x4000_0000,
        sharing: Sharing::Shared,
        population: Population::OnDemand,
        reservation: Reservation::Reserved,
        tag: tag(1),
        tag_text: "as it was given".into(),
    }
}

/// A record in which as little stands as can.
fn record(input: Input) -> Record {
    Record {
        stamp: Stamp { seq: Seq(0x0102), time: VmTime(0x0304_0506) },
        device: DeviceIndex(3),
        operation: Seq(0x0101),
        origin: Origin::Guest,
        input,
        outcomes: Vec::new(),
        answers: Answers::default(),
        facts: Vec::new(),
        reply: RecordedReply::Whole(Reply::Done),
    }
}

fn least() -> Record {
    record(Input::Extents(extents::Input::Reset))
}

pub(crate) fn refused_record(reply: RecordedReply) -> Record {
    Record { reply, ..least() }
}

pub(crate) fn samples() -> Vec<(String, Sample)> {
    let named = |(name, record): (&str, Record)| (name.to_owned(), Sample::Record(Box::new(record)));
    let records = [origins(), frames_of_decisions(), replies()].concat();
    let inputs = [mailbox_inputs(), extents_inputs(), backends_inputs(), windows_inputs()].concat();
    let inputs = inputs.into_iter().map(|(name, input)| (name, record(input)));
    let facts = [mailbox_facts(), extents_facts(), log_facts(), backends_facts(), windows_facts()].concat();
    let facts = facts.into_iter().map(|(name, fact)| (name, Record { facts: vec![fact], ..least() }));
    geneses().into_iter().chain(records.into_iter().chain(inputs).chain(facts).map(named)).collect()
}

fn geneses() -> Vec<(String, Sample)> {
    let run = Genesis { config: vm_config(), build: "dcd 1.2.3".into(), parent: None };
    let parent = Parent { journal: "/tmp/run".into(), shared: Seq(79), change: "drop #80".into() };
    let fork = Genesis { parent: Some(parent), ..run.clone() };
    vec![("genesis run".into(), Sample::Genesis(run)), ("genesis fork".into(), Sample::Genesis(fork))]
}

fn origins() -> Vec<(&'static str, Record)> {
    let with = |origin| Record { origin, ..least() };
    vec![
        ("origin guest", with(Origin::Guest)),
        ("origin operator", with(Origin::Operator)),
        ("origin command-line", with(Origin::CommandLine)),
        ("origin supervisor", with(Origin::Supervisor)),
        ("origin caused-by", with(Origin::CausedBy(Seq(0x0908)))),
    ]
}

fn frames_of_decisions() -> Vec<(&'static str, Record)> {
    let outcomes = vec![HostOutcome::Done, HostOutcome::Failed("no memory".into())];
    let (id, device) = ("tm1".to_owned(), DeviceIndex(3));
    let facts = Answers {
        backends: Some(Ok(vec![backends::Fact::Attached { id: id.clone(), device }, backends::Fact::Freed { id }])),
        windows: Some(Ok(vec![windows::Fact::Unmapped { ranges: vec![range(1)] }])),
    };
    let refusals = Answers {
        backends: Some(Err(Refusal::NoBackend { tag: tag(1) })),
        windows: Some(Err(Refusal::Mapping { range: range(1), reason: "no slot is left".into() })),
    };
    vec![
        ("outcomes", Record { outcomes, ..least() }),
        ("answers facts", Record { answers: facts, ..least() }),
        ("answers refusals", Record { answers: refusals, ..least() }),
    ]
}

fn replies() -> Vec<(&'static str, Record)> {
    let with = |reply| Record { reply, ..least() };
    let command = CommandReply { return_code: ReturnCode::InvalidExtentList, payload: vec![1, 2, 3, 4] };
    let digest = RecordedReply::Digest {
        return_code: ReturnCode::Success,
        len_bytes: 0x1001,
        digest: std::array::from_fn(|place| place as u8),
        head: vec![9, 8, 7],
    };
    vec![
        ("reply done", with(RecordedReply::Whole(Reply::Done))),
        ("reply command", with(RecordedReply::Whole(Reply::Command(command)))),
        ("reply digest", with(digest)),
        ("reply panicked", with(RecordedReply::Panicked("index out of bounds".into()))),
    ]
}

fn mailbox_inputs() -> Vec<(&'static str, Input)> {
    let (offset, value) = (0x0102, 0x0304_0506);
    let doorbell =
        mailbox::Input::Doorbell { opcode: Opcode::GET_LOG, declared_len_bytes: 0x0506, payload: vec![1, 2, 3] };
    vec![
        ("input config-write", Input::Mailbox(mailbox::Input::ConfigWrite { offset, width: 4, value })),
        ("input mailbox-control", Input::Mailbox(mailbox::Input::MailboxControl { value })),
        (
            "input msix-write",
            Input::Mailbox(mailbox::Input::MsixWrite { offset: offset.into(), width: 8, value: 0x0708_0000_0000 }),
        ),
        ("input doorbell", Input::Mailbox(doorbell)),
    ]
}

fn extents_inputs() -> Vec<(&'static str, Input)> {
    let extents = vec![RegionRange { offset: 0x10, len_bytes: 0x20 }, RegionRange { offset: 0x30, len_bytes: 0x40 }];
    let release = ReleaseRequest {
        host_id: 0x0102,
        policy: RemovalPolicy::TagBased,
        removal: Removal::Requested,
        sanitize: Sanitize::Keep,
        region: 3,
        tag: tag(4),
        extents: Vec::new(),
    };
    let forced = ReleaseRequest {
        policy: RemovalPolicy::Prescriptive,
        removal: Removal::Forced,
        sanitize: Sanitize::OnRelease,
        extents: extents.clone(),
        ..release.clone()
    };
    let add = |policy| {
        let request = AddRequest { host_id: 0x0102, policy, region: 3, tag: tag(4), extents: extents.clone() };
        Input::Extents(extents::Input::Add(request))
    };
    let command = extents::Input::Command { opcode: Opcode::RELEASE_DC, payload: vec![1, 2, 3] };
    let unplug = |removal| Input::Extents(extents::Input::Unplug { removal, decoders: 5 });
    vec![
        ("input add free", add(SelectionPolicy::Free)),
        ("input add contiguous", add(SelectionPolicy::Contiguous)),
        ("input add prescriptive", add(SelectionPolicy::Prescriptive)),
        ("input add enable-shared-access", add(SelectionPolicy::EnableSharedAccess)),
        ("input release", Input::Extents(extents::Input::Release(release))),
        ("input release forced", Input::Extents(extents::Input::Release(forced))),
        ("input command", Input::Extents(command)),
        ("input reset", Input::Extents(extents::Input::Reset)),
        ("input unplug", unplug(Removal::Requested)),
        ("input unplug forced", unplug(Removal::Forced)),
    ]
}

fn kinds() -> Vec<(&'static str, BackendSpec)> {
    let memfd = |seal, huge_pages| spec(BackendKind::Memfd { seal, huge_pages });
    let file = |access, discard, align_bytes| {
        spec(BackendKind::File { path: "dir/file".into(), access, discard, align_bytes })
    };
    vec![
        ("input object-add ram", spec(BackendKind::Ram)),
        ("input object-add memfd", memfd(Seal::Sealed, None)),
        ("input object-add memfd unsealed", memfd(Seal::Unsealed, Some(HugePages { page_bytes: None }))),
        ("input object-add memfd huge", memfd(Seal::Sealed, Some(HugePages { page_bytes: Some(0x20_0000) }))),
        ("input object-add file", file(FileAccess::ReadWrite, Discard::Keep, None)),
        ("input object-add file discard", file(FileAccess::ReadWrite, Discard::Discard, Some(0x1000))),
        (
            "input object-add file readonly",
            BackendSpec { sharing: Sharing::Private, ..file(FileAccess::ReadOnly, Discard::Keep, None) },
        ),
        (
            "input object-add preallocated",
            BackendSpec { population: Population::Preallocated, ..spec(BackendKind::Ram) },
        ),
        ("input object-add unreserved", BackendSpec { reservation: Reservation::Unreserved, ..spec(BackendKind::Ram) }),
    ]
}

fn backends_inputs() -> Vec<(&'static str, Input)> {
    let source = Source::Request;
    let add = |(name, spec)| (name, Input::Backends(backends::Input::ObjectAdd { id: "tm1".into(), spec, source }));
    let mut inputs: Vec<_> = kinds().into_iter().map(add).collect();
    let retag = backends::Input::Retag { id: "tm1".into(), tag: tag(2), tag_text: "another".into() };
    let plug = |config, source| Input::Backends(backends::Input::DeviceAdd { config, source });
    let survivals = vec![("tm0".into(), Survival::Kept), ("tm1".into(), Survival::Lost)];
    let start = backends::Input::RunStart { build: "dcd 1.2.3".into(), survivals };
    inputs.extend([
        ("input retag", Input::Backends(retag)),
        ("input object-del", Input::Backends(backends::Input::ObjectDel { id: "tm1".into() })),
        ("input device-add tagged", plug(tagged_config(), Source::CommandLine)),
        ("input device-add plain", plug(plain_config(TagRule::Reusable), Source::Request)),
        ("input run-start", Input::Backends(start)),
    ]);
    inputs
}

pub(crate) fn decoder_fields() -> DecoderFields {
    DecoderFields { base: Hpa(0x1_1000_0000), size_bytes: 0x1000_0000, skip_bytes: 0, control: 0x0100 }
}

fn windows_inputs() -> Vec<(&'static str, Input)> {
    let fields = DecoderFields { skip_bytes: 0x2000_0000, control: 0x0123, ..decoder_fields() };
    vec![
        ("input hdm-control", Input::Windows(windows::Input::HdmGlobalControl { value: 2 })),
        ("input decoder-commit", Input::Windows(windows::Input::DecoderCommit { decoder: 1, fields })),
        ("input decoder-uncommit", Input::Windows(windows::Input::DecoderUncommit { decoder: 1 })),
    ]
}

fn mailbox_facts() -> Vec<(&'static str, Fact)> {
    let (offset, value) = (0x0102, 0x0304_0506);
    let msix = mailbox::Fact::MsixWritten { offset: offset.into(), width: 8, value: 0x0708_0000_0000 };
    vec![
        ("fact config-written", Fact::Mailbox(mailbox::Fact::ConfigWritten { offset, width: 4, value })),
        ("fact mailbox-control-set", Fact::Mailbox(mailbox::Fact::MailboxControlSet { value })),
        ("fact msix-written", Fact::Mailbox(msix)),
        ("fact policy-set", Fact::Mailbox(mailbox::Fact::PolicySet { policy: [1, 2, 3, 4, 5] })),
        ("fact mailbox reset", Fact::Mailbox(mailbox::Fact::Reset)),
    ]
}

pub(crate) fn event(handle: u16, kind: EventKind, place: ChainPlace) -> LoggedEvent {
    LoggedEvent {
        handle,
        kind,
        place,
        range: range(1),
        tag: tag(2),
        shared_sequence: 0x0304,
        timestamp_ns: 0x0506_0708_090a,
        available_extents: 0x0b0c,
        available_tags: 0x0d0e,
    }
}

fn log_facts() -> Vec<(&'static str, Fact)> {
    let events = vec![
        event(1, EventKind::Add, ChainPlace::More),
        event(2, EventKind::Release, ChainPlace::Last),
        event(3, EventKind::ForcedRelease, ChainPlace::Last),
    ];
    vec![
        ("fact logged", Fact::Extents(extents::Fact::Logged { events })),
        ("fact log-overflowed", Fact::Extents(extents::Fact::LogOverflowed { events: 3, at_ns: 0x0506 })),
        ("fact events-cleared", Fact::Extents(extents::Fact::EventsCleared { count: 3 })),
        ("fact all-events-cleared", Fact::Extents(extents::Fact::AllEventsCleared)),
    ]
}

fn extents_facts() -> Vec<(&'static str, Fact)> {
    let (offer, region, ranges) = (Seq(0x0708), 3, vec![range(1), range(2)]);
    let tagged = vec![TaggedRange { region, tag: tag(4), range: range(1) }];
    let piece = |position| AcceptedPiece { position, range: range(1), offset_bytes: 0x6000 };
    let rejected = |reason| extents::Fact::Rejected { offer, region, tag: tag(4), ranges: ranges.clone(), reason };
    let released = |cause| extents::Fact::Released { ranges: tagged.clone(), cause };
    let offered =
        extents::Fact::Offered { host_id: 0x0102, region, tag: tag(4), backend: "tm1".into(), ranges: ranges.clone() };
    let chained = extents::Fact::ResponseChained { opcode: Opcode::ADD_DC_RESPONSE, ranges: ranges.clone() };
    let facts = vec![
        ("fact offered", offered),
        ("fact response-chained", chained),
        ("fact chain-ended", extents::Fact::ChainEnded),
        ("fact accepted", extents::Fact::Accepted { offer, region, tag: tag(4), pieces: vec![piece(1), piece(0)] }),
        ("fact rejected host", rejected(RejectReason::Host)),
        ("fact rejected reset", rejected(RejectReason::Reset)),
        ("fact rejected forced", rejected(RejectReason::Forced)),
        ("fact rejected unplug", rejected(RejectReason::Unplug)),
        ("fact died", extents::Fact::Died { offer, region, tag: tag(4), ranges: ranges.clone() }),
        ("fact dead-answered", extents::Fact::DeadAnswered { offer }),
        ("fact retired", extents::Fact::Retired { offer }),
        ("fact release-requested", extents::Fact::ReleaseRequested { ranges: tagged.clone() }),
        ("fact released host", released(ReleaseCause::Host)),
        ("fact released forced", released(ReleaseCause::Forced)),
        ("fact released unplug", released(ReleaseCause::Unplug)),
        ("fact timestamp-set", extents::Fact::TimestampSet { host_ns: 0x0102_0304_0506_0708 }),
        ("fact extents reset", extents::Fact::Reset),
    ];
    facts.into_iter().map(|(name, fact)| (name, Fact::Extents(fact))).collect()
}

fn backends_facts() -> Vec<(&'static str, Fact)> {
    let (id, device) = (|| "tm1".to_owned(), DeviceIndex(3));
    let added = |source| backends::Fact::Added { id: id(), spec: spec(BackendKind::Ram), source };
    let facts = vec![
        ("fact added", added(Source::Request)),
        ("fact added command-line", added(Source::CommandLine)),
        ("fact retagged", backends::Fact::Retagged { id: id(), tag: tag(2), tag_text: "another".into() }),
        ("fact removed", backends::Fact::Removed { id: id() }),
        ("fact reserved", backends::Fact::Reserved { id: id(), device }),
        ("fact attached", backends::Fact::Attached { id: id(), device }),
        ("fact freed", backends::Fact::Freed { id: id() }),
        (
            "fact device-added tagged",
            backends::Fact::DeviceAdded { config: tagged_config(), source: Source::CommandLine },
        ),
        (
            "fact device-added plain",
            backends::Fact::DeviceAdded { config: plain_config(TagRule::Unique), source: Source::Request },
        ),
        ("fact dedicated", backends::Fact::Dedicated { id: id(), device }),
        ("fact device-removed", backends::Fact::DeviceRemoved),
        ("fact run-started", backends::Fact::RunStarted { build: "dcd 1.2.3".into() }),
        ("fact contents-lost", backends::Fact::ContentsLost { id: id() }),
    ];
    facts.into_iter().map(|(name, fact)| (name, Fact::Backends(fact))).collect()
}

fn windows_facts() -> Vec<(&'static str, Fact)> {
    let fields = DecoderFields { skip_bytes: 0x2000_0000, control: 0x0123, ..decoder_fields() };
    let pieces = vec![Piece { range: range(1), backend: "tm1".into(), offset_bytes: 0x6000 }];
    let facts = vec![
        ("fact hdm-control-set", windows::Fact::HdmGlobalControlSet { value: 2 }),
        ("fact decoder-committed", windows::Fact::DecoderCommitted { decoder: 1, fields, dpa: Dpa(0x3000_0000) }),
        ("fact decoder-failed", windows::Fact::DecoderFailed { decoder: 1 }),
        ("fact decoder-uncommitted", windows::Fact::DecoderUncommitted { decoder: 1 }),
        ("fact mapped", windows::Fact::Mapped { pieces }),
        ("fact unmapped", windows::Fact::Unmapped { ranges: vec![range(1), range(2)] }),
        ("fact windows reset", windows::Fact::Reset),
    ];
    facts.into_iter().map(|(name, fact)| (name, Fact::Windows(fact))).collect()
}
