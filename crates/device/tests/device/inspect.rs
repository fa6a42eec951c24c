//! The tree is whole and true: each of its paths leads back to its value, and only those write it who say so.

use device::inspect::{self, Path, Value};
use device::operation::Actor;
use proptest::prelude::*;

use crate::laws::{Step, step, take};
use crate::rig::{MIB, Rig, tag};

fn all(rig: &Rig) -> Vec<(String, Value)> {
    inspect::values(&rig.vm, &Path::default()).expect("the whole tree")
}

fn check_paths(rig: &Rig) {
    for (text, value) in all(rig) {
        let path: Path = text.parse().expect("a path");
        assert_eq!(inspect::value(&rig.vm, &path).as_ref(), Some(&value));
        assert_eq!(inspect::values(&rig.vm, &path), Ok(vec![(text, value)]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_path_leads_to_its_value_and_changes_only_by_its_writers(steps in prop::collection::vec(step(), 1..30)) {
        let mut rig = Rig::new(2);
        for step in &steps {
            // These take several records, of which the rig keeps the last one's facts.
            if matches!(step, Step::Clear | Step::GiveBackAll) {
                take(&mut rig, step);
                continue;
            }
            let before = rig.vm.clone();
            take(&mut rig, step);
            let actors: Vec<Actor> = rig.facts.iter().map(device::operation::Fact::actor).collect();
            for change in inspect::changes(&before, &rig.vm, &Path::default()) {
                let writers = inspect::writers(&change.path.parse().expect("a path"));
                prop_assert!(actors.iter().any(|actor| writers.contains(actor)), "{change:?} by {actors:?}");
                let path = change.path.parse().expect("a path");
                prop_assert!(rig.facts.iter().any(|fact| inspect::can_write(&path, fact)), "{change:?}");
            }
        }
        check_paths(&rig);
    }
}

#[test]
fn things_are_found_by_any_spelling_of_their_key() {
    let mut rig = Rig::new(1);
    rig.accepted(1, 64 * MIB, 2 * MIB);
    for key in ["0x4000000", "67108864", "64M"] {
        let path: Path = format!("devices.cxl-vmem0.extents.accepted[{key}].backend").parse().expect("a path");
        let found = inspect::values(&rig.vm, &path).expect("an extent");
        assert_eq!(
            found,
            [("devices.cxl-vmem0.extents.accepted[0x4000000].backend".into(), Value::Text("tm1".into()))]
        );
    }
    let upper = tag(1).to_string().to_uppercase();
    let path: Path = format!("devices.cxl-vmem0.extents.tags[{upper}].state").parse().expect("a path");
    assert!(inspect::values(&rig.vm, &path).expect("a tag")[0].1.is("accepted"));
}

#[test]
fn a_path_that_ends_early_says_how_far_it_goes() {
    let rig = Rig::new(1);
    let refused = |text: &str| {
        let path: Path = text.parse().expect("a path");
        inspect::values(&rig.vm, &path).expect_err("nothing there").to_string()
    };
    assert_eq!(refused("runs.more"), "there is no 'more' in runs: it is a value, 0");
    assert_eq!(refused("backends.tm0"), "there is no 'tm0' in backends: it is empty");
    assert_eq!(refused("devices.cxl-vmem7"), "there is no 'cxl-vmem7' in devices: it has cxl-vmem0, cxl-vmem1");
    let space = refused("devices.cxl-vmem0.mailbox.config-space[0x1001]");
    assert!(space.contains("it has 0x000, 0x004") && space.contains("more"), "{space}");
}
