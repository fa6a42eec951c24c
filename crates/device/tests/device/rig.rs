//! A VM in one thread: every input is decided, admitted and made true as replay would, and the laws are checked after it.

use device::backends::{BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest, VmConfig};
use device::extents::{AddRequest, RegionRange, ReleaseRequest, Removal, SelectionPolicy, TagState};
use device::laws::{self, LAWS, Law, Watch};
use device::operation::{CommandReply, Fact, HostOutcome, Input, Reply, decide};
use device::vm::{Device, Vm};
use device::{Refusal, Seq, Stamp, VmTime, backends, extents, mailbox};
use wire::{Hpa, Opcode, ReturnCode, Tag};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) struct Rig {
    pub(crate) vm: Vm,
    pub(crate) seq: u64,
    pub(crate) facts: Vec<Fact>,
    /// Each law with what it remembers, until it is broken.
    pub(crate) watches: Vec<(&'static Law, Watch)>,
    /// What is done to decided facts before they are made true.
    pub(crate) harm: Option<Box<Harm>>,
    /// Laws of which the two forms did not say the same.
    pub(crate) disagreements: Vec<String>,
}

/// Changes facts that are about to be made true.
pub(crate) type Harm = dyn FnMut(&Vm, DeviceIndex, &mut Vec<Fact>);

pub(crate) fn tag(n: u8) -> Tag {
    let mut bytes = [0xa5; 16];
    bytes[0] = n;
    Tag::from_bytes(bytes)
}

/// The payload of 4802h and 4803h.
pub(crate) fn update(ranges: &[(u64, u64)], flags: u8) -> Vec<u8> {
    let mut payload = (ranges.len() as u32).to_le_bytes().to_vec();
    payload.extend([flags, 0, 0, 0]);
    for (start, len) in ranges {
        payload.extend(start.to_le_bytes());
        payload.extend(len.to_le_bytes());
        payload.extend([0; 8]);
    }
    payload
}

impl Rig {
    /// Two devices of `regions` regions of 1 GiB each.
    pub(crate) fn new(regions: u64) -> Self {
        let device = |id: &str| {
            DeviceConfig::lazy(&DeviceRequest {
                id: id.into(),
                serial: 1,
                num_dc_regions: Some(regions),
                dc_regions_total_size_bytes: Some(regions * GIB),
                mailbox_payload_bytes: Some(2048),
                ..DeviceRequest::default()
            })
            .expect("a device")
        };
        let mut rig = Self::without_devices();
        rig.plug(0, device("cxl-vmem0"));
        rig.plug(1, device("cxl-vmem1"));
        rig
    }

    /// A VM with two empty root ports.
    pub(crate) fn without_devices() -> Self {
        let config = VmConfig {
            memory_bytes: GIB,
            window_base: Hpa(0x1_1000_0000),
            windows_bytes: vec![8 * GIB],
            root_ports: vec!["rp0".into(), "rp1".into()],
        };
        let vm = Vm::new(config);
        let watches = LAWS.iter().map(|law| (law, Watch::of(&vm))).collect();
        Self { vm, seq: 0, facts: Vec::new(), watches, harm: None, disagreements: Vec::new() }
    }

    pub(crate) fn plug(&mut self, port: u8, config: DeviceConfig) -> Reply {
        let input = backends::Input::DeviceAdd { config, source: Source::CommandLine };
        self.decide_on(port, &Input::Backends(input), &[])
    }

    pub(crate) fn unplug(&mut self, port: u8, removal: Removal) -> Reply {
        let decoders = self.vm.devices[&DeviceIndex(port)].windows.committed();
        self.decide_on(port, &Input::Extents(extents::Input::Unplug { removal, decoders }), &[])
    }

    pub(crate) fn device(&self, port: u8) -> &Device {
        &self.vm.devices[&DeviceIndex(port)]
    }

    pub(crate) fn decide_on(&mut self, device: u8, input: &Input, outcomes: &[HostOutcome]) -> Reply {
        self.seq += 1;
        let stamp = Stamp { seq: Seq(self.seq), time: VmTime(self.seq * 1000) };
        let index = DeviceIndex(device);
        let (_, mut decision) = decide(&self.vm, index, stamp, input, outcomes).expect("a device");
        if let Some(harm) = &mut self.harm {
            harm(&self.vm, index, &mut decision.facts);
            self.keep_admitted(index, stamp, &mut decision.facts);
        }
        let before = laws::Before::of(&self.vm, index, stamp.seq, &decision.facts);
        for fact in &decision.facts {
            self.vm.admit(index, fact).expect("what is decided is admitted");
            self.vm.evolve(index, stamp, fact);
        }
        self.ask_laws(&before);
        self.facts = decision.facts;
        decision.reply
    }

    fn keep_admitted(&self, device: DeviceIndex, stamp: Stamp, facts: &mut Vec<Fact>) {
        let mut vm = self.vm.clone();
        facts.retain(|fact| {
            let is_admitted = vm.admit(device, fact).is_ok();
            if is_admitted {
                vm.evolve(device, stamp, fact);
            }
            is_admitted
        });
    }

    /// Both forms of each law must say the same; without harm, that it holds.
    fn ask_laws(&mut self, before: &laws::Before<'_>) {
        let (vm, is_harmed) = (&self.vm, self.harm.is_some());
        let disagreements = &mut self.disagreements;
        self.watches.retain_mut(|(law, watch)| {
            let near = watch.check([*law], before, vm);
            let whole = law.check(before, vm).and_then(|()| law.check_state(vm));
            if near != whole {
                disagreements.push(format!("{}: near {near:?}, whole {whole:?}", law.name));
            }
            assert!(is_harmed || whole.is_ok(), "{whole:?}");
            whole.is_ok()
        });
        assert!(is_harmed || disagreements.is_empty(), "{disagreements:?}");
    }

    pub(crate) fn object_add(&mut self, id: &str, tag: Tag, size_bytes: u64) -> Reply {
        let spec = BackendSpec {
            kind: BackendKind::Ram,
            size_bytes,
            sharing: Sharing::Shared,
            population: Population::OnDemand,
            reservation: Reservation::Reserved,
            tag,
            tag_text: tag.to_string(),
        };
        let input = backends::Input::ObjectAdd { id: id.into(), spec, source: Source::Request };
        self.decide_on(0, &Input::Backends(input), &[HostOutcome::Done])
    }

    pub(crate) fn object_del(&mut self, id: &str) -> Reply {
        self.decide_on(0, &Input::Backends(backends::Input::ObjectDel { id: id.into() }), &[])
    }

    pub(crate) fn add_on(&mut self, device: u8, region: u8, tag: Tag, extents: &[(u64, u64)]) -> Reply {
        let extents = extents.iter().map(|&(offset, len_bytes)| RegionRange { offset, len_bytes }).collect();
        let policy = SelectionPolicy::Prescriptive;
        let request = AddRequest { host_id: 0, policy, region, tag, extents };
        self.decide_on(device, &Input::Extents(extents::Input::Add(request)), &[])
    }

    pub(crate) fn add(&mut self, tag: Tag, extents: &[(u64, u64)]) -> Reply {
        self.add_on(0, 0, tag, extents)
    }

    pub(crate) fn release_with(&mut self, edit: impl FnOnce(&mut ReleaseRequest)) -> Reply {
        let mut request = ReleaseRequest::by_tag(0, Tag::NONE);
        edit(&mut request);
        self.decide_on(0, &Input::Extents(extents::Input::Release(request)), &[])
    }

    pub(crate) fn release(&mut self, tag: Tag) -> Reply {
        self.release_with(|request| request.tag = tag)
    }

    pub(crate) fn force(&mut self, tag: Tag) -> Reply {
        self.release_with(|request| (request.tag, request.removal) = (tag, Removal::Forced))
    }

    pub(crate) fn reset(&mut self) {
        self.decide_on(0, &Input::Extents(extents::Input::Reset), &[]);
    }

    /// Rings the doorbell of device 0 and routes the command as the mailbox does.
    pub(crate) fn command(&mut self, opcode: Opcode, payload: Vec<u8>) -> CommandReply {
        self.command_on(0, opcode, payload)
    }

    pub(crate) fn command_on(&mut self, device: u8, opcode: Opcode, payload: Vec<u8>) -> CommandReply {
        let config = self.device(device).config.clone();
        let declared_len_bytes = payload.len() as u32;
        let input = match mailbox::route(&config, opcode, declared_len_bytes, &payload) {
            mailbox::Route::Extents => Input::Extents(extents::Input::Command { opcode, payload }),
            mailbox::Route::Mailbox => Input::Mailbox(mailbox::Input::Doorbell { opcode, declared_len_bytes, payload }),
        };
        match self.decide_on(device, &input, &[]) {
            Reply::Command(reply) => reply,
            other => panic!("a command is answered, not {other:?}"),
        }
    }

    pub(crate) fn respond(&mut self, ranges: &[(u64, u64)]) -> ReturnCode {
        self.command(Opcode::ADD_DC_RESPONSE, update(ranges, 0)).return_code
    }

    pub(crate) fn give_back(&mut self, ranges: &[(u64, u64)]) -> ReturnCode {
        self.command(Opcode::RELEASE_DC, update(ranges, 0)).return_code
    }

    /// DPA and length of the extents that 4801h lists, from as many pages as it takes.
    pub(crate) fn list(&mut self) -> Vec<(u64, u64, Tag)> {
        let mut extents = Vec::new();
        loop {
            let mut payload = 1000u32.to_le_bytes().to_vec();
            payload.extend((extents.len() as u32).to_le_bytes());
            let answer = self.command(Opcode::GET_DC_EXTENT_LIST, payload).payload;
            let word = |at: usize| u64::from_le_bytes(answer[at..at + 8].try_into().unwrap());
            let (returned, total) = (word(0) as u32 as usize, (word(0) >> 32) as usize);
            for extent in 0..returned {
                let at = 16 + extent * 40;
                let tag = Tag::from_bytes(answer[at + 16..at + 32].try_into().unwrap());
                extents.push((word(at), word(at + 8), tag));
            }
            if extents.len() == total {
                return extents;
            }
            assert!(returned > 0, "a page with nothing in it");
        }
    }

    /// Kind, More, DPA, length and tag of the records in the DC event log.
    pub(crate) fn events(&mut self) -> Vec<(u8, u8, u64, u64, Tag)> {
        let answer = self.command(Opcode::GET_EVENT_RECORDS, vec![4]).payload;
        let count = u16::from_le_bytes([answer[0x14], answer[0x15]]);
        (0..usize::from(count))
            .map(|index| {
                let record = &answer[32 + index * 128..][..128];
                let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().unwrap());
                let tag = Tag::from_bytes(record[0x48..0x58].try_into().unwrap());
                (record[0x30], record[0x35], word(0x38), word(0x40), tag)
            })
            .collect()
    }

    /// Clears all records that are in the log, as a host does.
    pub(crate) fn clear_events(&mut self) {
        loop {
            let answer = self.command(Opcode::GET_EVENT_RECORDS, vec![4]).payload;
            let count = answer[0x14];
            if count == 0 {
                return;
            }
            let mut payload = vec![4, 0, count, 0, 0, 0];
            for index in 0..usize::from(count) {
                payload.extend(&answer[32 + index * 128 + 0x14..][..2]);
            }
            assert_eq!(self.command(Opcode::CLEAR_EVENT_RECORDS, payload).return_code, ReturnCode::Success);
        }
    }

    pub(crate) fn state(&self, tag: Tag) -> TagState {
        self.device(0).extents.tag_status(tag).state
    }

    pub(crate) fn generation(&self) -> u32 {
        self.device(0).extents.generation()
    }

    /// A backend of `len` bytes offered as one extent at `offset` of region 0 and accepted.
    pub(crate) fn accepted(&mut self, n: u8, offset: u64, len_bytes: u64) {
        assert_eq!(self.object_add(&format!("tm{n}"), tag(n), len_bytes), Reply::Done);
        assert_eq!(self.add(tag(n), &[(offset, len_bytes)]), Reply::Done);
        assert_eq!(self.respond(&[(offset, len_bytes)]), ReturnCode::Success);
        self.clear_events();
    }
}

/// The refusal in a reply.
pub(crate) fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        other => panic!("refused, not {other:?}"),
    }
}
