//! `info memdev`: host memory backends, as QEMU lists them.

use actors::Vm;
use device::backends::{Backend, Population, Reservation, Sharing};

use crate::error::QmpError;

pub(super) async fn text(vm: &Vm) -> Result<String, QmpError> {
    Ok(vm.backends(|state| state.iter().map(|(id, backend)| backend_text(id, backend)).collect()).await?)
}

fn backend_text(id: &str, backend: &Backend) -> String {
    let spec = &backend.spec;
    let prealloc = spec.population == Population::Preallocated;
    let share = spec.sharing == Sharing::Shared;
    let reserve = spec.reservation == Reservation::Reserved;
    format!(
        "memory backend: {id}\n  type:  {}\n  size:  {}\n  merge: false\n  dump: true\n  prealloc: {prealloc}\n  share: {share}\n  \
         reserve: {reserve}\n  policy: default\n  host nodes:\n  tag: {}\n\n",
        spec.backend_type(),
        spec.size_bytes,
        spec.tag
    )
}
