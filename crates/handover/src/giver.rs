//! The process that has the VM and gives it away.
//!
//! ```text
//!  Giver::hello ─▶ Giver<Greeted> ─offer▶ Giver<Prepared> ─state▶ Outcome ─┬▶ Given(GivenAway) ─go▶ end
//!                                                                          └▶ Kept: resume the guest
//! ```
//!
//! Until [`Giver::state`] everything that fails leaves the VM where it is; the guest never stood for it. The caller pauses the
//! guest right before [`Giver::state`] and does what its outcome says. Deliberately absent: pausing and resuming.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::channel::{Channel, Deadline};
use crate::deed::Deed;
use crate::error::{HandoverError, Peer};
use crate::frame::Kind;
use crate::message::{Hello, Offer, State};
use crate::stage::{GiverStage, News};

/// The taker has said who it is.
#[derive(Debug)]
pub struct Greeted(());

/// The taker has mapped all memories and waits for the state.
#[derive(Debug)]
pub struct Prepared {
    deed: Deed,
}

/// The giver of a VM, at a step of the way. Dropped, it ends the hand-over and keeps the VM.
#[derive(Debug)]
#[must_use]
pub struct Giver<Step> {
    channel: Channel,
    taker: Hello,
    stage: GiverStage,
    step: Step,
}

/// Who has the VM now.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// The taker has. This process must never let the guest run again, nor write to its memory.
    Given(GivenAway),
    /// This process has, for this reason. The guest is to be resumed.
    Kept(HandoverError),
}

/// A VM that the taker has.
#[derive(Debug)]
#[must_use]
pub struct GivenAway {
    channel: Channel,
    taker: Hello,
    pub(crate) doubt: Option<HandoverError>,
}

impl<Step> Giver<Step> {
    /// Who takes, in its own words.
    pub fn taker(&self) -> &Hello {
        &self.taker
    }

    /// Who takes, in the kernel's words.
    pub fn peer(&self) -> Peer {
        self.channel.peer()
    }

    /// Ends the hand-over and tells the taker why.
    pub fn refuse(self, reason: &str) {
        self.channel.say_reason(Kind::Refused, reason);
    }
}

impl Giver<Greeted> {
    /// Hears who wants the VM, over a connection to it.
    ///
    /// # Errors
    ///
    /// [`HandoverError`]; the VM stays here.
    pub fn hello(stream: UnixStream, timeout: Duration) -> Result<Self, HandoverError> {
        let channel = Channel::new(stream)?;
        let hello = Hello::receive(&channel, Deadline::after(timeout));
        let stage = GiverStage::AwaitsHello.after(News::Heard(Kind::Hello).of(&hello));
        match hello {
            Ok(taker) => Ok(Self { channel, taker, stage, step: Greeted(()) }),
            Err(error) => Err(channel.refuse(error)),
        }
    }

    /// Offers the VM and waits until the taker has mapped its memories and prepared what it can. The guest runs on.
    ///
    /// # Errors
    ///
    /// [`HandoverError`]; the VM stays here.
    pub fn offer(self, offer: &Offer, timeout: Duration) -> Result<Giver<Prepared>, HandoverError> {
        let Self { channel, taker, stage, step: _ } = self;
        let deadline = Deadline::after(timeout);
        let told = offer.send(&channel, deadline);
        let stage = stage.after(News::Told.of(&told));
        let ready = told.and_then(|()| channel.expect(Kind::Ready, deadline));
        let stage = stage.after(News::Heard(Kind::Ready).of(&ready));
        // Made before the pause: it may fail.
        match ready.and_then(|_| Deed::new()) {
            Ok(deed) => Ok(Giver { channel, taker, stage, step: Prepared { deed } }),
            Err(error) => Err(channel.refuse(error)),
        }
    }
}

impl Giver<Prepared> {
    /// Whether the taker still waits: to be asked before the guest is paused for it, and while memory is copied.
    ///
    /// # Errors
    ///
    /// What it said, or that it is gone; the VM stays here.
    pub fn check(&self) -> Result<(), HandoverError> {
        if !self.channel.has_news()? {
            return Ok(());
        }
        // It has nothing to say before the state, so whatever it says ends this.
        self.channel.expect(Kind::Taken, Deadline::after(Duration::ZERO)).and(Err(HandoverError::FalseTaken))
    }

    /// Gives the state of the VM, whose guest is paused and whose records are durable, and waits until it is taken. `timeout`
    /// bounds the whole of it, which is how long the guest stands if nothing comes of it.
    pub fn state(self, state: &State, timeout: Duration) -> Outcome {
        let Self { channel, taker, stage, step: Prepared { deed } } = self;
        let deadline = Deadline::after(timeout);
        let told = state.send(&deed, &channel, deadline);
        let stage = stage.paused().after(News::Told.of(&told));
        let is_told = told.is_ok();
        let taken = told.and_then(|()| channel.expect(Kind::Taken, deadline));
        let stage = stage.after(News::Heard(Kind::Taken).of(&taken)).drew(deed.draw());
        match (stage, taken) {
            (GiverStage::HasGiven, taken) => Outcome::Given(GivenAway { channel, taker, doubt: taken.err() }),
            (_, taken) => {
                let error = taken.err().unwrap_or(HandoverError::FalseTaken);
                // In the middle of another message it would not be understood; the end of the connection is.
                if is_told {
                    channel.say_reason(Kind::TakenBack, &error.to_string());
                }
                Outcome::Kept(error)
            }
        }
    }
}

impl GivenAway {
    /// Who has the VM and its last state, for people.
    #[must_use]
    pub fn holder(&self) -> String {
        let Hello { build, journal, .. } = &self.taker;
        format!("{} ({build}) has the VM; its last state is in the journal {journal}", self.channel.peer())
    }

    /// Why the taker, which has the VM, was not heard to say so. It may have died: then nobody runs the guest until a process
    /// resumes the taker's journal.
    #[must_use]
    pub fn doubt(&self) -> Option<&HandoverError> {
        self.doubt.as_ref()
    }

    /// Tells the taker that this process has let go of everything that two cannot have.
    ///
    /// # Errors
    ///
    /// That the taker is not there to hear it. The VM is the taker's all the same.
    pub fn go(self, timeout: Duration) -> Result<(), HandoverError> {
        self.channel.send(Kind::Go, &[], &[], Deadline::after(timeout))
    }
}
