//! Dice: the one source of chance, so that a seed is a run.
//!
//! SplitMix64 (Steele, Lea, Flood 2014), written out here because a seed must mean the same run after every update of
//! every dependency. Deliberately absent: entropy.

/// Dice that fall as their seed says.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The bias of a remainder is far below what anybody counts here.
        self.next() % end.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// As [`Dice::between`], but as often small as large: even on a scale of powers of two.
    pub(crate) fn scale(&mut self, low: u64, high: u64) -> u64 {
        let octaves = u64::from((high / low.max(1)).max(1).ilog2());
        let from = low << self.between(0, octaves);
        self.between(from, from.saturating_mul(2)).min(high)
    }

    /// Whether one of `n` equally likely things happens.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// An index, each as often as its weight says.
    pub(crate) fn weighed(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        0
    }

    /// One of these, which are not none.
    pub(crate) fn pick<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u64) as usize]
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut dice = Dice::new(0);
        assert_eq!([dice.next(), dice.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn they_fall_on_every_side_and_on_no_other() {
        let mut dice = Dice::new(7);
        let mut seen = [0; 3];
        for _ in 0..1000 {
            seen[dice.weighed(&[1, 0, 2])] += 1;
            assert!((5..=9).contains(&dice.between(5, 9)));
            assert!((10..=1000).contains(&dice.scale(10, 1000)));
        }
        assert!(seen[0] > 200 && seen[1] == 0 && seen[2] > 500, "{seen:?}");
    }
}
