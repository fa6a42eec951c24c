//! Questions that are asked wrongly, and answers that a shell or a person would take wrongly.

use serde_json::Value;
use wire::Opcode;

use crate::field::Field;
use crate::program::{demo, keep, printed, refused, verb};

fn with_demo(ask: impl FnOnce(&str)) {
    let dir = tempfile::tempdir().expect("a directory");
    ask(&demo(dir.path()));
}

/// Seen as: `regio` for `region` was ignored, "0 of 20 later records change", and the exit code was 0.
#[test]
fn an_edit_that_names_what_is_not_there_is_refused() {
    with_demo(|journal| {
        let told = refused(&["whatif", journal, "--edit", r#"80={"extents":{"add":{"regio":2}}}"#]);
        let expected = "dcd: there is no 'regio' in extents.add of #80: it has extents, host_id, policy, region, tag\n";
        assert_eq!(told, expected);
        let told = refused(&["whatif", journal, "--edit", r#"81={"extents":{"add":{"region":2}}}"#]);
        let expected = "dcd: #81 is no input of extents.add, which the edit names: its input is \
                        {\"extents\":{\"command\":{\"opcode\":256,\"payload\":\"04\"}}}\n";
        assert_eq!(told, expected);
    });
}

#[test]
fn the_record_that_is_edited_stands_first() {
    with_demo(|journal| {
        let edit = r#"80={"extents":{"add":{"region":2}}}"#;
        let told = printed(&["whatif", journal, "--edit", edit]);
        let row = told.lines().nth(2).expect("a row");
        assert!(row.starts_with(" #80 ") && row.contains(" region 2, 1 extents (edited) "), "{told}");
        assert!(
            row.contains(" offered 0x0..0x40000000; ") && row.contains(" refused: region id is too large: 2"),
            "{told}"
        );
        let into = format!("{journal}.again");
        let told = printed(&["whatif", journal, "--edit", edit, "--into", &into, "--json"]);
        let rows: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((&rows[0]["record"], &rows[0]["edited"]), (&Value::from(80), &Value::from(true)));
        assert!(rows[1..rows.len() - 1].iter().all(|row| row["edited"] == false), "{told}");
    });
}

/// Seen as: rows in which `was` and `is` were the same text.
#[test]
fn rows_that_look_alike_say_what_differs() {
    with_demo(|journal| {
        let told = printed(&["whatif", journal, "--edit", r#"80={"extents":{"add":{"region":2}}}"#]);
        let row = told.lines().find(|line| line.starts_with(" #86 ")).expect("a row");
        let cells: Vec<_> = row.split("0h (success), 288 bytes").map(str::trim).collect();
        assert!(cells[1].starts_with("; reply.whole.command.payload from byte "), "{row}");
        assert_ne!(cells[1], cells[2], "{row}");
    });
}

/// Seen as: two lines with the same text, and nothing of what differs in them.
#[test]
fn inputs_that_look_alike_say_what_differs() {
    let dir = tempfile::tempdir().expect("a directory");
    let places = [0x11u8, 0x22].map(|byte| {
        let mut field = Field::new();
        field.command(Opcode::SET_TIMESTAMP, vec![byte, 0, 0, 0, 0, 0, 0, 0]);
        let place = dir.path().join(format!("{byte:x}"));
        keep(&place, &field.genesis, &field.records);
        place.to_str().expect("a path").to_owned()
    });
    let output = verb(&["diff", &places[0], &places[1]]);
    let told = String::from_utf8(output.stdout).expect("text");
    let expected =
        "they differ in input.extents.command.payload from byte 0 on: 1100000000000000 and 2200000000000000\n";
    assert!(told.contains("0301h (Set Timestamp)") && told.contains(expected), "{told}");
    let output = verb(&["diff", &places[0], &places[1], "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["input"]["differs"]["second"], "2200000000000000");
}

/// Seen as: `is so after none of the 100 records`, as if there were such a path.
#[test]
fn a_path_that_is_never_there_is_told() {
    with_demo(|journal| {
        for question in ["bisect", "shrink"] {
            let told = refused(&[question, journal, "--path", "backends.nope.holder=1"]);
            assert_eq!(told, "dcd: there is never a 'nope' in backends: it has tm0, tm1\n");
            let told = refused(&[question, journal, "--path", "backends.tm0.holders=1"]);
            assert!(told.starts_with("dcd: there is never a 'holders' in backends.tm0: it has type, "), "{told}");
            let told = refused(&[question, journal, "--path", "backends.tm0.holder=attached"]);
            let expected = "dcd: backends.tm0.holder is no value: ask for one of backends.tm0.holder.state, \
                            backends.tm0.holder.device, backends.tm0.holder.by\n";
            assert_eq!(told, expected);
        }
        let told = refused(&["bisect", journal, "--path", "backends.tm0.holder.state=gone"]);
        assert_eq!(told, "dcd: 'backends.tm0.holder.state=gone' is so after none of the 99 records\n");
    });
}

/// Seen as: `replay with: dcd replay demo --until 99` behind errors of typing.
#[test]
fn what_there_is_nothing_to_look_at_names_no_replay() {
    with_demo(|journal| {
        for question in [
            &["inspect", "backends.tm9", "--journal", journal][..],
            &["why", "backends.tm9", "--journal", journal],
            &["why", "runs", "--journal", journal, "--at", "5000"],
            &["replay", journal, "--state", "backends.tm9"],
            &["bisect", journal, "--path", "backends.tm9.holder.state=free"],
            &["bisect", journal, "--law", "counters-match"],
            &["shrink", journal, "--law", "counters-match"],
            &["shrink", journal, "--panics"],
        ] {
            let told = refused(question);
            assert!(!told.contains("replay with") && told.lines().count() == 1, "{question:?}: {told}");
        }
        let told = refused(&["why", "runs", "--journal", journal, "--at", "5000"]);
        assert_eq!(told, "dcd: there is no #5000: the journal ends with #99\n");
    });
}

/// What a journal with a blank in its path prints is pasted into a shell, and runs.
#[test]
fn printed_commands_can_be_pasted() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("it's my run");
    std::fs::create_dir(&place).expect("a directory");
    let journal = demo(&place);
    let of = |arguments: &[&str], before: &str| {
        let told = printed(arguments);
        let command = told.lines().find_map(|line| line.split_once(before)).expect("a command").1.to_owned();
        let pasted = format!("{} {command}", env!("CARGO_BIN_EXE_dcd"));
        let output = std::process::Command::new("sh").args(["-c", &pasted]).output().expect("a shell");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    };
    of(&["whatif", &journal, "--drop", "95"], "shared: dcd ");
    of(&["bisect", &journal, "--path", "runs=1"], "replay with: dcd ");
    of(&["shrink", &journal, "--path", "plugs=1"], "replay with: dcd ");
}

/// Seen as: the facts as the program has them in memory, and a line to replay that replayed nothing.
#[test]
fn an_edit_that_makes_what_cannot_be_is_told_in_words() {
    with_demo(|journal| {
        let edit = r#"2={"backends":{"DeviceAdd":{"config":{"regions":[]}}}}"#;
        let asked = ["whatif", journal, "--edit", edit];
        let told = refused(&asked);
        let expected = "dcd: #2 (plug cxl-vmem0, 4G of dynamic capacity): this build decides what cannot be true: ";
        assert!(
            told.starts_with(expected) && told.contains("; no fork is written\n") && !told.contains("DeviceAdded"),
            "{told}"
        );
        let again = told.lines().last().and_then(|line| line.strip_prefix("replay with: dcd ")).expect("a command");
        assert_eq!(again, format!("whatif {journal} --edit '{edit}'"));
        let pasted = format!("{} {again}", env!("CARGO_BIN_EXE_dcd"));
        let output = std::process::Command::new("sh").args(["-c", &pasted]).output().expect("a shell");
        assert_eq!(String::from_utf8_lossy(&output.stderr), told, "it shows it again");
    });
}
