//! A recording as it comes from the field: a run, a device, and cycles of a backend's life, some of which stay.

use device::backends::{self, BackendRequest, BackendType, Source};
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest, VmConfig};
use device::extents::{
    self, AddRequest, RegionRange, ReleaseRequest, Removal, RemovalPolicy, Sanitize, SelectionPolicy,
};
use device::operation::{HostOutcome, Input, decide};
use device::vm::Vm;
use device::{Seq, Stamp, VmTime};
use journal::record::{Genesis, Origin, Record, RecordedReply};
use wire::{Hpa, Opcode, Tag};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// A VM in one thread that keeps its records.
pub(crate) struct Field {
    pub(crate) genesis: Genesis,
    pub(crate) records: Vec<Record>,
    vm: Vm,
}

pub(crate) fn tag(n: u64) -> Tag {
    let mut bytes = [0xa5; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Tag::from_bytes(bytes)
}

/// The payload of 4802h and 4803h.
pub(crate) fn update(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut payload = (ranges.len() as u32).to_le_bytes().to_vec();
    payload.extend([0; 4]);
    for (start, len) in ranges {
        payload.extend(start.to_le_bytes());
        payload.extend(len.to_le_bytes());
        payload.extend([0; 8]);
    }
    payload
}

impl Field {
    /// A run that has plugged a device of 4 GiB.
    pub(crate) fn new() -> Self {
        let config = VmConfig {
            memory_bytes: GIB,
            window_base: Hpa(0x1_1000_0000),
            windows_bytes: vec![8 * GIB],
            root_ports: vec!["rp0".into()],
        };
        let vm = Vm::new(config.clone());
        let mut field =
            Self { genesis: Genesis { config, build: "field".into(), parent: None }, records: Vec::new(), vm };
        let start = backends::Input::RunStart { build: "field".into(), survivals: Vec::new() };
        field.take(Origin::Supervisor, Input::Backends(start));
        let request = DeviceRequest {
            id: "cxl-vmem0".into(),
            dc_regions_total_size_bytes: Some(4 * GIB),
            ..DeviceRequest::default()
        };
        let config = DeviceConfig::lazy(&request).expect("a device");
        let plug = backends::Input::DeviceAdd { config, source: Source::CommandLine };
        field.take(Origin::CommandLine, Input::Backends(plug));
        field
    }

    /// As [`Field::new`], with so many cycles. Every 16th backend stays until 64 are there.
    pub(crate) fn with_cycles(cycles: u64) -> Self {
        let mut field = Self::new();
        for n in 0..cycles {
            field.cycle(n, if n % 16 == 0 && n < 1024 { Fate::Stays } else { Fate::Goes });
        }
        field
    }

    /// A backend of one extent that comes, is accepted and goes again.
    pub(crate) fn life(&mut self, n: u64, len_bytes: u64) {
        let extents = [(0, len_bytes)];
        self.object_add(n, len_bytes);
        self.add(n, &extents);
        self.command(Opcode::ADD_DC_RESPONSE, update(&extents));
        self.release(n);
        self.command(Opcode::RELEASE_DC, update(&extents));
    }

    pub(crate) fn cycle(&mut self, n: u64, fate: Fate) {
        // Those that stay have their places in the upper half.
        let base = if fate == Fate::Stays { 2 * GIB + n / 16 * 8 * MIB } else { n % 128 * 8 * MIB };
        let extents = [(base + 4 * MIB, 2 * MIB), (base, 2 * MIB)];
        self.object_add(n, 4 * MIB);
        self.add(n, &extents);
        self.command(Opcode::GET_EVENT_RECORDS, vec![4]);
        self.command(Opcode::ADD_DC_RESPONSE, update(&extents));
        self.clear_events();
        if fate == Fate::Stays {
            return;
        }
        self.release(n);
        self.command(Opcode::RELEASE_DC, update(&extents));
        self.clear_events();
        self.take(Origin::Operator, Input::Backends(backends::Input::ObjectDel { id: format!("tm{n}") }));
    }

    pub(crate) fn object_add(&mut self, n: u64, size_bytes: u64) {
        let text = tag(n).to_string();
        let request = BackendRequest { size_bytes: Some(size_bytes), tag: Some(text), ..BackendRequest::default() };
        let spec = request.spec(BackendType::Ram).expect("a backend");
        let input = backends::Input::ObjectAdd { id: format!("tm{n}"), spec, source: Source::Request };
        self.take(Origin::Operator, Input::Backends(input));
    }

    pub(crate) fn add(&mut self, n: u64, extents: &[(u64, u64)]) {
        let extents = extents.iter().map(|&(offset, len_bytes)| RegionRange { offset, len_bytes }).collect();
        let policy = SelectionPolicy::Prescriptive;
        let request = AddRequest { host_id: 0, policy, region: 0, tag: tag(n), extents };
        self.take(Origin::Operator, Input::Extents(extents::Input::Add(request)));
    }

    pub(crate) fn release(&mut self, n: u64) {
        let request = ReleaseRequest {
            host_id: 0,
            policy: RemovalPolicy::TagBased,
            removal: Removal::Requested,
            sanitize: Sanitize::Keep,
            region: 0,
            tag: tag(n),
            extents: Vec::new(),
        };
        self.take(Origin::Operator, Input::Extents(extents::Input::Release(request)));
    }

    pub(crate) fn command(&mut self, opcode: Opcode, payload: Vec<u8>) {
        self.take(Origin::Guest, Input::Extents(extents::Input::Command { opcode, payload }));
    }

    pub(crate) fn clear_events(&mut self) {
        let handles: Vec<_> = self.vm.devices[&DeviceIndex(0)].extents.log().iter().map(|event| event.handle).collect();
        let mut payload = vec![4, 0, handles.len() as u8, 0, 0, 0];
        payload.extend(handles.iter().flat_map(|handle| handle.to_le_bytes()));
        self.command(Opcode::CLEAR_EVENT_RECORDS, payload);
    }

    pub(crate) fn take(&mut self, origin: Origin, input: Input) {
        let seq = Seq(self.records.len() as u64 + 1);
        let (stamp, device) = (Stamp { seq, time: VmTime(seq.0 * 1000) }, DeviceIndex(0));
        let outcomes = if matches!(input, Input::Backends(backends::Input::ObjectAdd { .. })) {
            vec![HostOutcome::Done]
        } else {
            Vec::new()
        };
        let (answers, decision) = decide(&self.vm, device, stamp, &input, &outcomes).expect("a device");
        for fact in &decision.facts {
            self.vm.evolve(device, stamp, fact);
        }
        let (facts, reply) = (decision.facts, RecordedReply::of(&decision.reply));
        self.records.push(Record { stamp, device, operation: seq, origin, input, outcomes, answers, facts, reply });
    }
}

/// What becomes of a backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    Goes,
}
