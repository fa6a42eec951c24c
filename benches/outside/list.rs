//! The whole extent list, 4801h from the first extent to the last.

use crate::crowd::Crowd;
use crate::floors::Floors;
use crate::guest::Payload;
use crate::report::{Row, median_us};

/// How many extents, and of QEMU: accesses, commands, lines, microseconds in bulk and one access at a time.
const LISTS: [(u64, Option<[f64; 5]>); 5] = [
    (1, None),
    (64, Some([338.0, 2.0, 16.0, 198.0, 3_280.0])),
    (511, Some([2_654.0, 11.0, 88.0, 1_204.0, 25_766.0])),
    (10_000, None),
    (100_000, None),
];
/// Longer lists are read in bulk only.
const ONE_BY_ONE_MAX: u64 = 511;

pub(crate) fn measure(floors: &Floors) -> Vec<Row> {
    ["32K", "1M"].into_iter().flat_map(|payload| of_payload(payload, floors)).collect()
}

fn of_payload(mailbox_payload: &str, floors: &Floors) -> Vec<Row> {
    let mut crowd = Crowd::start(mailbox_payload);
    let mut rows = Vec::new();
    for (count, qemu) in LISTS {
        crowd.grow_to(count);
        let guest = &mut crowd.guest;
        let before = (guest.accesses, guest.commands, guest.lines);
        assert_eq!(u64::from(guest.list(Payload::Bulk)), count);
        let (accesses, commands, lines) =
            (guest.accesses - before.0, guest.commands - before.1, guest.lines - before.2);
        let mut values = vec![accesses as f64, commands as f64, lines as f64];
        let mut timed = |runs, how| {
            values.push(median_us(runs, || {
                guest.list(how);
            }));
        };
        timed(if count > ONE_BY_ONE_MAX { 7 } else { 100 }, Payload::Bulk);
        if count <= ONE_BY_ONE_MAX {
            timed(7, Payload::Accesses);
        }
        rows.extend(rows_of(mailbox_payload, count, &values, qemu, floors));
    }
    rows
}

fn rows_of(payload: &str, count: u64, values: &[f64], qemu: Option<[f64; 5]>, floors: &Floors) -> Vec<Row> {
    let what = ["accesses of 8 bytes", "commands", "lines", "whole list in bulk", "one access at a time"];
    // 40 bytes an extent and 16 before them: accesses that are the list, whatever else it takes to ask for it.
    let listed = (5 * count + 2) as f64;
    let mut rows = Vec::new();
    for (index, (what, value)) in what.iter().zip(values).enumerate() {
        let unit = if index < 3 { "" } else { "us" };
        let row = Row::new(format!("3 {count} extents, {payload}: {what}"), *value, unit);
        let row = Row { qemu: qemu.map(|qemu| qemu[index]), ..row };
        rows.push(match index {
            0 if qemu.is_some() => row.target(listed + 10.0).floor(listed, "the list itself"),
            3 => row.floor(values[2] * floors.readl, format!("{} readl", values[2])),
            4 => row.floor(values[0] * floors.readl, format!("{} readl", values[0])),
            _ => row,
        });
    }
    rows
}
