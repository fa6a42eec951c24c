//! What VM and devices are made of.

use crate::config::{DeviceConfig, DynamicMemory, RegionConfig, TagRule, VmConfig};

use super::node::{Node, fields, list};

pub(super) fn vm(config: &VmConfig) -> Node<'_> {
    fields!(
        "memory-bytes" => Node::number(config.memory_bytes),
        "window-base" => Node::address(config.window_base.0),
        "windows-bytes" => list(&config.windows_bytes, |bytes| Node::number(*bytes)),
        "root-ports" => list(&config.root_ports, |id| Node::text(id)),
    )
}

pub(super) fn device(config: &DeviceConfig) -> Node<'_> {
    let (source, backend, rule) = match &config.dynamic_memory {
        DynamicMemory::Tagged => ("tagged", "none", "one-backend"),
        DynamicMemory::Plain { backend, tag_rule: TagRule::Reusable } => ("plain", backend.as_str(), "reusable"),
        DynamicMemory::Plain { backend, tag_rule: TagRule::Unique } => ("plain", backend.as_str(), "unique"),
    };
    let fixed = config.static_memory.as_ref();
    fields!(
        "serial" => Node::number(config.serial),
        "mailbox-payload-bytes" => Node::count(config.mailbox_payload_bytes()),
        "static-bytes" => Node::number(config.static_len_bytes()),
        "static-backend" => Node::text(fixed.map_or("none", |memory| &memory.backend)),
        "dynamic-bytes" => Node::number(config.dynamic_len_bytes()),
        "dynamic-memory" => Node::word(source),
        "dynamic-backend" => Node::text(backend),
        "tag-rule" => Node::word(rule),
        "regions" => list(&config.regions, region),
    )
}

fn region(region: &RegionConfig) -> Node<'_> {
    fields!(
        "base" => Node::dpa(region.base),
        "len-bytes" => Node::number(region.len_bytes),
        "block-bytes" => Node::number(region.block.bytes()),
    )
}
