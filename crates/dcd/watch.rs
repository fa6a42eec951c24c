//! `dcd watch`: what happens to capacity, as it happens.

use serde_json::Value;

use crate::client::{Client, Target};
use crate::size;

/// Print what happens to capacity, as it happens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd watch --json")]
pub(crate) struct Watch {
    /// End after this many events.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    target: Target,
}

impl Watch {
    /// Watches until the program ends, the reader goes, or enough was seen.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.target)?;
        // On standard error, so that what happens is all there is on standard output.
        eprintln!("watching; what happens from now on is printed");
        let mut seen = 0;
        while self.count.is_none_or(|count| seen < count)
            && let Some(event) = client.event()?
        {
            let line = if self.target.json { event.to_string() } else { describe(&event) };
            crate::print_line(&line)?;
            seen += 1;
        }
        Ok(())
    }
}

fn describe(event: &Value) -> String {
    let data = &event["data"];
    let name = event["event"].as_str().unwrap_or_default();
    let verb = name.strip_prefix("CXL_DYNAMIC_CAPACITY_").unwrap_or(name).to_lowercase().replace('_', "-");
    let Some(extents) = data["extents"].as_array() else { return verb };
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let spans = extents
        .iter()
        .map(|extent| format!("{} at {:#x}", size::people(number(&extent["len"])), number(&extent["offset"])));
    let reason = data["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "#{} {verb}{reason}: tag {} in region {}: {}",
        data["record"],
        data["tag"].as_str().unwrap_or("none"),
        data["region"],
        spans.collect::<Vec<_>>().join(", ")
    )
}
