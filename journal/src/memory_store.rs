//! A store in memory that is also a disk which fails when told to, for tests.
//!
//! ```text
//! write, remove ─▶ live ── sync(Disk) ─▶ durable
//!                   └─ a process that dies leaves live; a power cut leaves durable and any prefix of what came since
//! ```
//!
//! Absent on purpose: time (it never waits) and damage of its own making; a test puts damage in with
//! [`MemoryDisk::replace`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::{Durability, Key, Scan, Store, StoreError};

/// The disk: what a test holds on to while a journal uses a [`MemoryStore`] on it. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    image: Arc<Mutex<Image>>,
}

/// A [`Store`] on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
}

#[derive(Debug, Default)]
struct Image {
    live: BTreeMap<Key, Vec<u8>>,
    durable: BTreeMap<Key, Vec<u8>>,
    unsynced: Vec<(Key, Option<Vec<u8>>)>,
    writes: u64,
    syncs: u64,
    failing_write: Option<u64>,
    failing_sync: Option<u64>,
}

impl Image {
    fn change(&mut self, key: Key, value: Option<Vec<u8>>) {
        put(&mut self.live, key, value.clone());
        self.unsynced.push((key, value));
    }
}

fn put(parts: &mut BTreeMap<Key, Vec<u8>>, key: Key, value: Option<Vec<u8>>) {
    match value {
        Some(value) => parts.insert(key, value),
        None => parts.remove(&key),
    };
}

impl MemoryDisk {
    /// A store on this disk.
    pub fn store(&self) -> Box<MemoryStore> {
        Box::new(MemoryStore { disk: self.clone() })
    }

    /// Lets the `nth` write from now fail (1 is the next one), after half of its parts are in. Later ones succeed.
    pub fn fail_write(&self, nth: u64) {
        let mut image = self.image();
        image.failing_write = Some(image.writes.saturating_add(nth));
    }

    /// Lets the `nth` sync from now fail (1 is the next one), and what it should have made durable is not. Later ones succeed.
    pub fn fail_sync(&self, nth: u64) {
        let mut image = self.image();
        image.failing_sync = Some(image.syncs.saturating_add(nth));
    }

    /// How many writes there have been.
    pub fn writes(&self) -> u64 {
        self.image().writes
    }

    /// Changes since the last sync to disk: a power cut may keep any prefix of them.
    pub fn unsynced(&self) -> usize {
        self.image().unsynced.len()
    }

    /// What a power cut leaves: everything that was synced to disk, and the first `in_flight` changes since.
    pub fn crash_image(&self, in_flight: usize) -> MemoryDisk {
        let image = self.image();
        let mut parts = image.durable.clone();
        for (key, value) in image.unsynced.iter().take(in_flight) {
            put(&mut parts, *key, value.clone());
        }
        MemoryDisk::from_parts(parts)
    }

    /// What a process that dies leaves: everything that was written.
    pub fn live_image(&self) -> MemoryDisk {
        MemoryDisk::from_parts(self.image().live.clone())
    }

    /// Every part, ascending by key, as a process sees it.
    pub fn parts(&self) -> Vec<(Key, Vec<u8>)> {
        self.image().live.clone().into_iter().collect()
    }

    /// Puts `value` in the place of what is stored, or takes it out: durable at once.
    pub fn replace(&self, key: Key, value: Option<Vec<u8>>) {
        let mut image = self.image();
        put(&mut image.live, key, value.clone());
        put(&mut image.durable, key, value);
    }

    fn from_parts(parts: BTreeMap<Key, Vec<u8>>) -> MemoryDisk {
        let image = Image { live: parts.clone(), durable: parts, ..Image::default() };
        MemoryDisk { image: Arc::new(Mutex::new(image)) }
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn write(&mut self, parts: &[(Key, Vec<u8>)]) -> Result<(), StoreError> {
        let mut image = self.disk.image();
        image.writes += 1;
        let fails = image.failing_write == Some(image.writes);
        let taken = if fails { parts.len() / 2 } else { parts.len() };
        for (key, value) in &parts[..taken] {
            image.change(*key, Some(value.clone()));
        }
        if fails { Err(StoreError::Injected { nth: image.writes, call: "write" }) } else { Ok(()) }
    }

    fn remove(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        let mut image = self.disk.image();
        keys.iter().for_each(|key| image.change(*key, None));
        Ok(())
    }

    fn sync(&mut self, durability: Durability) -> Result<(), StoreError> {
        let mut image = self.disk.image();
        image.syncs += 1;
        if image.failing_sync == Some(image.syncs) {
            return Err(StoreError::Injected { nth: image.syncs, call: "sync" });
        }
        if durability == Durability::Disk {
            let image = &mut *image;
            image.unsynced.drain(..).for_each(|(key, value)| put(&mut image.durable, key, value));
        }
        Ok(())
    }

    fn scan(&self) -> Scan<'_> {
        Box::new(self.disk.parts().into_iter().map(Ok))
    }

    fn place(&self) -> String {
        "the disk in memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use device::Seq;

    use super::*;

    fn part(n: u64) -> (Key, Vec<u8>) {
        (Key { first: Seq(n), part: 0 }, vec![n as u8])
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_a_prefix() {
        let disk = MemoryDisk::default();
        let mut store = disk.store();
        store.write(&[part(1)]).expect("works");
        store.sync(Durability::Disk).expect("works");
        store.write(&[part(2), part(3)]).expect("works");
        store.sync(Durability::Process).expect("works");
        store.remove(&[part(1).0]).expect("works");

        assert_eq!(disk.unsynced(), 3);
        assert_eq!(disk.crash_image(0).parts(), [part(1)]);
        assert_eq!(disk.crash_image(1).parts(), [part(1), part(2)]);
        assert_eq!(disk.crash_image(9).parts(), [part(2), part(3)]);
        assert_eq!(disk.live_image().parts(), [part(2), part(3)]);
    }

    #[test]
    fn it_fails_once_and_when_told() {
        let disk = MemoryDisk::default();
        let mut store = disk.store();
        disk.fail_write(2);
        disk.fail_sync(1);
        store.write(&[part(1)]).expect("the first");
        assert!(matches!(store.write(&[part(2), part(3)]), Err(StoreError::Injected { nth: 2, call: "write" })));
        assert_eq!(disk.parts(), [part(1), part(2)], "half of it is in");
        assert!(matches!(store.sync(Durability::Disk), Err(StoreError::Injected { nth: 1, call: "sync" })));
        assert_eq!(disk.crash_image(0).parts(), []);
        store.write(&[part(4)]).and_then(|()| store.sync(Durability::Disk)).expect("later ones succeed");
    }
}
