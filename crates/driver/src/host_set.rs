//! The hosts of all devices of one machine, which see each other's tags.
//!
//! Deliberately absent: moving capacity between devices.

use alloc::vec::Vec;

use wire::Tag;

use crate::bus::Bus;
use crate::drain::{DrainError, Handled};
use crate::host::Host;

/// The hosts of all devices of one machine.
#[derive(Clone, Debug, Default)]
pub struct HostSet(Vec<Host>);

/// The hosts of the other devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Others<'a> {
    before: &'a [Host],
    after: &'a [Host],
}

impl HostSet {
    /// The hosts of a machine's devices.
    pub fn new(hosts: Vec<Host>) -> Self {
        Self(hosts)
    }

    /// One for each device.
    pub fn hosts(&self) -> &[Host] {
        &self.0
    }

    /// Handles whatever the devices have to say, in their order. A log that does not become empty ([`DrainError::NeverEmpty`])
    /// keeps no other from being read; any other error does.
    pub fn on_interrupt(&mut self, bus: &mut dyn Bus) -> Result<Vec<Handled>, DrainError> {
        let mut handled = Vec::new();
        let mut never_empty = None;
        for index in 0..self.0.len() {
            let (before, rest) = self.0.split_at_mut(index);
            let Some((host, after)) = rest.split_first_mut() else { break };
            match host.on_interrupt_among(bus, Others { before, after }) {
                Ok(more) => handled.extend(more),
                Err(error @ DrainError::NeverEmpty { .. }) => never_empty = Some(error),
                Err(error) => return Err(error),
            }
        }
        never_empty.map_or(Ok(handled), Err)
    }

    /// When a policy has something to do by itself, in milliseconds of the bus' clock: then [`HostSet::on_interrupt`] is
    /// to be called, with an interrupt or without.
    pub fn wakes_at_ms(&self) -> Option<u64> {
        self.0.iter().filter_map(Host::wakes_at_ms).min()
    }

    /// Says that the memory of a tag is busy, on whichever device it is; see [`Host::mark_busy`].
    pub fn mark_busy(&mut self, tag: Tag) {
        self.0.iter_mut().for_each(|host| host.mark_busy(tag));
    }

    /// Says that it is no longer.
    pub fn mark_idle(&mut self, tag: Tag) {
        self.0.iter_mut().for_each(|host| host.mark_idle(tag));
    }
}

impl Others<'_> {
    /// There are none.
    pub(crate) const NONE: Others<'static> = Others { before: &[], after: &[] };

    /// Whether one of them has an extent of a tag.
    pub(crate) fn have(&self, tag: Tag) -> bool {
        self.before.iter().chain(self.after).any(|host| host.extents.tagged(tag).next().is_some())
    }
}
