//! The window in a query: its accesses, and what a guest's processors reach by themselves.

use actors::Vm;
use memory::{TrapReason, WindowSlots};
use serde_json::{Value, json};

use crate::schema::{EnumSchema, Kind, StructSchema, optional, required};

static TRAP_REASON: EnumSchema = EnumSchema {
    name: "CxlWindowTrapReason",
    doc: "Why memory has no slot.",
    values: &[
        ("limit", "The hypervisor has no more slots. It gets one when there is room."),
        ("misaligned", "Pages of guest addresses are none of the memory."),
        ("under-page", "It fills no page."),
        ("refused", "The hypervisor refused."),
        ("interleaved", "It is interleaved finer than a slot."),
        ("shared", "Other decoders, or routes that lead elsewhere, share its addresses."),
    ],
};

static TRAPPED: StructSchema = StructSchema {
    name: "CxlWindowTrapped",
    doc: "Memory that a guest reaches by exits: slow, never wrong.",
    members: &[
        required("reason", Kind::Enum(&TRAP_REASON), "Why."),
        required("pieces", Kind::U64, "How many stretches of addresses."),
        required("bytes", Kind::U64, "How many bytes."),
    ],
};

static TRAPPED_KIND: Kind = Kind::Object(&TRAPPED);

static SLOTS: StructSchema = StructSchema {
    name: "CxlWindowSlots",
    doc: "Slots of the hypervisor, through which a guest's processors reach memory without an exit.",
    members: &[
        required("limit", Kind::U64, "Slots of the VM, for RAM and registers too."),
        required("in-use", Kind::U64, "Those of the window."),
        required("bytes", Kind::U64, "Bytes of the window in them."),
        required("trapped", Kind::List(&TRAPPED_KIND), "What has none, by reason."),
        required("trapped-accesses", Kind::U64, "Accesses to memory that came as exits, or from outside the guest."),
    ],
};

pub(super) static WINDOW_INFO: StructSchema = StructSchema {
    name: "CxlWindowInfo",
    doc: "The fixed window and its accesses: statistics, not records.",
    members: &[
        required("base", Kind::U64, "Base in guest-physical addresses."),
        required("size", Kind::Size, "Size in bytes."),
        required("hits", Kind::U64, "Accesses that reached an accepted extent; those through slots are not counted."),
        required("misses", Kind::U64, "Accesses that reached nothing."),
        optional("slots", Kind::Object(&SLOTS), "What the guest reaches by itself, where it is on KVM."),
    ],
};

/// The window of a VM.
pub(super) fn window_info(vm: &Vm) -> Value {
    let window = vm.window();
    let counters = window.counters();
    let mut info = json!({
        "base": window.base().0,
        "size": window.size_bytes(),
        "hits": counters.hits,
        "misses": counters.misses,
    });
    if let (Some(counts), Some(slots)) = (vm.slot_counts(), window.slots()) {
        info["slots"] = slots_info(counts.limit, &slots);
    }
    info
}

fn slots_info(limit: u32, slots: &WindowSlots) -> Value {
    let trapped = slots.trapped.iter();
    let trapped = trapped
        .map(|(reason, count)| json!({"reason": reason_name(*reason), "pieces": count.pieces, "bytes": count.bytes}));
    json!({
        "limit": limit,
        "in-use": slots.slots,
        "bytes": slots.bytes,
        "trapped": trapped.collect::<Vec<_>>(),
        "trapped-accesses": slots.trapped_accesses,
    })
}

fn reason_name(reason: TrapReason) -> &'static str {
    match reason {
        TrapReason::Limit => "limit",
        TrapReason::Misaligned => "misaligned",
        TrapReason::UnderPage => "under-page",
        TrapReason::Refused => "refused",
        TrapReason::Interleaved => "interleaved",
        TrapReason::Shared => "shared",
    }
}
