//! Medians, and the table at the end.

use std::time::Instant;

/// The median of a sample.
pub(crate) fn median(mut sample: Vec<f64>) -> f64 {
    sample.sort_unstable_by(f64::total_cmp);
    sample[sample.len() / 2]
}

/// Microseconds that `work` takes.
pub(crate) fn timed_us(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e6
}

/// The median of as many runs.
pub(crate) fn median_us(runs: usize, mut work: impl FnMut()) -> f64 {
    median((0..runs).map(|_| timed_us(&mut work)).collect())
}

/// One figure beside what it is compared with.
pub(crate) struct Row {
    /// What is measured.
    pub(crate) what: String,
    /// In `unit`.
    pub(crate) measured: f64,
    pub(crate) unit: &'static str,
    /// The same of QEMU, where it has it.
    pub(crate) qemu: Option<f64>,
    /// What is aimed at.
    pub(crate) target: Option<f64>,
    /// What the machine alone takes of it, and for what.
    pub(crate) floor: Option<(f64, String)>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, measured: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, unit, qemu: None, target: None, floor: None }
    }

    #[must_use]
    pub(crate) fn target(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }

    #[must_use]
    pub(crate) fn floor(mut self, floor: f64, what: impl Into<String>) -> Self {
        self.floor = Some((floor, what.into()));
        self
    }

    fn print(&self) {
        let number = |number: Option<f64>| number.map_or_else(|| "-".into(), |number| format!("{number:.1}"));
        let verdict = match self.target {
            Some(target) if self.measured <= target => "reached",
            Some(_) => "missed",
            None => "",
        };
        let (floor, of) = self.floor.as_ref().map_or((None, ""), |(floor, of)| (Some(*floor), of));
        println!(
            "{:<58} {:>10} {:<3} {:>9} {:>9} {:>9}  {verdict:<7} {of}",
            self.what,
            number(Some(self.measured)),
            self.unit,
            number(floor),
            number(self.qemu),
            number(self.target),
        );
    }
}

/// Prints the rows, and under their head what stands in each column.
pub(crate) fn print_table(rows: &[Row]) {
    println!(
        "\n{:<58} {:>14} {:>9} {:>9} {:>9}  {:<7} of which the floor is",
        "", "measured", "floor", "QEMU", "target", ""
    );
    rows.iter().for_each(Row::print);
}
