//! What the tests in journal/corpus/bugs/ say: inputs that once went wrong, decided by this build.

use std::ops::ControlFlow;

use device::Seq;
use device::config::VmConfig;
use device::inspect::Path;
use device::laws::Law;
use device::vm::Vm;
use journal::form::Keyframe;
use replay::{Decided, End, Numbers, PathValue, Step, rerun, rerun_all};
use serde_json::{Value, json};

/// The VM of a case, at power-on or in a state that is given as a keyframe, and its inputs: a line of JSON each.
pub(crate) fn case(text: &str) -> (Vm, Vec<Step>) {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let mut genesis: Value = serde_json::from_str(lines.next().expect("a genesis")).expect("JSON");
    let config: VmConfig = serde_json::from_value(genesis["config"].take()).expect("a VM");
    let steps = lines.map(|line| serde_json::from_str(line).expect("an input")).collect();
    let vm = match &genesis["state"] {
        Value::Null => Vm::new(config),
        state => state_of(state),
    };
    (vm, steps)
}

fn state_of(state: &Value) -> Vm {
    let hex = state["hex"].as_str().expect("bytes").as_bytes().chunks(2);
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).expect("digits"), 16).expect("a byte");
    let form = state["form"].as_u64().expect("a form").try_into().expect("a form");
    Keyframe::from_stored(form, &hex.map(byte).collect::<Vec<_>>()).expect("a state").vm
}

fn watch(text: &str, each: &mut dyn FnMut(&Decided<'_>)) -> End {
    let (mut vm, steps) = case(text);
    rerun(&mut vm, &steps, Numbers::Own, &mut |decided| {
        each(decided);
        ControlFlow::Continue(())
    })
}

/// The law holds after each of them.
pub(crate) fn law_holds(name: &str, text: &str) {
    let law = Law::named(name).expect("a law");
    let end = watch(text, &mut |decided| {
        law.check(decided.before, decided.after)
            .unwrap_or_else(|broken| panic!("{}: {broken}", decided.record.stamp.seq));
    });
    assert_eq!(end, End::Done);
}

/// The path never has the value.
pub(crate) fn never_is(wanted: &str, text: &str) {
    let wanted: PathValue = wanted.parse().expect("a path and a value");
    watch(text, &mut |decided| assert!(!wanted.holds(decided.after), "{wanted} after {}", decided.record.stamp.seq));
}

/// None of them panics.
pub(crate) fn never_panics(text: &str) {
    let end = watch(text, &mut |_| ());
    assert_eq!(end, End::Done);
}

/// The last of them is decided so.
pub(crate) fn decides(text: &str, expected: &str) {
    let (vm, steps) = case(text);
    let (records, _) = rerun_all(vm, &steps, Numbers::Own);
    let last = records.last().expect("a record");
    let expected: Value = serde_json::from_str(expected).expect("JSON");
    assert_eq!(json!({"facts": last.facts, "reply": last.reply}), expected);
}

/// The four sayings do not pass whatever they are told: what `dcd shrink` writes for each fails where it should.
mod tests {
    use super::*;

    const PLUG: &str = r#"
{"config":{"memory_bytes":1073741824,"root_ports":["rp0"],"window_base":4563402752,"windows_bytes":[8589934592]}}
{"record":1,"time":0,"device":0,"operation":1,"origin":"supervisor","input":{"backends":{"RunStart":{"build":"test","survivals":[]}}},"outcomes":[]}
"#;

    #[test]
    fn a_value_that_comes_is_found() {
        never_is("runs=2", PLUG);
        let found = std::panic::catch_unwind(|| never_is("runs=1", PLUG));
        assert!(found.is_err());
    }

    #[test]
    fn a_decision_is_compared_whole() {
        let expected = r#"{"facts":[{"backends":{"RunStarted":{"build":"test"}}}],"reply":{"whole":"done"}}"#;
        decides(PLUG, expected);
        assert!(std::panic::catch_unwind(|| decides(PLUG, &expected.replace("test", "other"))).is_err());
        never_panics(PLUG);
        law_holds("backend-one-owner", PLUG);
    }

    #[test]
    fn a_case_is_read_whole() {
        let (vm, steps) = case(PLUG);
        assert_eq!((steps.len(), steps[0].record), (1, Seq(1)));
        assert!(device::inspect::values(&vm, &Path::default()).is_ok());
    }
}
