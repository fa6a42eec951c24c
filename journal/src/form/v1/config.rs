//! What a VM and a device are made of.

use device::config;

use crate::form::frozen::{BlockBytes, frozen};

frozen! {
    struct VmConfig of config::VmConfig {
        memory_bytes: u64,
        window_base: u64,
        windows_bytes: Vec<u64>,
        root_ports: Vec<String>,
    }

    struct DeviceConfig of config::DeviceConfig {
        id: String,
        serial: u64,
        mailbox_payload_log2: u8,
        static_memory: Option<StaticMemory>,
        dynamic_memory: DynamicMemory,
        regions: Vec<RegionConfig>,
    }

    struct StaticMemory of config::StaticMemory {
        backend: String,
        len_bytes: u64,
    }

    enum DynamicMemory of config::DynamicMemory {
        Tagged,
        Plain { backend: String, tag_rule: TagRule },
    }

    enum TagRule of config::TagRule {
        Reusable,
        Unique,
    }

    struct RegionConfig of config::RegionConfig {
        base: u64,
        len_bytes: u64,
        block: BlockBytes,
    }
}
