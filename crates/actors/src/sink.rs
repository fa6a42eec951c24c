//! From the Face to the actors: tells that never wait, because they come from vCPU threads.

use device::{mailbox, windows};
use kameo::actor::ActorRef;
use platform::{CommandSink, CommandedWrite, MailboxCommandImage};

use crate::mailbox::{Doorbell, Mailbox, RegisterWrite};
use crate::parts::tell;
use crate::recorder::Recorder;
use crate::window_mapper::{DecoderWrite, WindowMapper};

/// Where one device's commanded registers go.
pub(crate) struct GuestSink {
    pub(crate) mailbox: ActorRef<Mailbox>,
    pub(crate) mapper: ActorRef<WindowMapper>,
    pub(crate) recorder: Recorder,
}

impl CommandSink for GuestSink {
    fn doorbell(&self, command: MailboxCommandImage) {
        if tell(&self.mailbox, Doorbell(command)).is_err() {
            self.recorder.actor_gone("Mailbox");
        }
    }

    fn commanded(&self, write: CommandedWrite) {
        let to_mailbox = |input| tell(&self.mailbox, RegisterWrite(input));
        let to_mapper = |input| tell(&self.mapper, DecoderWrite(input));
        let told = match write {
            CommandedWrite::Config { offset, width, value } => {
                to_mailbox(mailbox::Input::ConfigWrite { offset, width, value })
            }
            CommandedWrite::MailboxControl(value) => to_mailbox(mailbox::Input::MailboxControl { value }),
            CommandedWrite::Msix { offset, width, value } => {
                to_mailbox(mailbox::Input::MsixWrite { offset, width, value })
            }
            CommandedWrite::HdmGlobalControl(value) => to_mapper(windows::Input::HdmGlobalControl { value }),
            CommandedWrite::DecoderCommit { decoder, base, size_bytes, skip_bytes, control } => {
                let fields = windows::DecoderFields { base, size_bytes, skip_bytes, control };
                to_mapper(windows::Input::DecoderCommit { decoder, fields })
            }
            CommandedWrite::DecoderUncommit { decoder, .. } => to_mapper(windows::Input::DecoderUncommit { decoder }),
        };
        if told.is_err() {
            self.recorder.actor_gone("Mailbox or WindowMapper");
        }
    }
}
