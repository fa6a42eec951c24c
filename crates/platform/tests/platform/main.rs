//! The registers of a device and the platform around it, as a guest and the device's actors see them.

mod bus;
mod component;
mod hostile;
mod mailbox;
mod msix;
mod qtest;
mod rig;
mod saved;
mod shared_memory;
mod slots;
