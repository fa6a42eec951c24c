//! The commands of a VM, over its actors.
//!
//! ```text
//!  machine        query-version … quit            the VM as a whole
//!  identity       query-name … query-cpus-fast    what management programs ask first
//!  introspection  query-qmp-schema                what there is to ask
//!  monitor        human-monitor-command           the answers for people
//!  objects        object-add … query-memdev       backends and the QOM tree
//!  devices        device_add, device_del          devices that come and go
//!  capacity       cxl-… , query-cxl-…             dynamic capacity
//!  journal        x-inspect, x-journal-tail       the state by path, and the newest records
//!  hand_over      x-hand-over                    the VM goes to another process
//!  snapshots      snapshot-save … x-pulse         what the VM was, to go back to
//!  jobs           query-jobs … job-dismiss        what goes on after it was answered
//!  notices        CXL_DYNAMIC_CAPACITY_…          what is told without being asked
//! ```
//!
//! A command is its schema and one function. Deliberately absent: decisions. What a request may do is for the device
//! to say; here it is only read and its answer written.

mod arguments;
mod capacity;
mod devices;
mod hand_over;
mod identity;
mod introspection;
mod jobs;
mod journal;
mod machine;
mod monitor;
mod notices;
mod objects;
mod path;
mod snapshots;
mod window_info;

use actors::{RequestError, Vm};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use self::arguments::Arguments;
use self::machine::RunStates;
use self::snapshots::Snapshots;
use crate::error::QmpError;
use crate::events::EventSender;
use crate::introspect::introspect;
use crate::jobs::Jobs;
use crate::schema::{CommandSchema, EventSchema, QMP_CAPABILITIES};
use crate::service::Service;

pub use devices::DEVICE_MEMBERS;
pub use notices::{notice_event, prealloc_event};
pub use objects::OBJECT_MEMBERS;

/// The commands of one VM.
pub struct VmService {
    vm: Vm,
    quit: Notify,
    jobs: Jobs,
    run_states: RunStates,
}

/// Every command, in the order in which `query-commands` and the documentation list them.
pub static COMMANDS: &[CommandSchema] = &[
    QMP_CAPABILITIES,
    machine::QUERY_VERSION,
    machine::QUERY_COMMANDS,
    introspection::QUERY_QMP_SCHEMA,
    machine::QUERY_STATUS,
    identity::QUERY_NAME,
    identity::QUERY_UUID,
    identity::QUERY_TARGET,
    identity::QUERY_KVM,
    identity::QUERY_CPUS_FAST,
    machine::STOP,
    machine::CONT,
    machine::SYSTEM_RESET,
    machine::QUIT,
    monitor::HUMAN_MONITOR_COMMAND,
    objects::OBJECT_ADD,
    objects::OBJECT_DEL,
    objects::QOM_LIST,
    objects::QOM_GET,
    objects::QOM_LIST_GET,
    objects::QOM_SET,
    objects::QUERY_MEMDEV,
    devices::DEVICE_ADD,
    devices::DEVICE_DEL,
    capacity::ADD,
    capacity::RELEASE,
    capacity::STATUS,
    capacity::QUERY,
    journal::INSPECT,
    journal::TAIL,
    hand_over::HAND_OVER,
    snapshots::SNAPSHOT_SAVE,
    snapshots::SNAPSHOT_LOAD,
    snapshots::SNAPSHOT_DELETE,
    snapshots::QUERY_SNAPSHOTS,
    snapshots::PULSE,
    jobs::QUERY_JOBS,
    jobs::JOB_CANCEL,
    jobs::JOB_DISMISS,
];

/// Every event that is sent.
pub static EVENTS: &[EventSchema] = &[
    machine::STOPPED,
    machine::RESUMED,
    machine::RESET,
    machine::SHUTDOWN,
    devices::DEVICE_DELETED,
    notices::OFFERED,
    notices::ACCEPTED,
    notices::REJECTED,
    notices::RELEASE_REQUESTED,
    notices::RELEASED,
    notices::PREALLOC,
    jobs::JOB_STATUS_CHANGE,
];

impl VmService {
    /// The commands of `vm`.
    pub fn new(vm: Vm) -> Self {
        Self { vm, quit: Notify::new(), jobs: Jobs::default(), run_states: RunStates::default() }
    }

    /// Returns when a client has asked to quit. Its answer is on its way.
    pub async fn quit_requested(&self) {
        self.quit.notified().await;
    }
}

impl Service for VmService {
    fn greeting(&self) -> Value {
        machine::version()
    }

    fn commands(&self) -> &'static [CommandSchema] {
        COMMANDS
    }

    async fn call(
        &self,
        command: &'static CommandSchema,
        arguments: Map<String, Value>,
        events: &EventSender,
    ) -> Result<Value, QmpError> {
        let (vm, given) = (&self.vm, &arguments);
        match command.name {
            "query-version" => Ok(machine::version()),
            "query-commands" => Ok(machine::query_commands(COMMANDS)),
            "query-qmp-schema" => Ok(introspect(COMMANDS, EVENTS)),
            "query-status" => Ok(machine::query_status(vm)),
            "query-name" => Ok(identity::query_name()),
            "query-uuid" => Ok(identity::query_uuid()),
            "query-target" => Ok(identity::query_target()),
            "query-kvm" => Ok(identity::query_kvm(vm)),
            "query-cpus-fast" => Ok(identity::query_cpus_fast(vm)),
            "stop" => self.run_states.set(vm, actors::RunState::Paused, events).await,
            "cont" => self.run_states.set(vm, actors::RunState::Running, events).await,
            "system_reset" => machine::system_reset(vm, events).await,
            "quit" => {
                machine::tell_shutdown(events);
                self.quit.notify_one();
                Ok(nothing())
            }
            "human-monitor-command" => monitor::execute(vm, &self.snapshots(events), given).await,
            "object-add" => objects::object_add(vm, given).await,
            "object-del" => objects::object_del(vm, given).await,
            "qom-list" => objects::qom_list(vm, given).await,
            "qom-get" => objects::qom_get(vm, given).await,
            "qom-list-get" => objects::qom_list_get(vm, given).await,
            "qom-set" => objects::qom_set(vm, given).await,
            "device_add" => devices::device_add(vm, given).await,
            "device_del" => devices::device_del(vm, given, events).await,
            "query-memdev" => objects::query_memdev(vm).await,
            "x-inspect" => journal::inspect(vm, given).await,
            "x-hand-over" => hand_over::hand_over(vm, given).await,
            "x-journal-tail" => journal::tail(vm, given).await,
            _ => self.on_snapshots(command, given, events).await,
        }
    }
}

impl VmService {
    fn snapshots(&self, events: &EventSender) -> Snapshots {
        Snapshots {
            vm: self.vm.clone(),
            jobs: self.jobs.clone(),
            run_states: self.run_states.clone(),
            events: events.clone(),
        }
    }

    /// A command of snapshots and of the jobs that make them.
    async fn on_snapshots(
        &self,
        command: &CommandSchema,
        given: &Arguments,
        events: &EventSender,
    ) -> Result<Value, QmpError> {
        match command.name {
            "snapshot-save" => self.snapshots(events).begin_save(given),
            "snapshot-load" => self.snapshots(events).begin_load(given),
            "snapshot-delete" => self.snapshots(events).begin_delete(given),
            "query-snapshots" => snapshots::query(&self.vm).await,
            "x-pulse" => self.snapshots(events).pulse().await,
            "query-jobs" => Ok(jobs::query(&self.jobs)),
            "job-cancel" => jobs::cancel(&self.jobs, given),
            "job-dismiss" => jobs::dismiss(&self.jobs, given, events),
            _ => self.on_a_device(command, given).await,
        }
    }

    /// A command that names a device by its path. The device stays until it is answered: the next in its port would get
    /// what was meant for it.
    async fn on_a_device(&self, command: &CommandSchema, given: &Arguments) -> Result<Value, QmpError> {
        let vm = &self.vm;
        let _devices = vm.hold_devices().await;
        match command.name {
            "cxl-add-dynamic-capacity" => capacity::add(vm, given).await,
            "cxl-release-dynamic-capacity" => capacity::release(vm, given).await,
            "cxl-release-dynamic-capacity-status" => capacity::status(vm, given).await,
            "query-cxl-dynamic-capacity" => capacity::query(vm, given).await,
            unknown => Err(QmpError::generic(format!("{unknown} is listed and not built: this is a bug"))),
        }
    }
}

/// What a command returns that has nothing to say.
fn nothing() -> Value {
    Value::Object(Map::new())
}

impl From<RequestError> for QmpError {
    fn from(error: RequestError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<actors::Stopped> for QmpError {
    fn from(error: actors::Stopped) -> Self {
        Self::generic(error.to_string())
    }
}
