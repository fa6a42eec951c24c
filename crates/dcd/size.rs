//! Lengths for people: the largest unit that divides them, powers of 1024.

/// `1073741824` as `1 GiB`.
pub(crate) fn people(len_bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fit = units.into_iter().find(|(_, shift)| len_bytes > 0 && len_bytes.is_multiple_of(1 << shift));
    fit.map_or_else(|| format!("{len_bytes} bytes"), |(unit, shift)| format!("{} {unit}", len_bytes >> shift))
}

/// `12884901888` as `12G`: the largest unit that leaves a whole part, the rest left out.
pub(crate) fn short(len_bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let fit = units.into_iter().find(|(_, shift)| len_bytes >> shift > 0);
    fit.map_or_else(|| format!("{len_bytes}"), |(unit, shift)| format!("{}{unit}", len_bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_length_leaves_the_rest_out() {
        let shorts = [0, 1023, 1024, (12 << 30) + (900 << 20), 64 << 30, u64::MAX].map(short);
        assert_eq!(shorts, ["0", "1023", "1K", "12G", "64G", "16777215T"]);
    }
}
