//! The journal as a table.

use comfy_table::{Table, presets};
use device::mailbox;
use device::operation::Input;
use journal::record::Record;
use replay::{DeviceNames, Fold, Row};

/// Rows of the records that follow a state. Register writes that follow each other directly are one row: a guest that looks
/// for the device makes many.
pub(crate) fn rows(start: &Fold, records: &[Record]) -> Vec<Row> {
    let (mut rows, mut names) = (Vec::new(), DeviceNames::of(start.vm()));
    for run in records.chunk_by(|first, second| is_register_write(first) && is_register_write(second)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let mut row = Row::of(&names, first);
        run.iter().for_each(|record| names.follow(record));
        if run.len() > 1 {
            row.record = format!("{}-{}", first.stamp.seq, last.stamp.seq.0);
            row.input = format!("{} register writes", run.len());
        }
        rows.push(row);
    }
    rows
}

fn is_register_write(record: &Record) -> bool {
    matches!(
        record.input,
        Input::Mailbox(
            mailbox::Input::ConfigWrite { .. }
                | mailbox::Input::MailboxControl { .. }
                | mailbox::Input::MsixWrite { .. }
        )
    )
}

/// Rows in columns.
pub(crate) fn table(rows: &[Row]) -> String {
    let header = ["record", "ms", "device", "actor", "from", "input", "outcome"];
    columns(
        header,
        rows.iter()
            .cloned()
            .map(|row| [row.record, row.time_ms, row.device, row.actor.to_owned(), row.from, row.input, row.outcome]),
    )
}

/// Cells in columns below a header.
pub(crate) fn columns<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
