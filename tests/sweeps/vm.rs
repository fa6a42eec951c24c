//! A VM in this process without a guest, and its mailbox as a host's instructions reach it.

use std::sync::Arc;

use actors::{Accel, GuestBus, GuestProgram, JournalPlace, StartOptions, Vm, VmRequest};
use device::backends::{BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
use device::config::{DeviceIndex, DeviceRequest, VmConfig};
use device::extents::{AddRequest, RegionRange, SelectionPolicy};
use driver::blocks::locate;
use driver::discover::discover;
use driver::{Bus, Host};
use journal::Durability;
use platform::AddressMap;
use tokio::runtime::Runtime;
use wire::{Hpa, Tag};

pub(crate) const SERIAL: u64 = 0x1122_3344_5566_7788;
pub(crate) const PAYLOAD_LOG2: u8 = 15;
pub(crate) const PAYLOAD_BYTES: usize = 1 << PAYLOAD_LOG2;
const MIB: u64 = 1 << 20;
const DEVICE: DeviceIndex = DeviceIndex(0);
/// Waits for a doorbell at most: each ends with a completion, or after some milliseconds.
const RELAXES_MAX: u32 = 1_000;

pub(crate) struct Machine {
    pub(crate) runtime: Runtime,
    pub(crate) vm: Vm,
    pub(crate) bus: GuestBus,
}

fn vm_request() -> VmRequest {
    let device = DeviceRequest {
        id: "cxl-vmem0".into(),
        serial: SERIAL,
        num_dc_regions: Some(2),
        dc_regions_total_size_bytes: Some(4096 * MIB),
        dc_block_size_bytes: Some(2 * MIB),
        mailbox_payload_bytes: Some(PAYLOAD_BYTES as u64),
        ..DeviceRequest::default()
    };
    let window_base = AddressMap::new(64 * MIB).fixed_window_base().expect("a base");
    let (windows_bytes, root_ports) = (vec![4096 * MIB], vec!["rp0".into()]);
    let config = VmConfig { memory_bytes: 64 * MIB, window_base, windows_bytes, root_ports };
    VmRequest { config, devices: vec![device] }
}

impl Machine {
    /// A device at power-on, and nobody who drives it.
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio");
        let options = StartOptions {
            vm: Some(vm_request()),
            default_vm: vm_request(),
            journal: JournalPlace::None,
            durability: Durability::None,
            journal_limit_bytes: None,
            journal_keep_bytes: None,
            objects: Vec::new(),
            guest: GuestProgram::None,
            accel: Accel::Soft,
            build: "test".into(),
            listener: Arc::new(|_, _| ()),
            snapshots: None,
            restore: None,
            keeper: None,
            backend_dir: None,
            progress: Arc::new(|_, _, _| ()),
        };
        let (vm, _) = runtime.block_on(actors::start(options)).expect("a VM");
        let bus = vm.bus();
        Self { runtime, vm, bus }
    }

    /// Two extents accepted by a host, and an offer of two that it has not seen.
    pub(crate) fn accept_and_offer(&mut self, mut host: Host) {
        self.offer(0, &[(0, 2 * MIB), (4 * MIB, 2 * MIB)]);
        host.on_interrupt(&mut self.bus).expect("an answer");
        self.offer(1, &[(8 * MIB, 4 * MIB), (16 * MIB, 2 * MIB)]);
    }

    fn offer(&self, n: u8, extents: &[(u64, u64)]) {
        let tag = Tag::from_bytes([n + 1; 16]);
        let spec = BackendSpec {
            kind: BackendKind::Ram,
            size_bytes: extents.iter().map(|(_, len_bytes)| len_bytes).sum(),
            sharing: Sharing::Shared,
            population: Population::OnDemand,
            reservation: Reservation::Reserved,
            tag,
            tag_text: tag.to_string(),
        };
        let extents = extents.iter().map(|(offset, len_bytes)| RegionRange { offset: *offset, len_bytes: *len_bytes });
        let request = AddRequest {
            host_id: 0,
            policy: SelectionPolicy::Prescriptive,
            region: 0,
            tag,
            extents: extents.collect(),
        };
        self.runtime.block_on(self.vm.object_add(&format!("tm{n}"), spec, Source::Request)).expect("a backend");
        self.runtime.block_on(self.vm.add(DEVICE, request)).expect("an offer");
    }

    /// The mailbox, once its BAR is programmed.
    pub(crate) fn mailbox(&mut self) -> RawMailbox {
        let map = self.bus.platform_map();
        let functions = discover(&mut self.bus, &map).expect("buses");
        let blocks = locate(&mut self.bus, &functions[0]).expect("blocks");
        RawMailbox { base: blocks.mailbox.base, bus: self.bus.clone() }
    }

    pub(crate) fn end(self) {
        self.runtime.block_on(self.vm.shutdown());
    }
}

/// The mailbox registers.
pub(crate) struct RawMailbox {
    base: Hpa,
    bus: GuestBus,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) len_bytes: usize,
}

impl RawMailbox {
    fn at(&self, offset: u64) -> Hpa {
        Hpa(self.base.0 + offset)
    }

    /// Rings with these bytes in the payload area and this length in the command register.
    pub(crate) fn ring(&mut self, opcode: u16, len_bytes: usize, payload: &[u8]) -> Answer {
        let [control, command, status, background, area] = [0x04, 0x08, 0x10, 0x18, 0x20].map(|at| self.at(at));
        self.bus.write(area, payload);
        self.bus.write64(command, u64::from(opcode) | (len_bytes as u64) << 16);
        self.bus.write32(control, 1);
        let mut relaxes = 0;
        while self.bus.read32(control) & 1 != 0 {
            assert!(relaxes < RELAXES_MAX, "{opcode:04x} with {len_bytes} bytes hangs the doorbell");
            self.bus.relax();
            relaxes += 1;
        }
        let (status, shown) = (self.bus.read64(status), self.bus.read64(command));
        assert_eq!(status & 0xffff_0000_ffff_ffff, 0, "only the return code, after {opcode:04x}");
        assert_eq!(self.bus.read64(background), 0, "no background command, after {opcode:04x}");
        assert_eq!(shown & 0xffff, u64::from(opcode), "the opcode stays");
        Answer { code: (status >> 32) as u16, len_bytes: (shown >> 16) as usize }
    }

    /// The payload area's first bytes.
    pub(crate) fn payload(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let area = self.at(0x20);
        self.bus.read(area, &mut bytes);
        bytes
    }
}
