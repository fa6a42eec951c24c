//! How far a long question is, for a person who waits at a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::size;

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two pictures.
const PICTURE: Duration = Duration::from_millis(100);

/// A line on stderr that is written over until it ends.
pub(crate) struct Progress {
    what: &'static str,
    /// Where it is drawn, if anybody looks.
    screen: Option<Box<dyn Write>>,
    next: Instant,
    is_drawn: bool,
}

impl Progress {
    /// Shown only where stderr is a terminal.
    pub(crate) fn new(what: &'static str) -> Self {
        let stderr = std::io::stderr();
        let screen = if stderr.is_terminal() { Some(Box::new(stderr) as Box<dyn Write>) } else { None };
        Self { what, screen, next: Instant::now() + PATIENCE, is_drawn: false }
    }

    /// Shows how much is done of what there is to do.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        // The clock is not asked for every record.
        if done.is_multiple_of(1024) {
            self.bar(done, total);
        }
    }

    /// As [`Progress::show`], where each is long enough to be shown.
    pub(crate) fn bar(&mut self, done: u64, total: u64) {
        self.draw(Instant::now(), || format!("{} {done} of {total}", cells(done, total)));
    }

    /// As [`Progress::bar`], in bytes.
    pub(crate) fn bytes(&mut self, done: u64, total: u64) {
        self.draw(Instant::now(), || format!("{} {} of {}", cells(done, total), size::short(done), size::short(total)));
    }

    /// Shows how far something is that has no known end.
    pub(crate) fn tell(&mut self, state: &str) {
        self.draw(Instant::now(), || state.to_owned());
    }

    fn draw(&mut self, now: Instant, state: impl FnOnce() -> String) {
        let Some(screen) = self.screen.as_mut().filter(|_| now >= self.next) else { return };
        (self.next, self.is_drawn) = (now + PICTURE, true);
        // Nobody who closed stderr wants to know.
        write!(screen, "\r{} {}\x1b[K", self.what, state()).ok();
    }
}

fn cells(done: u64, total: u64) -> String {
    let full = (u128::from(done) * 30 / u128::from(total.max(1))).min(30) as usize;
    format!("[{:-<30}]", "#".repeat(full))
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(screen) = self.screen.as_mut().filter(|_| self.is_drawn) {
            write!(screen, "\r\x1b[K").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Rc<RefCell<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).expect("text")
        }
    }

    fn progress(screen: &Screen) -> Progress {
        let next = Instant::now() + PATIENCE;
        Progress { what: "replay", screen: Some(Box::new(screen.clone())), next, is_drawn: false }
    }

    #[test]
    fn what_takes_long_is_drawn_now_and_then_and_wiped_at_the_end() {
        let screen = Screen::default();
        let mut progress = progress(&screen);
        let (start, a_second) = (Instant::now(), Duration::from_secs(1));
        for ms in 0..1_000 {
            progress.draw(start + Duration::from_millis(ms), || format!("{ms}"));
        }
        let pictures = screen.text().matches("\rreplay ").count();
        assert!((4..=6).contains(&pictures), "{pictures} pictures in a second");
        progress.next = Instant::now();
        progress.show(512, 2048);
        assert_eq!(screen.text().matches("\rreplay ").count(), pictures, "the clock is not asked for every record");
        progress.show(1024, 2048);
        assert!(screen.text().ends_with("\rreplay [###############---------------] 1024 of 2048\x1b[K"));
        progress.next = Instant::now();
        progress.bytes(12 << 30, 64 << 30);
        assert!(screen.text().ends_with("\rreplay [#####-------------------------] 12G of 64G\x1b[K"));
        progress.draw(Instant::now() + a_second, || "done".to_owned());
        drop(progress);
        assert!(screen.text().ends_with("\rreplay done\x1b[K\r\x1b[K"), "{:?}", screen.text());
    }

    #[test]
    fn what_is_done_at_once_is_not_drawn_at_all() {
        let screen = Screen::default();
        let mut progress = progress(&screen);
        (1..=100).for_each(|done| progress.show(done * 1024, 102_400));
        drop(progress);
        assert_eq!(screen.text(), "");
    }

    #[test]
    fn nothing_is_drawn_where_stderr_is_no_terminal() {
        if !io::stderr().is_terminal() {
            assert!(Progress::new("replay").screen.is_none());
        }
    }
}
