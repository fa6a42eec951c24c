//! How far a long question is, for a person who waits at a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two pictures.
const PICTURE: Duration = Duration::from_millis(100);

/// A line on stderr that is written over until it ends.
pub(crate) struct Progress {
    what: &'static str,
    is_seen: bool,
    next: Instant,
    is_drawn: bool,
}

impl Progress {
    /// Shown only where stderr is a terminal.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, is_seen: std::io::stderr().is_terminal(), next: Instant::now() + PATIENCE, is_drawn: false }
    }

    /// Shows how much is done of what there is to do.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        // The clock is not asked for every record.
        if !self.is_seen || !done.is_multiple_of(1024) {
            return;
        }
        let cells = (done.saturating_mul(30) / total.max(1)).min(30) as usize;
        self.draw(&format!("[{:-<30}] {done} of {total}", "#".repeat(cells)));
    }

    /// Shows how far something is that has no known end.
    pub(crate) fn tell(&mut self, state: &str) {
        if self.is_seen {
            self.draw(state);
        }
    }

    fn draw(&mut self, state: &str) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        (self.next, self.is_drawn) = (now + PICTURE, true);
        // Nobody who closed stderr wants to know.
        write!(std::io::stderr(), "\r{} {state}\x1b[K", self.what).ok();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_drawn {
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}
