//! A device whose actors are a list of what they were told.

use std::sync::{Arc, Mutex};

use device::config_space::ConfigSpace;
use platform::{BarIndex, CommandSink, CommandedWrite, Face, MailboxCommandImage, MsixMessage};

pub(crate) const PAYLOAD_LOG2: u8 = 10;
pub(crate) const PAYLOAD_LEN: usize = 1 << PAYLOAD_LOG2;

pub(crate) const CONTROL: u64 = 0xfe4;
pub(crate) const COMMAND: u64 = 0xfe8;
pub(crate) const STATUS: u64 = 0xff0;
pub(crate) const PAYLOAD: u64 = 0x1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Doorbell(MailboxCommandImage),
    Write(CommandedWrite),
}

#[derive(Default)]
pub(crate) struct Ear {
    told: Mutex<Vec<Told>>,
    messages: Mutex<Vec<MsixMessage>>,
}

impl CommandSink for Ear {
    fn doorbell(&self, command: MailboxCommandImage) {
        self.told.lock().unwrap().push(Told::Doorbell(command));
    }

    fn commanded(&self, write: CommandedWrite) {
        self.told.lock().unwrap().push(Told::Write(write));
    }
}

pub(crate) struct Rig {
    pub(crate) face: Arc<Face>,
    ear: Arc<Ear>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_serial(7)
    }

    pub(crate) fn with_serial(serial: u64) -> Self {
        Self::with_payload(serial, PAYLOAD_LOG2)
    }

    pub(crate) fn with_payload(serial: u64, payload_log2: u8) -> Self {
        Self::with_config(ConfigSpace::new(serial, payload_log2))
    }

    pub(crate) fn with_config(config: ConfigSpace) -> Self {
        let ear = Arc::new(Ear::default());
        let sink: Arc<dyn CommandSink> = ear.clone();
        let payload_log2 = config.payload_log2();
        let face = Arc::new(Face::new(config, payload_log2, sink).unwrap());
        let line = Arc::clone(&ear);
        face.connect_interrupts(Arc::new(move |message| line.messages.lock().unwrap().push(message)));
        Self { face, ear }
    }

    /// What was told since the last call.
    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.ear.told.lock().unwrap())
    }

    /// The messages that left since the last call.
    pub(crate) fn messages(&self) -> Vec<MsixMessage> {
        std::mem::take(&mut self.ear.messages.lock().unwrap())
    }

    pub(crate) fn read(&self, bar: BarIndex, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.face.mmio_read(bar, offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn read_u64(&self, bar: BarIndex, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.face.mmio_read(bar, offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write(&self, bar: BarIndex, offset: u64, value: u32) {
        self.face.mmio_write(bar, offset, &value.to_le_bytes());
    }

    pub(crate) fn write_u64(&self, bar: BarIndex, offset: u64, value: u64) {
        self.face.mmio_write(bar, offset, &value.to_le_bytes());
    }

    /// Stages a command and rings the doorbell, as a driver does.
    pub(crate) fn ring(&self, opcode: u16, payload: &[u8]) {
        self.face.mmio_write(BarIndex::Device, PAYLOAD, payload);
        self.write_u64(BarIndex::Device, COMMAND, u64::from(opcode) | (payload.len() as u64) << 16);
        let control = self.read(BarIndex::Device, CONTROL);
        self.write(BarIndex::Device, CONTROL, control | 1);
    }
}
