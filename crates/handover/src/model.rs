//! Both state machines against each other: every order of their steps, with every message lost or garbled, every wait ended
//! early, and either process dying anywhere.

use std::collections::BTreeSet;

use crate::deed::Draw;
use crate::frame::Kind;
use crate::stage::{GiverStage, News, TakerStage};

/// What an arbiter does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Arbiter {
    /// It is drawn once.
    Deed,
    /// Nothing stands between the two but their messages.
    Absent,
}

/// Both processes, what is on its way between them, and who has drawn the deed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    giver: GiverStage,
    taker: TakerStage,
    giver_lives: bool,
    taker_lives: bool,
    to_giver: Vec<Kind>,
    to_taker: Vec<Kind>,
    is_drawn: bool,
}

impl World {
    fn new() -> Self {
        Self {
            giver: GiverStage::AwaitsHello,
            taker: TakerStage::Greets,
            giver_lives: true,
            taker_lives: true,
            to_giver: Vec::new(),
            to_taker: Vec::new(),
            is_drawn: false,
        }
    }

    fn draw(&mut self, arbiter: Arbiter) -> Draw {
        let draw = if self.is_drawn && arbiter == Arbiter::Deed { Draw::Gone } else { Draw::Won };
        self.is_drawn = true;
        draw
    }

    /// A wait ends: with the next message, or early.
    fn giver_hears(&self) -> Vec<Self> {
        let early = Self { giver: self.giver.after(News::Failed), ..self.clone() };
        let mut heard = self.clone();
        if heard.to_giver.is_empty() {
            return vec![early];
        }
        let kind = heard.to_giver.remove(0);
        heard.giver = heard.giver.after(News::Heard(kind));
        vec![early, heard]
    }

    fn taker_hears(&self) -> Vec<Self> {
        let early = Self { taker: self.taker.after(News::Failed), ..self.clone() };
        let mut heard = self.clone();
        if heard.to_taker.is_empty() {
            return vec![early];
        }
        let kind = heard.to_taker.remove(0);
        heard.taker = heard.taker.after(News::Heard(kind));
        vec![early, heard]
    }

    /// Something is said: it is on its way, or not, and its sender knows, or believes that it failed.
    fn giver_says(&self, kind: Kind) -> Vec<Self> {
        let said = |news, is_on_its_way| {
            let mut world = Self { giver: self.giver.after(news), ..self.clone() };
            world.to_taker.extend(Some(kind).filter(|_| is_on_its_way));
            world
        };
        vec![said(News::Told, true), said(News::Failed, true), said(News::Failed, false)]
    }

    fn taker_says(&self, kind: Kind) -> Vec<Self> {
        let said = |news, is_on_its_way| {
            let mut world = Self { taker: self.taker.after(news), ..self.clone() };
            world.to_giver.extend(Some(kind).filter(|_| is_on_its_way));
            world
        };
        vec![said(News::Told, true), said(News::Failed, true), said(News::Failed, false)]
    }

    fn giver_steps(&self, arbiter: Arbiter) -> Vec<Self> {
        match self.giver {
            GiverStage::AwaitsHello | GiverStage::AwaitsReady | GiverStage::AwaitsTaken => self.giver_hears(),
            GiverStage::Offers => self.giver_says(Kind::Offer),
            GiverStage::Copies => {
                let given_up = Self { giver: self.giver.after(News::Failed), ..self.clone() };
                vec![given_up, Self { giver: self.giver.paused(), ..self.clone() }]
            }
            // The deed comes with the End, and what comes before it changes nothing.
            GiverStage::States => self.giver_says(Kind::End),
            GiverStage::Draws => {
                let mut world = self.clone();
                world.giver = world.giver.drew(world.draw(arbiter));
                let last = if world.giver == GiverStage::Keeps { Kind::TakenBack } else { Kind::Go };
                let mut said = world.clone();
                said.to_taker.push(last);
                vec![world, said]
            }
            GiverStage::Keeps | GiverStage::HasGiven => Vec::new(),
        }
    }

    fn taker_steps(&self, arbiter: Arbiter) -> Vec<Self> {
        match self.taker {
            TakerStage::Greets => self.taker_says(Kind::Hello),
            TakerStage::AwaitsOffer | TakerStage::AwaitsState => self.taker_hears(),
            TakerStage::Prepares => self.taker_says(Kind::Ready),
            TakerStage::Loads => {
                let failed = Self { taker: self.taker.after(News::Failed), ..self.clone() };
                vec![failed, Self { taker: self.taker.durable(), ..self.clone() }]
            }
            TakerStage::Draws => {
                let mut world = self.clone();
                world.taker = world.taker.drew(world.draw(arbiter));
                let mut said = world.clone();
                said.to_giver.extend(Some(Kind::Taken).filter(|_| world.taker == TakerStage::Owns));
                vec![world, said]
            }
            TakerStage::Owns | TakerStage::NotOurs => Vec::new(),
        }
    }

    /// What the world does to them: deaths, and messages that are lost or become others.
    fn accidents(&self) -> Vec<Self> {
        let mut worlds = Vec::new();
        worlds.extend(self.giver_lives.then(|| Self { giver_lives: false, ..self.clone() }));
        worlds.extend(self.taker_lives.then(|| Self { taker_lives: false, ..self.clone() }));
        for (at, kind) in self.to_giver.iter().enumerate() {
            let (mut lost, mut other) = (self.clone(), self.clone());
            lost.to_giver.remove(at);
            other.to_giver[at] = if *kind == Kind::Taken { Kind::Refused } else { Kind::Taken };
            worlds.extend([lost, other]);
        }
        for (at, _) in self.to_taker.iter().enumerate() {
            let (mut lost, mut other) = (self.clone(), self.clone());
            lost.to_taker.remove(at);
            // Not an End: nothing else has the deed with it, and without it there is none.
            other.to_taker[at] = Kind::Refused;
            worlds.extend([lost, other]);
        }
        worlds
    }

    fn steps(&self, arbiter: Arbiter) -> Vec<Self> {
        let mut worlds = Vec::new();
        if self.giver_lives {
            worlds.extend(self.giver_steps(arbiter));
        }
        if self.taker_lives {
            worlds.extend(self.taker_steps(arbiter));
        }
        worlds
    }

    /// Never both: not at a time, and not one after the other either, as two histories of one VM.
    fn check(&self) -> Result<(), String> {
        if self.giver.may_run() && self.taker.may_run() { Err(format!("both run: {self:?}")) } else { Ok(()) }
    }

    /// What holds when neither has anything left to do.
    fn check_end(&self) -> Result<(), String> {
        let is_run = self.giver_lives && self.giver.may_run() || self.taker_lives && self.taker.may_run();
        let must_run = match (self.giver_lives, self.taker_lives) {
            (true, true) => true,
            // A taker that died as the owner took the VM with it: its journal has it.
            (true, false) => self.taker != TakerStage::Owns,
            // A giver that died took the VM with it, where the taker had not got the deed or gave up.
            (false, true) => self.taker != TakerStage::NotOurs,
            (false, false) => false,
        };
        if must_run && !is_run { Err(format!("nobody runs: {self:?}")) } else { Ok(()) }
    }
}

/// All worlds that can be reached, or the first that must not be.
fn explore(arbiter: Arbiter) -> Result<BTreeSet<World>, String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![World::new()]);
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        world.check()?;
        let steps = world.steps(arbiter);
        if steps.is_empty() {
            world.check_end()?;
        }
        open.extend(steps);
        open.extend(world.accidents());
    }
    Ok(seen)
}

#[test]
fn never_both_run_and_never_none_while_both_live() {
    let worlds = explore(Arbiter::Deed).unwrap_or_else(|sentence| panic!("{sentence}"));
    let reaches = |giver, taker| worlds.iter().any(|world| world.giver == giver && world.taker == taker);
    assert!(reaches(GiverStage::HasGiven, TakerStage::Owns), "it can succeed");
    assert!(reaches(GiverStage::Keeps, TakerStage::NotOurs), "and fail");
    assert!(reaches(GiverStage::AwaitsTaken, TakerStage::Owns), "the taker may run before it is heard");
    let is_saved = |world: &World| !world.giver_lives && world.giver == GiverStage::AwaitsTaken && world.taker_lives;
    assert!(
        worlds.iter().any(|world| is_saved(world) && world.taker == TakerStage::Owns),
        "a giver's death is survived"
    );
    assert!(worlds.len() > 300, "only {} worlds", worlds.len());
}

/// The model sees what the deed is for.
#[test]
fn without_the_deed_both_would_run() {
    let sentence = explore(Arbiter::Absent).expect_err("no exchange of messages settles it");
    assert!(sentence.starts_with("both run"), "{sentence}");
}
