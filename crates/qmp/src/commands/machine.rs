//! Commands that concern the VM as a whole.

use std::sync::Arc;

use actors::{RunState, Vm};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::nothing;
use crate::error::QmpError;
use crate::events::EventSender;
use crate::schema::{Argument, CommandSchema, EMPTY, EnumSchema, EventSchema, Kind, StructSchema, required};

/// A command without arguments.
const fn bare(name: &'static str, doc: &'static str, returns: Kind) -> CommandSchema {
    CommandSchema { name, doc, arguments: &[], returns, features: &[] }
}

static VERSION_TRIPLE: StructSchema = StructSchema {
    name: "VersionTriple",
    doc: "A version.",
    members: &[
        required("major", Kind::Int, "Major number."),
        required("minor", Kind::Int, "Minor number."),
        required("micro", Kind::Int, "Micro number."),
    ],
};

static VERSION_INFO: StructSchema = StructSchema {
    name: "VersionInfo",
    doc: "The version of the program.",
    members: &[
        required("qemu", Kind::Object(&VERSION_TRIPLE), "The QEMU whose commands and schemas are spoken."),
        required("package", Kind::Str, "The program and its own version."),
    ],
};

static COMMAND_INFO: StructSchema =
    StructSchema { name: "CommandInfo", doc: "A command.", members: &[required("name", Kind::Str, "Its name.")] };
static COMMAND_INFO_KIND: Kind = Kind::Object(&COMMAND_INFO);

static RUN_STATE: EnumSchema = EnumSchema {
    name: "RunState",
    doc: "Whether the VM runs.",
    values: &[("running", "Clock and guest run."), ("paused", "Both stand still; requests are served.")],
};

static SHUTDOWN_CAUSE: EnumSchema = EnumSchema {
    name: "ShutdownCause",
    doc: "Who asked, in QEMU's words.",
    values: &[("host-qmp-quit", "A client with `quit`."), ("host-qmp-system-reset", "A client with `system_reset`.")],
};

static STATUS_INFO: StructSchema = StructSchema {
    name: "StatusInfo",
    doc: "Whether the VM runs.",
    members: &[
        required("running", Kind::Bool, "Whether clock and guest run."),
        required("status", Kind::Enum(&RUN_STATE), "The same as a word."),
    ],
};

pub(super) const QUERY_VERSION: CommandSchema =
    bare("query-version", "Returns the version of the program.", Kind::Object(&VERSION_INFO));
pub(super) const QUERY_COMMANDS: CommandSchema =
    bare("query-commands", "Returns the names of all commands.", Kind::List(&COMMAND_INFO_KIND));
pub(super) const QUERY_STATUS: CommandSchema =
    bare("query-status", "Returns whether the VM runs.", Kind::Object(&STATUS_INFO));
pub(super) const STOP: CommandSchema =
    bare("stop", "Stops the VM clock and the guest: STOP. Requests are still served.", Kind::Object(&EMPTY));
pub(super) const CONT: CommandSchema = bare("cont", "Lets clock and guest run again: RESUME.", Kind::Object(&EMPTY));
pub(super) const SYSTEM_RESET: CommandSchema = bare(
    "system_reset",
    "Conventional reset of every device (CXL r4.0 9.13.3): RESET. Accepted extents stay; the DC event log is cleared; offers \
     that the host has not answered are withdrawn (CXL_DYNAMIC_CAPACITY_REJECTED, reason reset); decoders, interrupt \
     policy and registers are as at power-on; the guest boots.",
    Kind::Object(&EMPTY),
);
pub(super) const QUIT: CommandSchema =
    bare("quit", "Ends the program when everything is durable: SHUTDOWN.", Kind::Object(&EMPTY));

const fn event(name: &'static str, doc: &'static str, data: &'static [Argument]) -> EventSchema {
    EventSchema { name, doc, data, features: &[] }
}

const GUEST: Argument = required("guest", Kind::Bool, "Whether the guest asked for it.");
const REASON: Argument = required("reason", Kind::Enum(&SHUTDOWN_CAUSE), "Who asked.");

pub(super) const STOPPED: EventSchema = event("STOP", "The VM was stopped.", &[]);
pub(super) const RESUMED: EventSchema = event("RESUME", "The VM runs again.", &[]);
pub(super) const RESET: EventSchema = event("RESET", "The VM was reset.", &[GUEST, REASON]);
pub(super) const SHUTDOWN: EventSchema = event("SHUTDOWN", "The program is about to end.", &[GUEST, REASON]);

/// The version object of the greeting and of `query-version`.
pub(super) fn version() -> Value {
    json!({"qemu": {"micro": 0, "minor": 1, "major": 11}, "package": concat!("dcd ", env!("CARGO_PKG_VERSION"))})
}

pub(super) fn query_commands(commands: &[CommandSchema]) -> Value {
    commands.iter().map(|command| json!({"name": command.name})).collect()
}

pub(super) fn query_status(vm: &Vm) -> Value {
    match vm.run_state() {
        RunState::Running => json!({"running": true, "status": "running"}),
        RunState::Paused => json!({"running": false, "status": "paused"}),
    }
}

/// Who changes the run state or tells of it has the lock meanwhile, so that the last event says how it is.
#[derive(Clone, Default)]
pub(super) struct RunStates(Arc<Mutex<()>>);

impl RunStates {
    /// `stop` and `cont`.
    pub(super) async fn set(&self, vm: &Vm, to: RunState, events: &EventSender) -> Result<Value, QmpError> {
        let _telling = self.0.lock().await;
        if vm.set_run_state(to).await? != to {
            events.send(if to == RunState::Paused { STOPPED.name } else { RESUMED.name }, Value::Null);
        }
        Ok(nothing())
    }

    /// Tells of a VM that is about to stand still for another reason, and returns what it did.
    pub(super) async fn tell_stopped(&self, vm: &Vm, events: &EventSender) -> RunState {
        let _telling = self.0.lock().await;
        let before = vm.run_state();
        if before == RunState::Running {
            events.send(STOPPED.name, Value::Null);
        }
        before
    }

    /// Tells of such a VM that runs again, unless it was stopped meanwhile.
    pub(super) async fn tell_resumed(&self, vm: &Vm, events: &EventSender) {
        let _telling = self.0.lock().await;
        if vm.run_state() == RunState::Running {
            events.send(RESUMED.name, Value::Null);
        }
    }
}

pub(super) async fn system_reset(vm: &Vm, events: &EventSender) -> Result<Value, QmpError> {
    vm.system_reset().await?;
    events.send(RESET.name, json!({"guest": false, "reason": "host-qmp-system-reset"}));
    Ok(nothing())
}

pub(super) fn tell_shutdown(events: &EventSender) {
    events.send(SHUTDOWN.name, json!({"guest": false, "reason": "host-qmp-quit"}));
}
