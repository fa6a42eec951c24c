//! What reaches the mailbox, what it decides, and its state.

use device::mailbox;

use crate::form::frozen::{Bytes, frozen};

frozen! {
    enum Input of mailbox::Input {
        ConfigWrite { offset: u16, width: u8, value: u32 },
        MailboxControl { value: u32 },
        MsixWrite { offset: u32, width: u8, value: u64 },
        Doorbell { opcode: u16, declared_len_bytes: u32, payload: Bytes },
    }

    enum Fact of mailbox::Fact {
        ConfigWritten { offset: u16, width: u8, value: u32 },
        MailboxControlSet { value: u32 },
        MsixWritten { offset: u32, width: u8, value: u64 },
        PolicySet { policy: [u8; 5] },
        Reset,
    }

    struct State of mailbox::Parts {
        config_written: Vec<(u16, u32)>,
        control: u32,
        msix: Bytes,
        policy: [u8; 5],
    }
}
