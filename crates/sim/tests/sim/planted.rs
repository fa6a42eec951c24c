//! Two bugs that are planted in the device: the simulator finds them, and cuts each down to a few inputs.

use std::collections::BTreeMap;

use replay::Question;
use sim::{CrashPoints, Options, Wrong, simulate};

const STEPS: u64 = 600;

#[test]
fn the_planted_bugs_are_found_and_cut_down() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut found = BTreeMap::new();
    for seed in 0..60 {
        if found.len() == 2 {
            break;
        }
        let options = Options { seed, steps: STEPS, crash_points: CrashPoints::Taken };
        let Err(failure) = simulate(&options) else { continue };
        let replays = format!("\nreplay with: dcd sim --seed {seed} --steps {STEPS}");
        assert!(failure.to_string().ends_with(&replays), "{failure}");
        let kind = match (&failure.wrong, failure.question()) {
            (Wrong::Unlawful { broken, .. }, Some(Question::Law(law))) if law.name == broken.name => broken.name,
            (Wrong::Panicked { .. }, Some(Question::Panics)) => "panics",
            (wrong, _) => panic!("nobody planted this: {wrong}"),
        };
        found.entry(kind).or_insert_with(|| {
            let shrunk = failure.shrink().expect("a question").expect("the journal shows it");
            (shrunk.records.len(), shrunk.from)
        });
    }
    std::panic::set_hook(hook);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["backend-one-owner", "panics"]);
    assert!(found.values().all(|(left, from)| *left <= 6 && from > left), "{found:?}");
}
