//! The hosts of all devices of one machine, which see each other's tags.
//!
//! Deliberately absent: moving capacity between devices.

use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;
use wire::Tag;

use crate::bus::{Bdf, Bus};
use crate::discover::DiscoverError;
use crate::drain::{DrainError, Handled};
use crate::host::{Host, ProbeError, Probed};
use crate::platform_map::PlatformMap;
use crate::policy::Policy;

/// The hosts of all devices of one machine.
#[derive(Clone, Debug, Default)]
pub struct HostSet(Vec<Host>);

/// Why a machine has no host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoHost {
    /// Its buses cannot be walked.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// There is none.
    #[error("no CXL memory device was found")]
    NoDevice,
    /// None of its devices can be driven.
    #[error("{0}")]
    Failed(Failures),
}

/// Devices that cannot be driven, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(Vec<(Bdf, ProbeError)>);

impl Failures {
    /// Whether all can be driven.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (bdf, error)) in self.0.iter().enumerate() {
            write!(f, "{}{bdf}: {error}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

/// The hosts of the other devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Others<'a> {
    before: &'a [Host],
    after: &'a [Host],
}

impl HostSet {
    /// The hosts of a machine's devices, which were set up one by one.
    pub fn new(hosts: Vec<Host>) -> Self {
        Self(hosts)
    }

    /// Finds the devices of a machine and sets each up. What cannot be driven comes back beside those that can.
    ///
    /// # Errors
    ///
    /// There is no device that can be driven.
    pub fn probe(bus: &mut dyn Bus, map: &PlatformMap<'_>, policy: Policy) -> Result<(Self, Failures), NoHost> {
        let (mut hosts, mut failures) = (Vec::new(), Vec::new());
        for Probed { bdf, host } in Host::probe_all(bus, map, policy)? {
            match host {
                Ok(host) => hosts.push(host),
                Err(error) => failures.push((bdf, error)),
            }
        }
        match (hosts.is_empty(), failures.is_empty()) {
            (true, true) => Err(NoHost::NoDevice),
            (true, false) => Err(NoHost::Failed(Failures(failures))),
            (false, _) => Ok((Self(hosts), Failures(failures))),
        }
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
