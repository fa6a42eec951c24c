//! What an operation on one extent takes on top of many others.

use crate::crowd::{BLOCK_BYTES, Crowd, NO_TAG};
use crate::program::{add_request, release_request};
use crate::report::{Row, median, timed_us};

const CYCLES: usize = 60;
const COUNTS: [u64; 5] = [1, 100, 1_000, 10_000, 100_000];
const OPERATIONS: [&str; 4] = ["QMP add", "4802h", "QMP release", "4803h"];
/// How much more the largest may take than the smallest.
const FLAT: f64 = 2.0;

pub(crate) fn measure() -> Vec<Row> {
    let mut crowd = Crowd::start("1M");
    let by_count = COUNTS.map(|count| {
        crowd.grow_to(count);
        one_more(&mut crowd)
    });
    let mut rows = Vec::new();
    for (index, operation) in OPERATIONS.iter().enumerate() {
        for (count, medians) in COUNTS.iter().zip(&by_count) {
            rows.push(Row::new(format!("4 {operation} of one extent on top of {count}"), medians[index], "us"));
        }
        let growth = by_count.last().map_or(0.0, |last| last[index] / by_count[0][index]);
        rows.push(Row::new(format!("4 {operation}: {} extents against 1", COUNTS[4]), growth, "x").target(FLAT));
    }
    rows
}

/// Adds one extent, accepts it, releases it and gives it back, again and again.
fn one_more(crowd: &mut Crowd) -> [f64; 4] {
    let offset = crowd.count * BLOCK_BYTES;
    let add = add_request(NO_TAG, offset, BLOCK_BYTES, 1);
    let release = release_request(NO_TAG, offset, BLOCK_BYTES, 1);
    let (operator, guest) = (&mut crowd.operator, &mut crowd.guest);
    let mut samples = OPERATIONS.map(|_| Vec::with_capacity(CYCLES));
    for _ in 0..CYCLES {
        samples[0].push(timed_us(|| operator.request(&add)));
        assert_eq!(guest.drain_events(), 1);
        samples[1].push(timed_us(|| guest.update(0x4802, offset, BLOCK_BYTES, 1)));
        samples[2].push(timed_us(|| operator.request(&release)));
        assert_eq!(guest.drain_events(), 1);
        samples[3].push(timed_us(|| guest.update(0x4803, offset, BLOCK_BYTES, 1)));
    }
    samples.map(median)
}
