//! A sample: its middle, its tail and its best.

use std::ops::Add;

use crate::report::Row;

/// What the machine takes by itself, in the middle and at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    pub(crate) middle: f64,
    pub(crate) tail: f64,
}

impl From<f64> for Floor {
    fn from(middle: f64) -> Self {
        Self { middle, tail: middle }
    }
}

/// With what comes to it in the middle: two tails seldom come together.
impl Add<f64> for Floor {
    type Output = Self;

    fn add(self, middle: f64) -> Self {
        Self { middle: self.middle + middle, tail: self.tail + middle }
    }
}

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
    pub(crate) fn rows(
        &self,
        what: &str,
        unit: &'static str,
        target: Option<f64>,
        (floor, of): (impl Into<Floor>, &str),
    ) -> Vec<Row> {
        let (least, Floor { middle, tail }) = (self.percentile(0), floor.into());
        let row = |percent, floor| {
            Row::new(format!("{what}: p{percent}"), self.percentile(percent), unit).floor(floor, of.to_owned())
        };
        println!("{what}: {} runs, the least {least:.3} {unit}", self.0.len());
        let tail = row(99, tail);
        vec![row(50, middle), if let Some(target) = target { tail.target(target) } else { tail }]
    }

    /// As what others are compared with.
    pub(crate) fn floor(&self) -> Floor {
        Floor { middle: self.percentile(50), tail: self.percentile(99) }
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
