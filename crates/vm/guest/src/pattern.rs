//! Bytes that follow from a seed, so that host and guest can write them and find them again.

/// The word of 8 bytes at `8 * index` of a pattern: neither zeros nor ones for long, and different for every index.
pub const fn pattern_word(seed: u64, index: u64) -> u64 {
    // The mixing function of SplitMix64.
    let mut word = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// The byte at `offset` of a pattern.
pub const fn pattern_byte(seed: u64, offset: u64) -> u8 {
    pattern_word(seed, offset / 8).to_le_bytes()[(offset % 8) as usize]
}
