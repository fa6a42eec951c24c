//! Where a journal is from: what stands before its first state, and of which one it is a fork.
//!
//! ```text
//! #0 ───────────────▶ #N      power-on
//!       #120 ───────▶ #N      begun at a state that its parent shares with it, or cut: what came before was removed
//! ```
//!
//! Deliberately absent: opening the parent, which may be elsewhere or gone.

use device::Seq;
use journal::record::{Genesis, Parent};

/// What came before the first state of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// Nothing.
    PowerOn,
    /// What this other journal has before that state, or knows more of.
    Parent(&'a Parent),
    /// Records of its own, which were removed.
    Removed,
}

/// What came before the first state of a journal, which is that after `first`.
pub fn origin(genesis: &Genesis, first: Seq) -> Origin<'_> {
    match &genesis.parent {
        _ if first == Seq(0) => Origin::PowerOn,
        Some(parent) if parent.shared >= first => Origin::Parent(parent),
        _ => Origin::Removed,
    }
}

/// Where a journal is from that begins after `first`, in sentences; none of one that was run from power-on on.
pub fn lineage(genesis: &Genesis, first: Seq) -> Vec<String> {
    let told =
        |how: &str, Parent { journal, shared, change }: &Parent| format!("{how} at {shared}: {change} of {journal}");
    match (origin(genesis, first), &genesis.parent) {
        (Origin::PowerOn, None) => Vec::new(),
        (Origin::PowerOn, Some(parent)) => vec![told("forked", parent)],
        (Origin::Parent(parent), _) if parent.shared == first => vec![told("begins", parent)],
        (Origin::Parent(parent), _) => {
            vec![
                told("forked", parent),
                format!("begins at {first}: what came before is for {} to say", parent.journal),
            ]
        }
        (Origin::Removed, parent) => {
            let removed =
                format!("begins at {first}: what came before is not in it (--keep, dcd journal compact, or lost)");
            parent.iter().map(|parent| told("forked", parent)).chain([removed]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use device::config::VmConfig;
    use wire::Hpa;

    use super::*;

    #[test]
    fn a_journal_says_where_it_is_from() {
        let config =
            VmConfig { memory_bytes: 0, window_base: Hpa(0), windows_bytes: Vec::new(), root_ports: Vec::new() };
        let parent = |shared, change: &str| {
            Some(Parent { journal: "past/000001".into(), shared: Seq(shared), change: change.into() })
        };
        let told = |parent, first| {
            lineage(&Genesis { config: config.clone(), build: "test".into(), parent }, Seq(first)).join("; ")
        };
        assert_eq!(told(None, 0), "");
        assert_eq!(told(parent(79, "drop #80"), 0), "forked at #79: drop #80 of past/000001");
        let restored = "restored from snapshot before-upgrade";
        assert_eq!(told(parent(120, restored), 120), format!("begins at #120: {restored} of past/000001"));
        let of_fork =
            "forked at #150: drop #151 of past/000001; begins at #120: what came before is for past/000001 to say";
        assert_eq!(told(parent(150, "drop #151"), 120), of_fork);
        let removed = "what came before is not in it (--keep, dcd journal compact, or lost)";
        assert_eq!(told(None, 5000), format!("begins at #5000: {removed}"));
        let both = format!("forked at #120: {restored} of past/000001; begins at #5000: {removed}");
        assert_eq!(told(parent(120, restored), 5000), both);
    }
}
