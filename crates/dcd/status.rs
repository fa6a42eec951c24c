//! `dcd status`: how a tag stands, or the device as a whole.

use serde_json::{Value, json};

use crate::client::{Client, Target, query};
use crate::release::region_of;
use crate::size;

/// Show how a tag stands, or how the device stands.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: dcd status\n          dcd status --tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a")]
pub(crate) struct Status {
    /// The tag; without it, the device.
    #[arg(long)]
    tag: Option<String>,
    /// The region; default: the one in which the tag is.
    #[arg(long)]
    region: Option<u8>,
    #[command(flatten)]
    target: Target,
}

impl Status {
    /// Shows.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.target)?;
        let info = query(&mut client, &self.target)?;
        match &self.tag {
            Some(tag) => self.tag_status(&mut client, &info, &wire::Tag::parse(tag)?.to_string()),
            None if self.target.json => {
                println!("{info}");
                Ok(())
            }
            None => {
                print_device(&info);
                Ok(())
            }
        }
    }

    fn tag_status(&self, client: &mut Client, info: &Value, tag: &str) -> anyhow::Result<()> {
        let region = self.region.unwrap_or_else(|| region_of(info, tag));
        let arguments = json!({"path": info["path"], "host-id": 0, "region": region, "tag": tag});
        let status = client.execute("cxl-release-dynamic-capacity-status", arguments)?;
        if self.target.json {
            println!("{status}");
        } else {
            let word = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
            println!("{}: {}", word("state"), word("message"));
        }
        Ok(())
    }
}

fn print_device(info: &Value) {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let entries = |name: &str| info[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |name: &str, member: &str| entries(name).iter().map(|entry| number(&entry[member])).sum::<u64>();
    let counters = &info["counters"];
    println!("{}", info["path"].as_str().unwrap_or_default());
    println!("  regions   {} of {} in all", entries("regions").len(), size::people(sum("regions", "size")));
    println!("  offers    {}", entries("offers").len());
    println!(
        "  extents   {} of {} in all, generation {}",
        entries("extents").len(),
        size::people(sum("extents", "len")),
        counters["generation"]
    );
    println!("  backends  {} of {} in all", entries("backends").len(), size::people(sum("backends", "size")));
    println!("  tracking  {} extents and {} tags left", counters["available-extents"], counters["available-tags"]);
    println!("  DC log    {} of {} records", counters["event-records"], counters["event-records-supported"]);
    if let Some(guest) = info["guest"]["state"].as_str() {
        println!("  guest     {guest}");
    }
    if let Some(slots) = info["window"]["slots"].as_object() {
        let trapped = slots["trapped"].as_array().map(Vec::as_slice).unwrap_or_default();
        let pieces: u64 = trapped.iter().map(|trapped| number(&trapped["pieces"])).sum();
        println!("  slots     {}, {pieces} pieces without one", slots["in-use"]);
    }
    println!("  journal   #{}, durable up to #{}", info["journal"]["last"], info["journal"]["durable"]);
}
