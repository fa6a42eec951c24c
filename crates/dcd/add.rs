//! `dcd add`: offers a backend's memory by its tag.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::client::{Client, Target, query};
use crate::{options, size};

/// Offer the backend with a tag to the host.
///
/// The length is the backend's, the offset the first free range of the region that is long enough. Returns when the
/// offer is durable; `dcd watch` or `dcd status` tell what the host answers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd add --tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a --at 1G")]
pub(crate) struct Add {
    /// The tag of the backend.
    #[arg(long)]
    tag: String,
    /// Offset in the region in bytes.
    #[arg(long, value_parser = options::size, value_name = "OFFSET")]
    at: Option<u64>,
    /// The region.
    #[arg(long, default_value_t = 0)]
    region: u8,
    #[command(flatten)]
    target: Target,
}

impl Add {
    /// Offers.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.target)?;
        let info = query(&mut client, &self.target)?;
        let tag = wire::Tag::parse(&self.tag)?.to_string();
        let len = backend_len(&info, &tag)?;
        let offset = match self.at {
            Some(offset) => offset,
            None => first_free(&info, self.region, len)?,
        };
        let arguments = json!({
            "path": info["path"], "host-id": 0, "selection-policy": "prescriptive", "region": self.region,
            "tag": tag, "extents": [{"offset": offset, "len": len}],
        });
        client.execute("cxl-add-dynamic-capacity", arguments)?;
        if self.target.json {
            println!("{}", json!({"tag": tag, "region": self.region, "offset": offset, "len": len}));
        } else {
            println!("offered {} at {offset:#x} of region {}, tag {tag}", size::people(len), self.region);
        }
        Ok(())
    }
}

fn backend_len(info: &Value, tag: &str) -> anyhow::Result<u64> {
    let backends = info["backends"].as_array().context("the answer lists no backends")?;
    match backends.iter().find(|backend| backend["tag"] == tag) {
        Some(backend) => backend["size"].as_u64().context("a backend without a size"),
        None => bail!("no backend has the tag {tag}: `dcd list` shows the backends; object-add or --object makes one"),
    }
}

/// The first gap of a region that holds `len` bytes and begins on a block.
fn first_free(info: &Value, region: u8, len: u64) -> anyhow::Result<u64> {
    let regions = info["regions"].as_array().context("the answer lists no regions")?;
    let Some(of) = regions.iter().find(|of| of["region"] == region) else {
        bail!("there is no region {region}: the device has {}", regions.len());
    };
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (size, block) = (number(&of["size"]), number(&of["block-size"]).max(1));
    let spans = |list: &Value| -> Vec<(u64, u64)> {
        let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
        entries.iter().map(|entry| (number(&entry["offset"]), number(&entry["len"]))).collect()
    };
    let in_region = |list: &Value| -> Vec<Value> {
        let entries = list.as_array().cloned().unwrap_or_default();
        entries.into_iter().filter(|entry| entry["region"] == region).collect()
    };
    let offered = in_region(&info["offers"]).into_iter().flat_map(|offer| spans(&offer["extents"]));
    let mut taken: Vec<_> = offered.chain(spans(&in_region(&info["extents"]).into())).collect();
    taken.push((size, 0));
    taken.sort_unstable();
    let mut free = 0u64;
    for (start, taken_len) in taken {
        if start.saturating_sub(free) >= len {
            return Ok(free);
        }
        free = free.max(start.saturating_add(taken_len)).next_multiple_of(block);
    }
    bail!("region {region} has no free range of {}: release something or use another region", size::people(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_long_enough() {
        let info = json!({
            "regions": [{"region": 0, "size": 100, "block-size": 10}],
            "offers": [{"region": 0, "extents": [{"offset": 40, "len": 10}]}],
            "extents": [{"region": 0, "offset": 0, "len": 10}, {"region": 0, "offset": 20, "len": 10}],
        });
        assert_eq!(first_free(&info, 0, 10).unwrap(), 10);
        assert_eq!(first_free(&info, 0, 50).unwrap(), 50);
        assert!(first_free(&info, 0, 60).is_err());
        assert!(first_free(&info, 1, 10).is_err());
    }
}
