//! One `dcd` process gives a running VM to another on the same host.
//!
//! ```text
//!  giver (old)                                     taker (new)
//!                    ◀──── Hello ────────          who it is, where its journal will be
//!                    ───── Offer, Memories ──▶     the VM's memory, by file descriptor
//!                    ◀──── Ready ────────          all mapped, all prepared that can be before the pause
//!  pauses the guest
//!                    ───── State, Bytes…, End ─▶   what the rest of the VM is; with End the deed
//!                                                  begins its journal behind that state, loads, is durable
//!                                                  draws the deed: it is the owner
//!                    ◀──── Taken ────────
//!  draws the deed: it is gone, so it never acts again; lets go of its sockets
//!                    ───── Go ───────────▶         the guest runs
//! ```
//!
//! # Why never two own a VM, and never none without a word
//!
//! No exchange of messages can settle who owns a VM when either side may fall silent at any time: whoever sends the last
//! message does not know whether it was heard. On one host there is something better than a message: the deed, an
//! eventfd that counts one, of which both processes hold the same kernel object. Reading it takes the one away from both
//! at once, and it never comes back. Three rules rest on it:
//!
//! 1. From the pause on the giver resumes the guest only if it has drawn the deed.
//! 2. The taker runs the guest only if it has drawn the deed, which it does only with the whole state in its journal.
//! 3. Whatever ends the giver's wait for `Taken` (the message itself, silence, an end, garbage), the giver then draws. So
//!    `Taken`, `TakenBack` and `Go` only make it sooner and say why: lost ones change nothing.
//!
//! So at most one runs, because a deed is drawn once; and as long as neither dies one does, because each either draws the
//! deed or finds that the other has. A process that is stopped by a debugger or starved is no exception: it finds the
//! deed gone when it wakes, and a taker never has to wait for a giver that does not wake.
//!
//! Where one dies, before the state was sent: the giver still runs, or its journal holds the last state. Afterwards: if
//! the taker dies before it has drawn, the giver draws and resumes. If the giver dies, the taker draws and runs. If the
//! taker dies after it has drawn, nobody runs: the giver finds the deed gone, must not act, and says that the taker's
//! journal, which it knows from `Hello`, holds the last state ([`GivenAway::holder`]). If both die, the taker's journal
//! holds the last state if it was begun whole, else the giver's; it is for who keeps the journals to mark one that was
//! begun and never owned. A peer on another host cannot take part, because a Unix socket does not leave the host.
//!
//! Input of the peer is checked as any input is: lengths before they are used, with named limits, and each step has one
//! deadline. Peers of another user are turned away; beyond that peers are trusted with the VM, which is what they are for.
//! Deliberately absent: what memory and parts mean, the journal, and threads; every call blocks up to its timeout.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod channel;
mod codec;
mod deed;
mod error;
mod frame;
mod giver;
mod message;
mod rendezvous;
mod stage;
mod taker;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod model;
#[cfg(test)]
mod processes;

pub use error::{HandoverError, Peer};
pub use frame::{Kind, PROTOCOL_VERSION};
pub use giver::{GivenAway, Giver, Greeted, Outcome, Prepared};
pub use message::{
    ABOUT_LEN_MAX, Hello, ID_LEN_BYTES_MAX, MEMORIES_MAX, Memory, Offer, PARTS_MAX, Part, RunState,
    STATE_LEN_BYTES_MAX, State, TEXT_LEN_BYTES_MAX, Transfer,
};
pub use rendezvous::{Meeting, connect};
pub use taker::{NotOurs, Offered, Owner, Released, Stated, Taker};
