//! `dcd list`: backends, offers and extents of a running device.

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::client::{Client, Target, query};
use crate::size;

/// List backends, offers and accepted extents.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd list --json | jq .tag")]
pub(crate) struct List {
    #[command(flatten)]
    target: Target,
}

impl List {
    /// Lists.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.target)?;
        let info = query(&mut client, &self.target)?;
        let entries = |name: &str| info[name].as_array().cloned().unwrap_or_default();
        if self.target.json {
            for (kind, list) in [("backend", "backends"), ("offer", "offers"), ("extent", "extents")] {
                for mut entry in entries(list) {
                    entry["kind"] = kind.into();
                    println!("{entry}");
                }
            }
            return Ok(());
        }
        print_table(&["backend", "size", "state", "record", "bytes", "tag"], entries("backends").iter().map(backend));
        print_table(
            &["offer", "region", "offset", "length", "backend", "tag"],
            entries("offers").iter().flat_map(offer),
        );
        let header = ["extent", "region", "offset", "length", "seen at", "backend", "tag"];
        print_table(&header, entries("extents").iter().map(extent));
        Ok(())
    }
}

fn print_table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_rows(rows);
    table.lines().for_each(|line| println!("{}", line.trim_end()));
    println!();
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn hex(value: &Value) -> String {
    format!("{:#x}", value.as_u64().unwrap_or_default())
}

fn record(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), |record| format!("#{record}"))
}

fn len(value: &Value) -> String {
    size::people(value.as_u64().unwrap_or_default())
}

fn backend(entry: &Value) -> Vec<String> {
    let bytes = if entry["bytes-lost"] == true { "lost at a restart" } else { "kept" };
    vec![
        text(&entry["id"]),
        len(&entry["size"]),
        text(&entry["state"]),
        record(&entry["record"]),
        bytes.into(),
        text(&entry["tag"]),
    ]
}

fn offer(entry: &Value) -> Vec<Vec<String>> {
    let name =
        if entry["dead"] == true { format!("{} dead", record(&entry["record"])) } else { record(&entry["record"]) };
    let extents = entry["extents"].as_array().cloned().unwrap_or_default();
    let row = |extent: &Value| {
        let region = entry["region"].to_string();
        vec![
            name.clone(),
            region,
            hex(&extent["offset"]),
            len(&extent["len"]),
            text(&entry["backend"]),
            text(&entry["tag"]),
        ]
    };
    extents.iter().map(row).collect()
}

fn extent(entry: &Value) -> Vec<String> {
    let seen: Vec<_> = entry["hpa"].as_array().into_iter().flatten().map(hex).collect();
    let seen = if seen.is_empty() { "nowhere".into() } else { seen.join(" ") };
    let region = entry["region"].to_string();
    let offset = hex(&entry["offset"]);
    vec![
        record(&entry["accepted"]),
        region,
        offset,
        len(&entry["len"]),
        seen,
        text(&entry["backend"]),
        text(&entry["tag"]),
    ]
}
