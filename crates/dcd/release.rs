//! `dcd release`: asks the host to give a tag's memory back, or takes it.

use serde_json::json;

use crate::client::{Client, Target, query};

/// Ask the host to give back what it holds of a tag.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd release --tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a")]
pub(crate) struct Release {
    /// The tag.
    #[arg(long)]
    tag: String,
    /// The region; default: the one in which the tag is.
    #[arg(long)]
    region: Option<u8>,
    /// Take it away at once.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

impl Release {
    /// Asks or takes.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.target)?;
        let info = query(&mut client, &self.target)?;
        let tag = wire::Tag::parse(&self.tag)?.to_string();
        let arguments = json!({
            "path": info["path"], "host-id": 0, "removal-policy": "tag-based", "forced-removal": self.force,
            "region": self.region.unwrap_or_else(|| region_of(&info, &tag)), "tag": tag,
        });
        client.execute("cxl-release-dynamic-capacity", arguments)?;
        if self.target.json {
            println!("{}", json!({"tag": tag, "forced": self.force}));
        } else if self.force {
            println!("tag {tag} is taken away");
        } else {
            println!("the host is asked to release tag {tag}");
        }
        Ok(())
    }
}

/// The region in which a tag is offered or held; 0 where it is not.
pub(crate) fn region_of(info: &serde_json::Value, tag: &str) -> u8 {
    let lists = ["extents", "offers"].into_iter().filter_map(|list| info[list].as_array()).flatten();
    let region = lists.into_iter().find(|entry| entry["tag"] == tag).and_then(|entry| entry["region"].as_u64());
    region.and_then(|region| u8::try_from(region).ok()).unwrap_or_default()
}
