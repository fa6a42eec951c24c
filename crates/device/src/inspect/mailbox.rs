//! Configuration space, MSI-X and the interrupt policy, as the host set them.

use wire::EventLog;

use crate::config_space::{COMPONENT_BAR, DEVICE_BAR, MSIX_BAR};
use crate::mailbox::{MSIX_VECTORS, State};

use super::Value;
use super::node::{Node, fields, items};

/// Bytes of configuration space.
const CONFIG_LEN_BYTES: u16 = 0x1000;

pub(super) fn state(mailbox: &State) -> Node<'_> {
    let vector = |log| mailbox.event_vector(log).map_or(Node::word("none"), Node::number);
    fields!(
        "control" => Node::address(mailbox.control()),
        "event-vectors" => fields!(
            "informational" => vector(EventLog::Informational),
            "warning" => vector(EventLog::Warning),
            "failure" => vector(EventLog::Failure),
            "fatal" => vector(EventLog::Fatal),
            "dynamic-capacity" => vector(EventLog::DynamicCapacity),
        ),
        "bars" => bars(mailbox),
        "config-space" => config_space(mailbox),
        "msix" => msix(mailbox),
    )
}

fn bars(mailbox: &State) -> Node<'_> {
    let bar = |bar| mailbox.config_space().bar(bar).map_or(Node::word("none"), |base| Node::address(base.0));
    fields!("component" => bar(COMPONENT_BAR), "device" => bar(DEVICE_BAR), "msix" => bar(MSIX_BAR))
}

/// Dwords by their offset; a listing leaves out those that are 0.
fn config_space(mailbox: &State) -> Node<'_> {
    let dword = |offset| mailbox.config_space().read(offset, 4);
    let named = move |offset: u16| (format!("{offset:#05x}"), Node::address(dword(offset)));
    items(
        move || (0..CONFIG_LEN_BYTES).step_by(4).filter(|offset| dword(*offset) != 0).map(named).collect(),
        move |key| {
            let offset = u16::try_from(Value::parse_number(key)?).ok()?;
            (offset < CONFIG_LEN_BYTES && offset.is_multiple_of(4)).then(|| named(offset))
        },
    )
}

fn msix(mailbox: &State) -> Node<'_> {
    let named = move |vector: usize| (vector.to_string(), msix_vector(&mailbox.msix()[vector * 16..][..16]));
    items(
        move || (0..MSIX_VECTORS).map(named).collect(),
        move |key| {
            let vector = usize::try_from(Value::parse_number(key)?).ok()?;
            (vector < MSIX_VECTORS).then(|| named(vector))
        },
    )
}

/// Address 0, data 8, control 12 (PCI Express base specification 6.0, 7.7.2).
fn msix_vector(entry: &[u8]) -> Node<'_> {
    let dword = |at: usize| u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]));
    fields!(
        "address" => Node::address(dword(0) | dword(4) << 32),
        "data" => Node::address(dword(8)),
        "masked" => Node::word(if dword(12) & 1 == 1 { "yes" } else { "no" }),
    )
}
