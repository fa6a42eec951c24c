//! Lengths for people: the largest unit that divides them, powers of 1024.

/// `1073741824` as `1 GiB`.
pub(crate) fn people(len_bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fit = units.into_iter().find(|(_, shift)| len_bytes > 0 && len_bytes.is_multiple_of(1 << shift));
    fit.map_or_else(|| format!("{len_bytes} bytes"), |(unit, shift)| format!("{} {unit}", len_bytes >> shift))
}
