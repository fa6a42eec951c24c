//! `dcd snapshot show`: what is in a snapshot.

use std::path::{Path, PathBuf};

use journal::form::Keyframe;
use serde_json::{Value, json};
use snapshot::{Base, Contents, Memory, Snapshot};

use crate::snapshot_place::{plain, print_json};
use crate::table::columns;
use crate::{date, print_text, size, snapshot_place};

/// Print what is in a snapshot; no dcd needs to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd snapshot show /var/lib/dcd/snapshots/monday\n\n\
                        dcd inspect --snapshot prints the state of the devices in it.")]
pub(crate) struct Show {
    /// Its directory, DIR/NAME.
    path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Show {
    /// Shows.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let snapshot = snapshot_place::open(&self.path)?;
        let keyframe = snapshot_place::keyframe(&snapshot)?;
        if self.json { print_json(&json_of(&snapshot, &keyframe)) } else { self.print(&snapshot, &keyframe) }
    }

    fn print(&self, snapshot: &Snapshot, keyframe: &Keyframe) -> anyhow::Result<()> {
        let manifest = snapshot.manifest();
        let chain: Vec<_> = snapshot.chain().map(|manifest| manifest.name.as_str()).collect();
        let mut text = format!("{}\n", chain.join(", on "));
        let facts = [
            ("id", manifest.id.to_string()),
            ("saved", format!("{} UTC", date::utc(manifest.created_ms))),
            ("state", format!("after {}, at {:.3} ms of the VM clock", keyframe.seq, keyframe.time.0 as f64 / 1e6)),
        ];
        let facts = facts.into_iter().map(|(name, fact)| (name.to_owned(), fact));
        for (name, fact) in facts.chain(snapshot.about().iter().cloned()) {
            text.push_str(&format!("  {}: {}\n", plain(&name), plain(&fact)));
        }
        let memories = snapshot.memories().iter().map(|memory| {
            [memory.id.to_string(), size::people(memory.len_bytes), self.held(memory), bytes_are(memory)]
        });
        let parts =
            snapshot.parts().map(|part| [part.name.clone(), part.version.to_string(), part.len_bytes.to_string()]);
        text.push_str(&format!(
            "\n{}\n\n{}\n",
            columns(["memory", "length", "on disk here", "bytes"], memories),
            columns(["part", "form", "bytes"], parts)
        ));
        print_text(&text)
    }

    /// What the memory's file in this directory takes on the disk.
    fn held(&self, memory: &Memory) -> String {
        let held_bytes =
            matches!(memory.contents, Contents::Copied(_)).then(|| disk_bytes(&self.path, memory)).flatten();
        held_bytes.map_or_else(|| "-".to_owned(), size::people)
    }
}

/// Nothing where the host does not say.
fn disk_bytes(path: &Path, memory: &Memory) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path.join(format!("{}.contents", memory.id))).ok()?;
    Some(metadata.blocks().saturating_mul(512))
}

fn bytes_are(memory: &Memory) -> String {
    match &memory.contents {
        Contents::Copied(Base::Zeros) => "all here".to_owned(),
        Contents::Copied(Base::Parent) => "what differs from the snapshot below".to_owned(),
        Contents::Reference { path } => format!("in {}", plain(path)),
    }
}

fn json_of(snapshot: &Snapshot, keyframe: &Keyframe) -> Value {
    let manifest = snapshot.manifest();
    let link = |manifest: &snapshot::Manifest| json!({"tag": manifest.name.as_str(), "id": manifest.id.to_string()});
    let memory = |memory: &Memory| {
        let mut info = json!({"id": memory.id.as_str(), "len-bytes": memory.len_bytes});
        match &memory.contents {
            Contents::Copied(Base::Zeros) => info["base"] = "zeros".into(),
            Contents::Copied(Base::Parent) => info["base"] = "parent".into(),
            Contents::Reference { path } => info["reference"] = path.as_str().into(),
        }
        info
    };
    let part =
        |part: &snapshot::PartInfo| json!({"name": part.name, "version": part.version, "len-bytes": part.len_bytes});
    let about: serde_json::Map<_, _> =
        snapshot.about().iter().map(|(key, text)| (key.clone(), text.as_str().into())).collect();
    json!({
        "tag": manifest.name.as_str(),
        "id": manifest.id.to_string(),
        "created": manifest.created_ms,
        "records": keyframe.seq.0,
        "vm-time-ns": keyframe.time.0,
        "about": about,
        "chain": snapshot.chain().map(link).collect::<Vec<_>>(),
        "memories": snapshot.memories().iter().map(memory).collect::<Vec<_>>(),
        "parts": snapshot.parts().map(part).collect::<Vec<_>>(),
    })
}
