//! Crashes: whatever is on the disk when the power goes, what was acknowledged comes back.

use sim::CrashPoints;

use crate::seeds::run;

#[test]
fn every_crash_point_recovers_to_what_was_acknowledged() {
    let mut tried = 0;
    for seed in 3000..3040 {
        let every = run(seed, 120, CrashPoints::Every);
        tried += every.tally.crash_points;
        assert_eq!(every.parts, run(seed, 120, CrashPoints::Taken).parts, "trying changes nothing of the run {seed}");
    }
    assert!(tried > 1_500, "{tried} crash points");
}
