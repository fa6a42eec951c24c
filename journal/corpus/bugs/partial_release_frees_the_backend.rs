//! One of two extents was taken away by force and the backend behind both was free, so that another device could have had
//! it: law backend-one-owner is broken, backend tm0 is free, and cxl-vmem0 has it attached.
//!
//! Planted by the feature `planted-bug`, recorded by tests/planted.rs, cut down from 90 inputs by `dcd shrink`.

use crate::bugs;

const CASE: &str = r#"
{"config":{"memory_bytes":1073741824,"root_ports":["rp0"],"window_base":4563402752,"windows_bytes":[4294967296]}}
{"record":1,"time":0,"device":0,"operation":1,"origin":"command-line","input":{"backends":{"DeviceAdd":{"config":{"id":"cxl-vmem0","serial":0,"mailbox_payload_log2":15,"static_memory":null,"dynamic_memory":"tagged","regions":[{"base":0,"len_bytes":4294967296,"block":2097152}]},"source":"command-line"}}},"outcomes":[]}
{"record":2,"time":0,"device":0,"operation":2,"origin":"operator","input":{"backends":{"ObjectAdd":{"id":"tm0","spec":{"kind":"ram","size_bytes":4194304,"sharing":"shared","population":"on-demand","reservation":"reserved","tag":"5be13bce-ae34-4a77-b6c3-16df975fcf1a","tag_text":"5be13bce-ae34-4a77-b6c3-16df975fcf1a"},"source":"request"}}},"outcomes":["done"]}
{"record":3,"time":0,"device":0,"operation":3,"origin":"operator","input":{"extents":{"add":{"host_id":0,"policy":"prescriptive","region":0,"tag":"5be13bce-ae34-4a77-b6c3-16df975fcf1a","extents":[{"offset":0,"len_bytes":2097152},{"offset":33554432,"len_bytes":2097152}]}}},"outcomes":[]}
{"record":4,"time":0,"device":0,"operation":4,"origin":"guest","input":{"extents":{"command":{"opcode":18434,"payload":"0200000000000000000000000000000000002000000000000000000000000000000000020000000000002000000000000000000000000000"}}},"outcomes":[]}
{"record":5,"time":0,"device":0,"operation":5,"origin":"operator","input":{"extents":{"release":{"host_id":0,"policy":"prescriptive","removal":"forced","sanitize":"keep","region":0,"tag":"00000000-0000-0000-0000-000000000000","extents":[{"offset":33554432,"len_bytes":2097152}]}}},"outcomes":[]}
"#;

#[test]
fn law_backend_one_owner_88() {
    bugs::law_holds("backend-one-owner", CASE);
}
