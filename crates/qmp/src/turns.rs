//! A row: one at a time, in the order in which they asked.
//!
//! ```text
//!  ask ──▶ waiting, waiting, waiting ──▶ Turn ──dropped──▶ the next that still waits
//! ```
//!
//! Who asks has a place from that moment on, not from when somebody first looks whether it is its turn, as with a lock of the
//! runtime. Deliberately absent: how long a turn may last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A row. Clones are handles to the same one.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<Row>>);

#[derive(Default)]
struct Row {
    is_taken: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn. Dropping it ends it.
pub(crate) struct Turn(Turns);

impl Turns {
    /// Takes the last place. Who drops what it is given leaves the row.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Turn> {
        let (give, given) = oneshot::channel();
        let mut row = self.row();
        if row.is_taken {
            row.waiting.push_back(give);
            return given;
        }
        row.is_taken = true;
        drop(row);
        // Nobody else has `given` yet.
        give.send(Turn(self.clone())).ok();
        given
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut row = self.0.row();
            let next = row.waiting.pop_front();
            row.is_taken = next.is_some();
            next
        };
        if let Some(next) = next {
            // A turn that nobody waits for any more ends here, and the one behind has it.
            drop(next.send(Turn(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_kept_and_who_left_is_passed_over() {
        let turns = Turns::default();
        let mut first = turns.ask();
        let (mut second, third, mut fourth) = (turns.ask(), turns.ask(), turns.ask());
        let turn = first.try_recv().expect("nobody was before");
        assert!(second.try_recv().is_err() && fourth.try_recv().is_err());
        drop(third);
        drop(turn);
        let turn = second.try_recv().expect("the next");
        assert!(fourth.try_recv().is_err());
        drop(turn);
        drop(fourth.try_recv().expect("the third has left"));
        drop(turns.ask().try_recv().expect("nobody is in the row"));
    }

    #[test]
    fn a_turn_that_was_given_and_not_taken_goes_on() {
        let turns = Turns::default();
        let (first, second, mut third) = (turns.ask(), turns.ask(), turns.ask());
        drop(second);
        // It has the turn in it.
        drop(first);
        assert!(third.try_recv().is_ok());
    }
}
