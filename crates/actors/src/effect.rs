//! Effects: what the outside must do now that a decision is durable.

use std::sync::Arc;

use device::config::DeviceConfig;
use device::extents::Notice;
use device::mailbox;
use device::operation::CommandReply;
use memory::HostMemory;
use platform::{DecoderStatus, Face};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wire::Opcode;

use crate::host_memory::retire;

/// Who hears of capacity that changes hands. Called in the order in which decisions become durable, from a thread that
/// must not be kept.
pub type NoticeListener = Arc<dyn Fn(&DeviceConfig, &Notice) + Send + Sync>;

/// One thing that leaves the VM.
pub(crate) enum Effect {
    /// A command's answer appears in the registers and the doorbell clears.
    Complete { face: Arc<Face>, opcode: Opcode, reply: CommandReply },
    /// The event status register shows that the DC log holds records, or none.
    EventStatus { face: Arc<Face>, bits: u64 },
    /// A message-signalled interrupt.
    Interrupt { face: Arc<Face>, vector: u8 },
    /// A decoder's control register shows how its commit went.
    Decoder { face: Arc<Face>, decoder: u8, status: DecoderStatus },
    /// All registers are as at power-on.
    Reset { face: Arc<Face>, mailbox: Box<mailbox::State> },
    /// Whoever listens learns that capacity changed hands.
    Notice { device: Arc<DeviceConfig>, notice: Notice, listener: NoticeListener },
    /// An asker gets its answer.
    Answer(Box<dyn FnOnce() + Send>),
    /// A deleted backend's memory ends on a blocking thread; then its asker gets the answer.
    Retire { id: String, memory: Arc<HostMemory>, runtime: Handle, answer: Box<dyn FnOnce() + Send> },
}

impl Effect {
    /// The answer `value` to whoever waits for it; one who is gone wants none.
    pub(crate) fn answer<T: Send + 'static>(to: oneshot::Sender<T>, value: T) -> Self {
        Self::Answer(Box::new(move || {
            to.send(value).ok();
        }))
    }

    /// Makes it happen. Quick: it runs on the keeper's thread, in front of everybody who waits for durability.
    pub(crate) fn perform(self) {
        match self {
            Self::Complete { face, opcode, reply } => face.complete(opcode, reply.return_code, &reply.payload),
            Self::EventStatus { face, bits } => face.set_event_status(bits),
            Self::Interrupt { face, vector } => face.raise(vector),
            Self::Decoder { face, decoder, status } => face.set_decoder(decoder, status),
            Self::Reset { face, mailbox } => face.reset(mailbox.config_space().clone()),
            Self::Notice { device, notice, listener } => listener(&device, &notice),
            Self::Answer(answer) => answer(),
            Self::Retire { id, memory, runtime, answer } => {
                runtime.spawn_blocking(move || {
                    retire(&id, memory);
                    answer();
                });
            }
        }
    }
}
