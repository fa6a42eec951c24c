//! The order of 4801h: keys in their order, found by key and by place.
//!
//! ```text
//!  leaves   [ k0 k1 … ] [ … ] [ … kn ]     each of LEAF_KEYS_MAX keys at most, none empty, any two neighbours of more
//!                                          than half as many
//! ```
//!
//! A host reads its list page by page, from a start index on. A set that must walk there makes the whole list
//! quadratic: 100,000 extents in pages of 32 KiB took 0.6 s. Deliberately absent: the shape. Two orders with the same
//! keys are equal, however they came to them.

use serde::{Serialize, Serializer};
use wire::Dpa;

use crate::stamp::Seq;

/// The offer, the place in the add, and inside a split extent the address.
pub(super) type Key = (Seq, u32, Dpa);

/// So few that a leaf is changed as fast as it is found, and of the most extents there are no more leaves than that.
const LEAF_KEYS_MAX: usize = 512;

/// A sorted set of keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    leaves: Vec<Vec<Key>>,
}

impl Order {
    /// The keys from the `start`-th on, counted from 0.
    pub(super) fn from(&self, start: usize) -> impl Iterator<Item = &Key> {
        let mut before = start;
        let holds = |leaf: &Vec<Key>| match before.checked_sub(leaf.len()) {
            Some(left) => {
                before = left;
                false
            }
            None => true,
        };
        let first = self.leaves.iter().position(holds).unwrap_or(self.leaves.len());
        self.leaves[first..].iter().flatten().skip(before)
    }

    /// How many keys.
    pub(super) fn len(&self) -> usize {
        self.leaves.iter().map(Vec::len).sum()
    }

    /// Whether each key stands behind smaller ones, as it should.
    pub(super) fn is_sorted(&self) -> bool {
        self.leaves.iter().flatten().is_sorted_by(|one, next| one < next)
    }

    /// Whether a key is there, behind smaller ones and before greater ones.
    pub(super) fn has_in_place(&self, key: Key) -> bool {
        let index = self.leaf_of(key);
        let Some(leaf) = self.leaves.get(index) else { return false };
        let Ok(place) = leaf.binary_search(&key) else { return false };
        let before = match place.checked_sub(1) {
            Some(place) => leaf.get(place),
            None => index.checked_sub(1).and_then(|index| self.leaves.get(index)?.last()),
        };
        let behind = leaf.get(place + 1).or_else(|| self.leaves.get(index + 1)?.first());
        before.is_none_or(|before| *before < key) && behind.is_none_or(|behind| key < *behind)
    }

    /// Puts a key in its place, once.
    pub(super) fn insert(&mut self, key: Key) {
        let index = self.leaf_of(key);
        let Some(leaf) = self.leaves.get_mut(index) else {
            self.leaves.push(vec![key]);
            return;
        };
        if let Err(place) = leaf.binary_search(&key) {
            leaf.insert(place, key);
        }
        if leaf.len() > LEAF_KEYS_MAX {
            let behind = leaf.split_off(leaf.len() / 2);
            self.leaves.insert(index + 1, behind);
        }
    }

    /// Takes a key out, if it is there.
    pub(super) fn remove(&mut self, key: Key) {
        let index = self.leaf_of(key);
        let Some(leaf) = self.leaves.get_mut(index) else { return };
        if let Ok(place) = leaf.binary_search(&key) {
            leaf.remove(place);
            self.join(index);
            self.join(index.saturating_sub(1));
        }
    }

    /// The leaf in which a key is or would be: the last one that does not begin behind it.
    fn leaf_of(&self, key: Key) -> usize {
        self.leaves.partition_point(|leaf| leaf.first().is_some_and(|first| *first <= key)).saturating_sub(1)
    }

    /// Makes one leaf of two that are half empty, and none of one that is empty.
    fn join(&mut self, index: usize) {
        let len = |index: usize| self.leaves.get(index).map(Vec::len);
        match (len(index), len(index + 1)) {
            (Some(0), _) => drop(self.leaves.remove(index)),
            (Some(left), Some(right)) if left + right <= LEAF_KEYS_MAX / 2 => {
                let behind = self.leaves.remove(index + 1);
                self.leaves[index].extend(behind);
            }
            _ => {}
        }
    }
}

impl FromIterator<Key> for Order {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self { leaves: keys.chunks(LEAF_KEYS_MAX).map(<[Key]>::to_vec).collect() }
    }
}

impl PartialEq for Order {
    fn eq(&self, other: &Self) -> bool {
        self.from(0).eq(other.from(0))
    }
}

impl Eq for Order {}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.from(0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u64) -> Key {
        (Seq(n / 7), (n % 7) as u32, Dpa(n << 21))
    }

    fn check(order: &Order, set: &BTreeSet<Key>) {
        assert!(order.from(0).eq(set));
        assert!(order.leaves.iter().all(|leaf| (1..=LEAF_KEYS_MAX).contains(&leaf.len())));
        assert_eq!(order.len(), set.len());
        assert!(set.iter().all(|key| order.has_in_place(*key)) && !order.has_in_place(key(9_999)));
        let sparse = |pair: &[Vec<Key>]| pair[0].len() + pair[1].len() <= LEAF_KEYS_MAX / 2;
        assert!(!order.leaves.windows(2).any(sparse));
        for start in [0, 1, 255, 256, 257, 512, 513, set.len() / 2, set.len(), set.len() + 1] {
            assert!(order.from(start).eq(set.iter().skip(start)), "from {start}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Runs of keys come and go, so that leaves split and join.
        #[test]
        fn it_is_a_sorted_set_with_places(
            runs in prop::collection::vec((any::<bool>(), 0u64..3_000, 1u64..1_500), 1..12),
        ) {
            let (mut order, mut set) = (Order::default(), BTreeSet::new());
            for (comes, first, len) in runs {
                for n in first..first + len {
                    if comes {
                        order.insert(key(n));
                        set.insert(key(n));
                    } else {
                        order.remove(key(n));
                        set.remove(&key(n));
                    }
                }
                check(&order, &set);
            }
            let mut again = Order::default();
            set.iter().rev().for_each(|key| again.insert(*key));
            prop_assert_eq!(&again, &order, "the way is forgotten");
            let mut at_once: Order = set.iter().rev().chain(&set).copied().collect();
            check(&at_once, &set);
            prop_assert_eq!(&at_once, &order);
            at_once.insert(key(9_998));
            at_once.remove(key(9_998));
            check(&at_once, &set);
        }
    }
}
