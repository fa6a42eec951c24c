//! Seeds: nothing is wrong in any of them, and each is the same run for ever.

use std::sync::OnceLock;

use replay::replay;
use sim::{Coverage, CrashPoints, Options, Outcome, Tally, simulate};

/// Seeds of [`hundreds`].
const HUNDREDS: u64 = 240;

pub(crate) fn run(seed: u64, steps: u64, crash_points: CrashPoints) -> Outcome {
    simulate(&Options { seed, steps, crash_points }).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Hundreds of seeds, run once for all tests that look at them.
pub(crate) fn hundreds() -> &'static (Tally, Coverage) {
    static HUNDREDS_OF_SEEDS: OnceLock<(Tally, Coverage)> = OnceLock::new();
    HUNDREDS_OF_SEEDS.get_or_init(|| {
        let half = |seeds: std::ops::Range<u64>| {
            let mut sum = (Tally::default(), Coverage::default());
            for seed in seeds {
                let outcome = run(seed, 250, CrashPoints::Taken);
                sum.0 += outcome.tally;
                sum.1 += outcome.coverage;
            }
            sum
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| half(HUNDREDS / 2..HUNDREDS));
            let mut sum = half(0..HUNDREDS / 2);
            let (tally, coverage) = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sum.0 += tally;
            sum.1 += coverage;
            sum
        })
    })
}

#[test]
fn hundreds_of_seeds_keep_every_law() {
    let (tally, _) = hundreds();
    // What a run is made of happens often enough to mean something.
    assert!(tally.records > 50_000 && tally.refusals > 10_000 && tally.acceptances > 600, "{tally:?}");
    assert!(tally.crashes > 4 * HUNDREDS / 3 && tally.faults > 50 && tally.lost > 1_000, "{tally:?}");
    assert!(tally.simulated_ns > HUNDREDS * 500_000_000, "{tally:?}");
}

#[test]
fn the_same_seed_gives_the_same_journal_byte_for_byte() {
    for seed in 1000..1030 {
        let (one, other) = (run(seed, 300, CrashPoints::Taken), run(seed, 300, CrashPoints::Taken));
        assert_eq!(one.parts, other.parts, "seed {seed}");
        assert_eq!((one.tally, one.coverage), (other.tally, other.coverage), "seed {seed}");
    }
    assert_ne!(run(1, 100, CrashPoints::Taken).parts, run(2, 100, CrashPoints::Taken).parts);
}

#[test]
fn replay_finds_nothing_in_a_simulated_journal() {
    for seed in 2000..2020 {
        let Outcome { genesis, records, .. } = run(seed, 300, CrashPoints::Taken);
        let replayed =
            replay(replay::Fold::new(&genesis).expect("a genesis"), &records, &mut |_| ()).expect("a genesis");
        assert_eq!(replayed.finding(), None, "seed {seed}");
        assert_eq!(replayed.equal, records.len() as u64);
    }
}
