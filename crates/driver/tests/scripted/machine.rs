//! A machine around a scripted device: configuration space with bridges, addresses that BARs and bridges decode, a clock.

use driver::{Bdf, Bus, PlatformMap, Width};
use wire::Hpa;
use wire::config_space::{
    BarOffset, CAPABILITY_MSIX, CxlCapability, DVSEC_CXL_DEVICE, DVSEC_REGISTER_LOCATOR, DVSEC_VENDOR_CXL,
    DvsecHeader1, EXTENDED_CAPABILITY_DVSEC, EXTENDED_CAPABILITY_SERIAL_NUMBER, ExtendedCapabilityHeader, MsixControl,
    RangeSizeLow, RegisterBlockLow,
};

use crate::device::Device;
use crate::exchange::Exchange;

pub(crate) const SERIAL: u64 = 0x1122_3344_5566_7788;
pub(crate) const WINDOW: u64 = 0x1_1000_0000;
pub(crate) const MSIX: u16 = 0x60;
pub(crate) const DVSEC_0: u16 = 0x10c;

/// Something that a driver did to memory space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read { bar: usize, offset: usize, len: usize },
    Write { bar: usize, offset: usize, bytes: Vec<u8> },
}

/// Where a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a root bus.
    Root(u8),
    /// Behind the bridge with this index.
    Behind(usize),
}

/// A function's configuration space.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) place: Place,
    pub(crate) device: u8,
    pub(crate) function: u8,
    pub(crate) space: Vec<u8>,
    /// What of each BAR register can be written.
    pub(crate) bar_masks: [u32; 6],
    pub(crate) bar_flags: [u32; 6],
}

impl Function {
    fn new(place: Place, device: u8, class: u32, header_type: u8) -> Self {
        let mut space = vec![0; 0x1000];
        space[..4].copy_from_slice(&[0x86, 0x80, 0x93, 0x0d]);
        space[9..12].copy_from_slice(&class.to_le_bytes()[..3]);
        space[0xe] = header_type;
        Self { place, device, function: 0, space, bar_masks: [0; 6], bar_flags: [0; 6] }
    }

    pub(crate) fn bridge(place: Place, device: u8) -> Self {
        Self::new(place, device, 0x06_0400, 1)
    }

    /// A CXL memory device with three 64-bit BARs.
    pub(crate) fn memory_device(place: Place, device: u8) -> Self {
        let mut function = Self::new(place, device, 0x05_0210, 0);
        function.bar_masks = [0xffff_0000, u32::MAX, 0xffff_0000, u32::MAX, 0xffff_f000, u32::MAX];
        function.bar_flags = [4, 0, 4, 0, 4, 0];
        function.put(0x06, &0x10_u16.to_le_bytes());
        function.put(0x34, &[MSIX as u8]);
        function.put(MSIX, &[CAPABILITY_MSIX, 0]);
        let control = MsixControl::new().with_table_size_less_one(15);
        function.put(MSIX + 2, &u16::from(control).to_le_bytes());
        function.put(MSIX + 4, &u32::from(BarOffset::at(4, 0)).to_le_bytes());
        function.put_extended(0x100, EXTENDED_CAPABILITY_SERIAL_NUMBER, DVSEC_0);
        function.put(0x104, &SERIAL.to_le_bytes());
        function.put_dvsec(DVSEC_0, DVSEC_CXL_DEVICE, 0x3c, 0x148);
        let capability = CxlCapability::new().with_io_capable(true).with_mem_capable(true).with_hdm_count(1);
        function.put(DVSEC_0 + 0xa, &u16::from(capability).to_le_bytes());
        let size_low = RangeSizeLow::new().with_memory_info_valid(true).with_memory_active(true);
        function.put(DVSEC_0 + 0x1c, &u32::from(size_low).to_le_bytes());
        function.put_dvsec(0x148, DVSEC_REGISTER_LOCATOR, 0x1c, 0);
        function.put(0x154, &u32::from(RegisterBlockLow::new().with_bir(0).with_id(1)).to_le_bytes());
        function.put(0x15c, &u32::from(RegisterBlockLow::new().with_bir(2).with_id(3)).to_le_bytes());
        function
    }

    pub(crate) fn put(&mut self, offset: u16, bytes: &[u8]) {
        self.space[usize::from(offset)..][..bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn get(&self, offset: u16, len: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes[..len].copy_from_slice(&self.space[usize::from(offset)..][..len]);
        u32::from_le_bytes(bytes)
    }

    fn put_extended(&mut self, offset: u16, id: u16, next: u16) {
        let header = ExtendedCapabilityHeader::new().with_id(id).with_version(1).with_next(next);
        self.put(offset, &u32::from(header).to_le_bytes());
    }

    fn put_dvsec(&mut self, offset: u16, id: u16, len_bytes: u16, next: u16) {
        self.put_extended(offset, EXTENDED_CAPABILITY_DVSEC, next);
        let header = DvsecHeader1::new().with_vendor_id(DVSEC_VENDOR_CXL).with_len_bytes(len_bytes);
        self.put(offset + 4, &u32::from(header).to_le_bytes());
        self.put(offset + 8, &id.to_le_bytes());
    }

    fn is_bridge(&self) -> bool {
        self.space[0xe] & 0x7f == 1
    }

    fn write(&mut self, offset: u16, bytes: &[u8]) {
        let bar = usize::from(offset.wrapping_sub(0x10) / 4);
        if !self.is_bridge() && (0x10..0x28).contains(&offset) {
            let value = u32::from_le_bytes(bytes.try_into().expect("a dword"));
            let kept = value & self.bar_masks[bar] | self.bar_flags[bar];
            return self.put(offset, &kept.to_le_bytes());
        }
        self.put(offset, bytes);
    }

    /// Base of a 64-bit BAR, if the function answers there.
    pub(crate) fn bar(&self, bar: u16) -> Option<u64> {
        let base = u64::from(self.get(0x14 + 4 * bar, 4)) << 32 | u64::from(self.get(0x10 + 4 * bar, 4) & !0xf);
        (self.get(4, 2) & 2 != 0).then_some(base)
    }

    /// Whether a bridge forwards an address.
    fn forwards(&self, hpa: u64) -> bool {
        let base = u64::from(self.get(0x20, 2) & 0xfff0) << 16;
        let limit = u64::from(self.get(0x22, 2) & 0xfff0) << 16 | 0xf_ffff;
        self.get(4, 2) & 2 != 0 && (base..=limit).contains(&hpa)
    }
}

/// The machine. The first memory device among its functions is the scripted one.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) functions: Vec<Function>,
    pub(crate) device: Device,
    pub(crate) accesses: Vec<Access>,
    pub(crate) now_ms: u64,
}

pub(crate) fn map() -> PlatformMap<'static> {
    PlatformMap {
        root_buses: &[0x0c],
        mmio_base: Hpa(0xc000_0000),
        mmio_len_bytes: 0x2000_0000,
        window_base: Hpa(WINDOW),
        window_len_bytes: 4 << 30,
    }
}

impl Machine {
    /// One port on bus 0Ch with the scripted device behind it.
    pub(crate) fn new(payload_log2: u8, script: impl IntoIterator<Item = Exchange>) -> Self {
        let functions = vec![Function::bridge(Place::Root(0x0c), 0), Function::memory_device(Place::Behind(0), 0)];
        Self { functions, device: Device::new(payload_log2, script), accesses: Vec::new(), now_ms: 0 }
    }

    /// Adds to the script.
    pub(crate) fn expect(&mut self, script: impl IntoIterator<Item = Exchange>) {
        self.device.script.extend(script);
    }

    /// What was sent since the last call; the script must be at its end.
    pub(crate) fn sent(&mut self) -> Vec<(u16, Vec<u8>)> {
        assert!(self.device.script.is_empty(), "the script goes on: {:?}", self.device.script);
        self.device.sent.drain(..).map(|(opcode, payload)| (opcode.0, payload)).collect()
    }

    /// The scripted device's function.
    pub(crate) fn endpoint(&mut self) -> &mut Function {
        self.functions.iter_mut().find(|function| !function.is_bridge()).expect("a device")
    }

    fn bus_of(&self, place: Place) -> Option<u8> {
        match place {
            Place::Root(bus) => Some(bus),
            Place::Behind(bridge) => {
                let bridge = &self.functions[bridge];
                let (secondary, subordinate) = (bridge.get(0x19, 1) as u8, bridge.get(0x1a, 1) as u8);
                (secondary != 0 && secondary <= subordinate).then_some(secondary)
            }
        }
    }

    fn at(&self, at: Bdf) -> Option<usize> {
        self.functions.iter().position(|function| {
            self.bus_of(function.place) == Some(at.bus)
                && (function.device, function.function) == (at.device, at.function)
        })
    }

    /// Which BAR of the scripted device an address is in: its place among 0, 2, 4, and the offset.
    fn decode(&self, hpa: Hpa) -> Option<(usize, usize)> {
        let endpoint = self.functions.iter().find(|function| !function.is_bridge())?;
        let mut place = endpoint.place;
        while let Place::Behind(bridge) = place {
            assert!(self.functions[bridge].forwards(hpa.0), "no bridge forwards {hpa}");
            place = self.functions[bridge].place;
        }
        (0..3).find_map(|index| {
            let offset = hpa.0.checked_sub(endpoint.bar(2 * index as u16)?)? as usize;
            (offset < self.device.bars[index].len()).then_some((index, offset))
        })
    }
}

impl Bus for Machine {
    fn config_read(&mut self, at: Bdf, offset: u16, width: Width) -> u32 {
        let Some(index) = self.at(at) else { return u32::MAX >> (32 - 8 * u32::from(width.bytes())) };
        self.functions[index].get(offset, width.bytes().into())
    }

    fn config_write(&mut self, at: Bdf, offset: u16, width: Width, value: u32) {
        let index = self.at(at).unwrap_or_else(|| panic!("a write to {at}, where nothing is"));
        self.functions[index].write(offset, &value.to_le_bytes()[..width.bytes().into()]);
    }

    fn read(&mut self, hpa: Hpa, into: &mut [u8]) {
        let (bar, offset) = self.decode(hpa).unwrap_or_else(|| panic!("a read at {hpa}, where nothing is"));
        self.accesses.push(Access::Read { bar, offset, len: into.len() });
        self.device.read(bar, offset, into);
    }

    fn write(&mut self, hpa: Hpa, from: &[u8]) {
        let (bar, offset) = self.decode(hpa).unwrap_or_else(|| panic!("a write at {hpa}, where nothing is"));
        self.accesses.push(Access::Write { bar, offset, bytes: from.to_vec() });
        self.device.write(bar, offset, from);
    }

    fn relax(&mut self) {
        self.now_ms += 5;
    }

    fn now_ms(&mut self) -> u64 {
        self.now_ms
    }
}
