//! The command by which another process asks for the VM.

use std::path::Path;

use actors::Vm;
use serde_json::{Value, json};

use super::arguments::{Arguments, required_text};
use crate::error::QmpError;
use crate::schema::{CommandSchema, Kind, StructSchema, UNSTABLE, required};

static HANDED_OVER: StructSchema = StructSchema {
    name: "HandedOver",
    doc: "A VM that another process has.",
    members: &[
        required("holder", Kind::Str, "Which process, and the journal that holds the last state."),
        required(
            "pause-us",
            Kind::U64,
            "How long the guest had stood still when the other process had it, in microseconds.",
        ),
    ],
};

pub(super) const HAND_OVER: CommandSchema = CommandSchema {
    name: "x-hand-over",
    doc: "Hands the VM to the process that listens at a socket, and ends this one: what `dcd run --takeover` asks for. Where nothing comes of it, the VM goes on here.",
    arguments: &[required("socket", Kind::Str, "The path of the socket.")],
    returns: Kind::Object(&HANDED_OVER),
    features: &[UNSTABLE],
};

pub(super) async fn hand_over(vm: &Vm, given: &Arguments) -> Result<Value, QmpError> {
    let path = required_text(given, "socket")?.to_owned();
    let refused = |error: &dyn std::fmt::Display| QmpError::generic(format!("the VM stays here: {error}"));
    let connected = tokio::task::spawn_blocking(move || handover::connect(Path::new(&path))).await;
    let stream = connected.map_err(|error| refused(&error))?.map_err(|error| refused(&error))?;
    let handed = vm.hand_over(stream).await.map_err(|error| refused(&error))?;
    Ok(json!({"holder": handed.holder, "pause-us": handed.pause.as_micros() as u64}))
}
