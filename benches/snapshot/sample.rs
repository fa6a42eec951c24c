//! A sample: its middle, its tail and its best.

use crate::report::Row;

/// What was measured again and again, in one unit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The smallest value that so many per cent do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[(sorted.len() * percent).div_ceil(100).clamp(1, sorted.len()) - 1]
    }

    /// A row of the middle, and one of the tail, which is what is aimed at.
    pub(crate) fn rows(&self, what: &str, unit: &'static str, target: Option<f64>, floor: (f64, &str)) -> Vec<Row> {
        let least = self.percentile(0);
        let row = |percent| {
            Row::new(format!("{what}: p{percent}"), self.percentile(percent), unit).floor(floor.0, floor.1.to_owned())
        };
        println!("{what}: {} runs, the least {least:.3} {unit}", self.0.len());
        let tail = row(99);
        vec![row(50), if let Some(target) = target { tail.target(target) } else { tail }]
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
