//! Messages of devices on their way to a vCPU.
//!
//! ```text
//!  message ─┬─ known: its eventfd ─▶ irqfd ─▶ route ─▶ local APIC      no ioctl, from any thread
//!           ├─ new, and there is room: a route and an eventfd for it
//!           └─ else: KVM_SIGNAL_MSI
//! ```
//!
//! Deliberately absent: messages to RAM (the platform's), masks and pending bits (the device's).

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi};
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use wire::Hpa;

use crate::vm::{Vm, io_error};

/// Messages that have a route of their own at most. A function has at most 2048 vectors, KVM 4096 routes.
pub const ROUTES_MAX: usize = 1024;

/// Where x86 takes messages (SDM volume 3, 12.11.1): FEEx_xxxxh.
const MESSAGE_ADDRESSES: u64 = 0xfee;

/// A message signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Where it is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// The interrupts of one virtual machine.
pub struct Interrupts {
    vm: Arc<Vm>,
    /// In the order of their routes; a message keeps its route for good.
    routes: RwLock<HashMap<Message, Route>>,
    lost: AtomicU64,
}

struct Route {
    number: u32,
    event: EventFd,
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Interrupts {
    /// Of a machine.
    pub fn new(vm: Arc<Vm>) -> Self {
        Self { vm, routes: RwLock::default(), lost: AtomicU64::new(0) }
    }

    /// Sends a message. One that is to no local APIC, or that KVM does not take, is lost, as on hardware, and counted.
    pub fn send(&self, message: Message) {
        if message.address >> 20 != MESSAGE_ADDRESSES || self.deliver(message).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Messages that went nowhere.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn deliver(&self, message: Message) -> io::Result<()> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(&message) {
            return route.event.write(1);
        }
        let is_full = routes.len() >= ROUTES_MAX;
        drop(routes);
        if !is_full && self.add(message).is_ok() {
            return Ok(());
        }
        self.vm.signal(message)
    }

    /// Makes a route for a message, and sends it.
    fn add(&self, message: Message) -> io::Result<()> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(&message) {
            return route.event.write(1);
        }
        let number = routes.len() as u32;
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let mut entries: Vec<_> = routes.iter().map(|(message, route)| entry(*message, route.number)).collect();
        entries.push(entry(message, number));
        let table = KvmIrqRouting::from_entries(&entries).map_err(|error| io::Error::other(format!("{error:?}")))?;
        self.vm.fd().set_gsi_routing(&table).map_err(io_error)?;
        self.vm.fd().register_irqfd(&event, number).map_err(io_error)?;
        event.write(1)?;
        routes.insert(message, Route { number, event });
        Ok(())
    }
}

impl Vm {
    /// Sends a message by an ioctl.
    pub(crate) fn signal(&self, message: Message) -> io::Result<()> {
        let Message { address, data } = message;
        let msi =
            kvm_msi { address_lo: address as u32, address_hi: (address >> 32) as u32, data, ..Default::default() };
        self.fd().signal_msi(msi).map(drop).map_err(io_error)
    }

    /// Lets stores of any width at `hpa` end in the kernel, which counts them in `event`, instead of an exit.
    ///
    /// # Errors
    ///
    /// What KVM said.
    pub fn register_store_event(&self, hpa: Hpa, event: &EventFd) -> io::Result<()> {
        self.fd().register_ioevent(event, &IoEventAddress::Mmio(hpa.0), NoDatamatch).map_err(io_error)
    }
}

fn entry(message: Message, gsi: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}
