//! The journal as a table.

use comfy_table::{ColumnConstraint, Table, Width, presets};
use device::mailbox;
use device::operation::Input;
use journal::record::Record;
use replay::{DeviceNames, Fold, Row};

/// So many rows are put into columns at once: a million of them took 4 GB, and 20 s to the first.
const BLOCK_ROWS: usize = 10_000;

/// Rows of the records that follow a state. Register writes that follow each other directly are one row: a guest that looks
/// for the device makes many.
pub(crate) fn rows<'a>(start: &Fold, records: &'a [Record]) -> impl Iterator<Item = Row> + use<'a> {
    let mut names = DeviceNames::of(start.vm());
    let runs = records.chunk_by(|first, second| is_register_write(first) && is_register_write(second));
    runs.filter_map(move |run| {
        let (first, last) = (run.first()?, run.last()?);
        let mut row = Row::of(&names, first);
        run.iter().for_each(|record| names.follow(record));
        if run.len() > 1 {
            row.record = format!("{}-{}", first.stamp.seq, last.stamp.seq.0);
            row.input = format!("{} register writes", run.len());
        }
        Some(row)
    })
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
pub(crate) fn table(rows: impl IntoIterator<Item = Row>) -> String {
    columns(HEADER, rows.into_iter().map(cells))
}

/// Rows in columns, some thousands at a time: a column that is wider in later ones is wider from there on.
pub(crate) fn blocks(rows: impl Iterator<Item = Row>) -> impl Iterator<Item = String> {
    let (mut rows, mut widths) = (rows.map(cells).peekable(), None);
    std::iter::from_fn(move || {
        // The header stands even above nothing.
        let header = widths.is_none().then_some(HEADER);
        (header.is_some() || rows.peek().is_some())
            .then(|| block(header, rows.by_ref().take(BLOCK_ROWS), widths.get_or_insert_default()))
    })
}

const HEADER: [&str; 7] = ["record", "ms", "device", "actor", "from", "input", "outcome"];

fn cells(row: Row) -> [String; 7] {
    [row.record, row.time_ms, row.device, row.actor.to_owned(), row.from, row.input, row.outcome]
}

/// Cells in columns below a header.
pub(crate) fn columns<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    block(Some(header), rows, &mut Vec::new())
}

/// Cells in columns at least as wide as these, which are as wide as the columns are then.
fn block<const N: usize>(
    header: Option<[&str; N]>,
    rows: impl Iterator<Item = [String; N]>,
    widths: &mut Vec<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_rows(rows);
    if let Some(header) = header {
        table.set_header(header);
    }
    let known = widths.iter().copied().chain(std::iter::repeat(0));
    *widths = table.column_max_content_widths().into_iter().zip(known).map(|(width, known)| width.max(known)).collect();
    for (column, width) in table.column_iter_mut().zip(&*widths) {
        let padded = width + column.padding_width();
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(padded)));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: usize) -> Row {
        Row {
            record: format!("#{number}"),
            time_ms: "0.000".into(),
            device: "cxl-vmem0".into(),
            actor: "mailbox",
            from: "guest".into(),
            input: "x".repeat(if number <= BLOCK_ROWS { 20 } else { number % 7 }),
            outcome: "done".into(),
        }
    }

    /// Seen as: 4 GB and 20 s for the first of a million rows.
    #[test]
    fn a_long_table_is_written_in_blocks_of_the_same_columns() {
        let blocks: Vec<_> = blocks((1..=2 * BLOCK_ROWS + 1).map(row)).collect();
        assert_eq!(blocks.len(), 3);
        let lines: Vec<_> = blocks.iter().flat_map(|block| block.lines()).collect();
        assert_eq!(lines.len(), 2 * BLOCK_ROWS + 2);
        assert!(lines[0].starts_with(" record ") && lines[1..].iter().all(|line| line.starts_with(" #")));
        let first: Vec<_> = lines[1..=BLOCK_ROWS].to_vec();
        assert_eq!(first.join("\n"), table((1..=BLOCK_ROWS).map(row)).split_once('\n').expect("rows").1);
        let outcome = |line: &str| line.find("done");
        assert!(lines[1..].iter().all(|line| outcome(line) == outcome(lines[1])), "narrower later");
    }

    #[test]
    fn no_rows_have_a_header() {
        assert_eq!(blocks(std::iter::empty()).collect::<Vec<_>>(), [table(Vec::new())]);
    }
}
