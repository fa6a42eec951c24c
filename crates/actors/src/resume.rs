//! Resuming: the state of the last run from its journal, and whether this run can be the same VM.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::Seq;
use device::backends::{Holder, Source};
use device::config::{DeviceConfig, VmConfig};
use device::vm::Vm as State;
use journal::record::{Genesis, Record};
use memory::HostMemory;
use replay::Fold;

use crate::fatal::Stopped;
use crate::host_memory::make;
use crate::start::{Object, StartError};
use crate::vm::Vm;

/// The state that recovered records make.
pub(crate) fn fold(recovered: &journal::Recovered) -> Result<Fold, StartError> {
    let unreadable = |seq, reason: String| StartError::Unreadable { seq, reason };
    let genesis = Genesis::of(recovered).map_err(|error| unreadable(Seq(0), error.to_string()))?;
    let mut fold = Fold::new(&genesis)?;
    for stored in &recovered.records {
        let record = Record::from_stored(stored).map_err(|error| unreadable(stored.seq, error.to_string()))?;
        fold.apply(&record)?;
    }
    Ok(fold)
}

/// The command line, where it describes a VM, must describe the one of the journal.
pub(crate) fn check_config(asked: Option<&VmConfig>, state: &State) -> Result<(), StartError> {
    let Some(asked) = asked else { return Ok(()) };
    let journal = &state.config;
    let differ =
        |what: &str, journal: String, asked: String| Err(StartError::OtherVm { what: what.into(), journal, asked });
    if journal.memory_bytes != asked.memory_bytes {
        return differ("--memory", journal.memory_bytes.to_string(), asked.memory_bytes.to_string());
    }
    if (journal.window_base, journal.window_bytes) != (asked.window_base, asked.window_bytes) {
        return differ("--window size", journal.window_bytes.to_string(), asked.window_bytes.to_string());
    }
    let names =
        |config: &VmConfig| config.devices.iter().map(|device| device.id.clone()).collect::<Vec<_>>().join(", ");
    if names(journal) != names(asked) {
        return differ("the list of devices", names(journal), names(asked));
    }
    for (there, here) in journal.devices.iter().zip(&asked.devices) {
        for ((option, journal), (_, asked)) in device_options(there).into_iter().zip(device_options(here)) {
            if journal != asked {
                return differ(&format!("{option} of device {}", here.id), journal.to_string(), asked.to_string());
            }
        }
    }
    Ok(())
}

/// What makes two devices the same, by the names of their options.
fn device_options(device: &DeviceConfig) -> [(&'static str, u64); 5] {
    [
        ("dc-regions-total-size", device.regions.iter().map(|region| region.len_bytes).sum()),
        ("num-dc-regions", device.regions.len() as u64),
        ("dc-block-size", device.regions.first().map_or(0, |region| region.block.bytes())),
        ("sn", device.serial),
        ("mailbox-payload", device.mailbox_payload_bytes() as u64),
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
            };
            let device = state.config.devices.get(usize::from(device.0)).map_or("?", |device| &device.id).into();
            let (size_bytes, tag) = (backend.spec.size_bytes, backend.spec.tag_text.clone());
            return Err(StartError::BackendMissing { id, by, device, holding: holding.into(), size_bytes, tag });
        };
        let (was, is) = (&backend.spec, &object.spec);
        let changed = |what, journal, asked| StartError::BackendChanged { id, by, what, journal, asked };
        if was.size_bytes != is.size_bytes {
            return Err(changed("size", was.size_bytes.to_string(), is.size_bytes.to_string()));
        }
        if was.tag != is.tag {
            return Err(changed("tag", was.tag.to_string(), is.tag.to_string()));
        }
    }
    Ok(())
}

/// Memory for every backend of the past. Anonymous memory ended with the process that had it.
pub(crate) async fn make_again(state: &State) -> Result<BTreeMap<String, Arc<HostMemory>>, StartError> {
    let mut memories = BTreeMap::new();
    for (id, backend) in state.backends.iter() {
        let made = make(&backend.spec).await;
        let memory = made.map_err(|reason| StartError::BackendMemory { id: id.into(), reason })?;
        memories.insert(id.to_owned(), memory);
    }
    Ok(memories)
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
