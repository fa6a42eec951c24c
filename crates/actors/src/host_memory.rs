//! Host memory for backends, made away from the actors: a 64 GiB `prealloc` stands before nobody's doorbell.

use std::sync::Arc;

use device::backends::{BackendKind, BackendSpec, Population, Sharing};
use memory::{HostMemory, HostMemorySpec, MemoryKind, Prealloc};

/// Makes a backend's memory on a blocking thread.
pub(crate) async fn make(spec: &BackendSpec) -> Result<Arc<HostMemory>, String> {
    let spec = host_spec(spec);
    let made = tokio::task::spawn_blocking(move || HostMemory::create(&spec)).await;
    match made {
        Ok(Ok(memory)) => Ok(Arc::new(memory)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("the thread that made it ended: {error}")),
    }
}

fn host_spec(spec: &BackendSpec) -> HostMemorySpec {
    HostMemorySpec {
        kind: match spec.kind {
            BackendKind::Ram => MemoryKind::Ram,
        },
        size_bytes: spec.size_bytes,
        share: match spec.sharing {
            Sharing::Private => memory::Sharing::Private,
            Sharing::Shared => memory::Sharing::Shared,
        },
        prealloc: match spec.population {
            Population::OnDemand => Prealloc::OnTouch,
            Population::Preallocated => Prealloc::AtOnce,
        },
    }
}
