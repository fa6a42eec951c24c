//! Resuming: the state of the last run from its journal, and whether this run can be the same VM.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use device::Seq;
use device::backends::{Backend, BackendKind, BackendSpec, FileAccess, Holder, Sharing, Source};
use device::config::{DeviceConfig, DynamicMemory, TagRule};
use device::vm::Vm as State;
use journal::record::Genesis;
use memory::{HostMemory, MissingFile};
use replay::{Fold, UnreadableError};

use crate::fatal::Stopped;
use crate::host_memory::Maker;
use crate::start::{Object, StartOptions};
use crate::start_error::StartError;
use crate::vm::Vm;

/// The state where recovered records begin, and the one that they make.
pub(crate) fn fold(recovered: &journal::Recovered) -> Result<(Fold, Fold), StartError> {
    let unreadable = |error| UnreadableError::Body { seq: Seq(0), error };
    let genesis = Genesis::of(recovered).map_err(unreadable)?;
    let base = replay::start_of(&genesis, recovered.base.as_ref())?;
    let mut fold = base.clone();
    for stored in &recovered.records {
        fold.apply(&replay::record_of(stored)?)?;
    }
    Ok((base, fold))
}

/// The command line, where it describes a VM, must describe the one of the journal.
pub(crate) fn check_vm(options: &StartOptions, state: &State) -> Result<(), StartError> {
    let Some(asked) = &options.vm else { return Ok(()) };
    let (journal, config) = (&state.config, &asked.config);
    let numbers = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    // Devices first: windows and ports follow from them where nobody gives any, and would be named in their place.
    let from_there = state.backends.devices().filter(|(_, plugged)| plugged.source == Source::CommandLine);
    for (port, plugged) in from_there {
        let id = &plugged.config.id;
        let Some(request) = asked.devices.iter().find(|request| request.id == *id) else {
            let names: Vec<_> = asked.devices.iter().map(|request| request.id.as_str()).collect();
            return same("a device", &id.as_str(), &names.join(", ").as_str());
        };
        let is_asked_port = request.bus.is_none() || request.bus == config.root_ports.get(usize::from(port.0)).cloned();
        let bus = request.bus.clone().unwrap_or_default();
        let place = journal.root_ports.get(usize::from(port.0)).cloned().unwrap_or_default();
        if !is_asked_port {
            same(&format!("bus of device {id}"), &place, &bus)?;
        }
        let here = DeviceConfig::new(request, &|id| size_of(options, state, id))?;
        for ((option, journal), (_, asked)) in device_options(&plugged.config).into_iter().zip(device_options(&here)) {
            same(&format!("{option} of device {id}"), &journal, &asked)?;
        }
    }
    same("--memory", &journal.memory_bytes, &config.memory_bytes)?;
    same("--window size", &numbers(&journal.windows_bytes), &numbers(&config.windows_bytes))?;
    same("the list of root ports", &journal.root_ports.join(", "), &config.root_ports.join(", "))
}

fn same<T: PartialEq + ToString>(what: &str, journal: &T, asked: &T) -> Result<(), StartError> {
    if journal == asked {
        return Ok(());
    }
    Err(StartError::OtherVm { what: what.into(), journal: journal.to_string(), asked: asked.to_string() })
}

/// The size in bytes of a backend, as the command line or the journal has it.
fn size_of(options: &StartOptions, state: &State, id: &str) -> Option<u64> {
    let asked = options.objects.iter().find(|object| object.id == id).map(|object| object.spec.size_bytes);
    asked.or_else(|| state.backends.get(id).map(|backend| backend.spec.size_bytes))
}

/// What makes two devices the same, by the names of their options.
fn device_options(device: &DeviceConfig) -> [(&'static str, String); 8] {
    let memdev =
        |property| device.memdevs().find(|(name, _)| *name == property).map_or("none", |(_, id)| id).to_owned();
    let is_unique = matches!(device.dynamic_memory, DynamicMemory::Plain { tag_rule: TagRule::Unique, .. });
    [
        ("volatile-dc-memdev", memdev("volatile-dc-memdev")),
        ("volatile-memdev", memdev("volatile-memdev")),
        ("unique-tags", if is_unique { "on".into() } else { "off".into() }),
        ("dc-regions-total-size", device.dynamic_len_bytes().to_string()),
        ("num-dc-regions", device.regions.len().to_string()),
        ("dc-block-size", device.regions.first().map_or(0, |region| region.block.bytes()).to_string()),
        ("sn", device.serial.to_string()),
        ("mailbox-payload", device.mailbox_payload_bytes().to_string()),
    ]
}

/// A backend of the last command line that is in use must be on this one, and be the same.
pub(crate) fn check_objects(state: &State, objects: &[Object]) -> Result<(), StartError> {
    for (id, backend) in state.backends.iter().filter(|(_, backend)| backend.source == Source::CommandLine) {
        let (id, by) = (id.to_owned(), backend.created);
        let Some(object) = objects.iter().find(|object| object.id == id) else {
            let (device, holding) = match backend.holder {
                Holder::Free => continue,
                Holder::Reserved { device, .. } => (device, "reserved"),
                Holder::Attached { device, .. } => (device, "attached"),
                Holder::Memdev { device, .. } => (device, "its own memory"),
            };
            let device = state.device_id(device).into();
            let option = option(&id, &backend.spec);
            return Err(StartError::BackendMissing { id, by, device, holding: holding.into(), option });
        };
        check_same(id, by, &backend.spec, &object.spec)?;
    }
    Ok(())
}

/// What the command line names of the backends that there are must be the same.
pub(crate) fn check_named(state: &State, objects: &[Object]) -> Result<(), StartError> {
    let named = objects.iter().filter_map(|object| Some((object, state.backends.get(&object.id)?)));
    named
        .into_iter()
        .try_for_each(|(object, backend)| check_same(object.id.clone(), backend.created, &backend.spec, &object.spec))
}

fn check_same(id: String, by: Seq, was: &BackendSpec, is: &BackendSpec) -> Result<(), StartError> {
    let changed = |what, journal, asked| StartError::BackendChanged { id: id.clone(), by, what, journal, asked };
    if was.size_bytes != is.size_bytes {
        return Err(changed("size", was.size_bytes.to_string(), is.size_bytes.to_string()));
    }
    if was.tag != is.tag {
        return Err(changed("tag", was.tag.to_string(), is.tag.to_string()));
    }
    for ((what, was), (_, is)) in places(was).into_iter().zip(places(is)) {
        if was != is {
            return Err(changed(what, was, is));
        }
    }
    Ok(())
}

/// What says where a backend's bytes are, by the names of its properties.
fn places(spec: &BackendSpec) -> [(&'static str, String); 4] {
    let (path, access) = match &spec.kind {
        BackendKind::File { path, access, .. } => (path.as_str(), *access),
        BackendKind::Ram | BackendKind::Memfd { .. } => ("", FileAccess::ReadWrite),
    };
    [
        ("type", spec.backend_type().to_string()),
        ("mem-path", path.into()),
        ("share", switch(spec.sharing == Sharing::Shared)),
        ("readonly", switch(access == FileAccess::ReadOnly)),
    ]
}

/// The value of `--object` that makes a backend again.
fn option(id: &str, spec: &BackendSpec) -> String {
    // What share is where it is not given depends on the type; readonly belongs to files alone.
    let is_said = |(name, value): &(&str, String)| *name == "share" || !value.is_empty() && value != "off";
    let properties = places(spec).into_iter().skip(1).filter(is_said);
    let properties: String = properties.map(|(name, value)| format!(",{name}={value}")).collect();
    format!("{},id={id},size={},tag={}{properties}", spec.backend_type(), spec.size_bytes, spec.tag_text)
}

fn switch(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.into()
}

/// A backend of the last command line that this one does not name and nobody holds: the start deletes it.
fn is_ending(id: &str, backend: &Backend, objects: &[Object]) -> bool {
    let is_named = objects.iter().any(|object| object.id == id);
    backend.source == Source::CommandLine && backend.holder == Holder::Free && !is_named
}

/// Memory of the backends of the past.
pub(crate) struct Again {
    pub(crate) memories: BTreeMap<String, Arc<HostMemory>>,
    /// Whose memory was kept while no process had it.
    pub(crate) kept: BTreeSet<String>,
}

/// Memory for every backend of the past that goes on. Anonymous memory ended with the process that had it, unless it was kept; a
/// file must be there. The file of a backend that ends here is left alone: it may be gone, and nobody asked for its bytes to go.
pub(crate) async fn make_again(state: &State, objects: &[Object], maker: &Maker) -> Result<Again, StartError> {
    let (mut memories, mut kept) = (BTreeMap::new(), BTreeSet::new());
    for (id, backend) in state.backends.iter().filter(|(id, backend)| !is_ending(id, backend, objects)) {
        let failed = |reason| StartError::BackendMemory { id: id.into(), reason };
        let memory = match maker.kept(id, &backend.spec).map_err(failed)? {
            Some(memory) => {
                kept.insert(id.to_owned());
                memory
            }
            None => {
                let made = maker.make(id, &backend.spec, MissingFile::Refuse).await;
                let memory = made.map_err(|reason| StartError::BackendMemory { id: id.into(), reason })?;
                maker.keep(id, &backend.spec, &memory);
                memory
            }
        };
        memories.insert(id.to_owned(), memory);
    }
    Ok(Again { memories, kept })
}

/// Backends of the last command line that are free and on this one no more: they end.
pub(crate) async fn missing_free(vm: &Vm, objects: &[Object]) -> Result<Vec<String>, Stopped> {
    let named: Vec<_> = objects.iter().map(|object| object.id.clone()).collect();
    vm.backends(move |state| {
        let from_there = state.iter().filter(|(_, backend)| backend.source == Source::CommandLine);
        let unnamed = from_there.filter(|(id, _)| !named.iter().any(|name| name == id));
        unnamed.map(|(id, _)| id.to_owned()).collect()
    })
    .await
}
