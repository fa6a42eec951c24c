//! What a snapshot takes on the disk beside the bytes of memories.

use std::fs;
use std::path::Path;

use actors::SaveForm;

use crate::asked::scratch;
use crate::machine::{EXTENTS, Lie, Places, Running, Shape};
use crate::report::Row;

/// Bytes that are wanted: so many of each extent, and so many beside.
const EXTENT_BYTES: u64 = 64;
const BESIDE_BYTES: u64 = 64 << 10;
/// Files that hold the bytes of memories.
const CONTENTS: &str = "contents";

pub(crate) fn measure() -> Vec<Row> {
    let shapes = [Shape::SMALL, Shape { lie: Lie::Apart, ..Shape::SMALL }];
    shapes.into_iter().map(of_shape).collect()
}

fn of_shape(shape: Shape) -> Row {
    let dir = scratch();
    let running = Running::filled(shape, Places::volatile(dir.path()));
    running.save("first", SaveForm::Full);
    running.end();
    let bytes = beside_contents(&dir.path().join("snapshots/first"));
    let target = EXTENTS * EXTENT_BYTES + BESIDE_BYTES;
    let floor = (EXTENTS * 8) as f64;
    Row::new(format!("5 beside contents, {}", shape.name()), bytes as f64, "B")
        .floor(floor, "a word for each extent")
        .target(target as f64)
}

fn beside_contents(snapshot: &Path) -> u64 {
    let files = fs::read_dir(snapshot).expect("a directory").map(|file| file.expect("a file"));
    let is_beside = |file: &fs::DirEntry| file.path().extension().is_none_or(|extension| extension != CONTENTS);
    files.filter(is_beside).map(|file| file.metadata().expect("metadata").len()).sum()
}
