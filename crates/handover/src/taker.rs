//! The process that takes a VM.
//!
//! ```text
//!  Taker::begin ─▶ Taker<Offered> + Offer ─ready▶ Taker<Stated> + State ─taken▶ Owner ─wait_for_go▶ run the guest
//!                                                                          └▶ NotOurs: forget all of it
//! ```
//!
//! Between `ready` and `taken` the caller begins its journal behind the state and loads it. Everything that can fail comes
//! before `taken`: after it the giver never acts again. Deliberately absent: running the guest.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::channel::{Channel, Deadline};
use crate::deed::Deed;
use crate::error::{HandoverError, Peer};
use crate::frame::Kind;
use crate::message::{Hello, Offer, State};
use crate::stage::{News, TakerStage};

/// How long the words of a giver that has taken the VM back are waited for.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// The giver has offered the VM.
#[derive(Debug)]
pub struct Offered(());

/// The giver has sent the state and waits.
#[derive(Debug)]
pub struct Stated {
    deed: Deed,
}

/// The taker of a VM, at a step of the way. Dropped, it ends the hand-over; the VM is the giver's.
#[derive(Debug)]
#[must_use]
pub struct Taker<Step> {
    channel: Channel,
    stage: TakerStage,
    step: Step,
}

/// The VM is this process's, and no other will ever act for it. A dropped owner is a VM that nobody runs until its journal is
/// resumed.
#[derive(Debug)]
#[must_use]
pub struct Owner {
    channel: Channel,
}

/// The giver has taken the VM back; what was begun here must be forgotten, the journal first.
#[derive(Debug)]
pub struct NotOurs {
    /// Who has it.
    pub giver: Peer,
    /// Why, where it said so.
    pub reason: Option<String>,
}

/// Whether the giver has let go of what two cannot have.
#[derive(Debug)]
pub enum Released {
    /// It said so.
    Said,
    /// It did not. Its sockets and files may still be in use, though it does not act for the VM.
    Unsaid(HandoverError),
}

impl<Step> Taker<Step> {
    /// Who gives, in the kernel's words.
    pub fn peer(&self) -> Peer {
        self.channel.peer()
    }

    /// Ends the hand-over and tells the giver why.
    pub fn refuse(self, reason: &str) {
        self.channel.say_reason(Kind::Refused, reason);
    }
}

impl Taker<Offered> {
    /// Says who this is and hears what is offered.
    ///
    /// # Errors
    ///
    /// [`HandoverError`]; the VM stays with the giver.
    pub fn begin(stream: UnixStream, hello: &Hello, timeout: Duration) -> Result<(Self, Offer), HandoverError> {
        let (channel, deadline) = (Channel::new(stream)?, Deadline::after(timeout));
        let told = hello.send(&channel, deadline);
        let stage = TakerStage::Greets.after(News::Told.of(&told));
        let offer = told.and_then(|()| Offer::receive(&channel, deadline));
        let stage = stage.after(News::Heard(Kind::Offer).of(&offer));
        match offer {
            Ok(offer) => Ok((Self { channel, stage, step: Offered(()) }, offer)),
            Err(error) => Err(channel.refuse(error)),
        }
    }

    /// Says that all is prepared that can be, and waits for the state: while the giver copies memory, which takes long, and
    /// then while the guest stands.
    ///
    /// # Errors
    ///
    /// [`HandoverError`]; the VM stays with the giver. Where it has died, its journal holds the last state.
    pub fn ready(self, timeout: Duration) -> Result<(Taker<Stated>, State), HandoverError> {
        let Self { channel, stage, step: Offered(()) } = self;
        let deadline = Deadline::after(timeout);
        let told = channel.send(Kind::Ready, &[], &[], deadline);
        let stage = stage.after(News::Told.of(&told));
        let state = told.and_then(|()| State::receive(&channel, deadline));
        let stage = stage.after(News::Heard(Kind::End).of(&state));
        match state {
            Ok((state, deed)) => Ok((Taker { channel, stage, step: Stated { deed } }, state)),
            Err(error) => Err(channel.refuse(error)),
        }
    }
}

impl Taker<Stated> {
    /// Takes the VM: draws the deed. The state must be durable in this process's journal, and whatever can fail done.
    ///
    /// # Errors
    ///
    /// [`NotOurs`] where the giver has taken the VM back.
    pub fn taken(self) -> Result<Owner, NotOurs> {
        let Self { channel, stage, step: Stated { deed } } = self;
        if stage.durable().drew(deed.draw()) == TakerStage::Owns {
            // A giver that does not hear it finds the deed gone.
            channel.send(Kind::Taken, &[], &[], Deadline::after(Duration::ZERO)).ok();
            return Ok(Owner { channel });
        }
        let reason = match channel.expect(Kind::Go, Deadline::after(LAST_WORDS_TIMEOUT)) {
            Err(HandoverError::TakenBack { reason }) => Some(reason),
            // It holds the VM, whatever it says or does not.
            _ => None,
        };
        Err(NotOurs { giver: channel.peer(), reason })
    }
}

impl Owner {
    /// Waits until the giver has let go of its sockets and files. Whatever comes, the guest may run then.
    #[must_use]
    pub fn wait_for_go(self, timeout: Duration) -> Released {
        match self.channel.expect(Kind::Go, Deadline::after(timeout)) {
            Ok(_) => Released::Said,
            Err(error) => Released::Unsaid(error),
        }
    }
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has taken the VM back", self.giver)?;
        self.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

impl std::error::Error for NotOurs {}
