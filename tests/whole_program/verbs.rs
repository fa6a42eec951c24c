//! The verbs that talk to a running `dcd`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Program, TAG0, TAG1, dcd, printed, verb};

#[test]
fn add_release_status_list_and_watch_from_the_shell() {
    let dir = tempfile::tempdir().expect("a directory");
    let object = |id: &str, tag: &str| format!("memory-backend-ram,id={id},size=1G,share=on,tag={tag}");
    let program = Program::start(dir.path(), &["--object", &object("tm0", TAG0), "--object", &object("tm1", TAG1)]);
    let address = program.address();
    let mut watch = dcd()
        .args(["watch", "--count", "4", "--qmp", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dcd starts");
    let mut watching = String::new();
    BufReader::new(watch.stderr.take().expect("stderr")).read_line(&mut watching).expect("a line");
    assert!(watching.starts_with("watching"), "{watching}");
    let mut client = program.client();

    // Length from the backend, offset where it is told or from the first free range.
    let added = printed(&["add", "--tag", TAG0, "--at", "1G", "--qmp", &address]);
    assert_eq!(added, format!("offered 1 GiB at 0x40000000 of region 0, tag {TAG0}\n"));
    client.wait_for("ACCEPTED", TAG0);
    let added: Value =
        serde_json::from_str(&printed(&["add", "--tag", &TAG1.to_uppercase(), "--json", "--qmp", &address]))
            .expect("JSON");
    assert_eq!(added["offset"], 0);
    client.wait_for("ACCEPTED", TAG1);

    let status = printed(&["status", "--tag", TAG0, "--qmp", &address]);
    assert!(
        status.starts_with(&format!("accepted: tag {TAG0} is accepted (1 extents, 1073741824 bytes), #")),
        "{status}"
    );
    let device = printed(&["status", "--qmp", &address]);
    assert!(
        device.contains("/machine/peripheral/cxl-vmem0") && device.contains("extents   2 of 2 GiB in all"),
        "{device}"
    );
    let list = printed(&["list", "--qmp", &address]);
    assert!(list.contains("tm0") && list.contains("0x150000000"), "{list}");
    let extents = printed(&["list", "--json", "--qmp", &address]);
    let kinds: Vec<Value> = extents.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(kinds.iter().filter(|entry| entry["kind"] == "extent").count(), 2);

    printed(&["release", "--tag", TAG0, "--qmp", &address]);
    client.wait_for("RELEASED", TAG0);
    printed(&["release", "--tag", TAG1, "--force", "--qmp", &address]);
    assert_eq!(client.state(TAG1), "forced");

    let watched = watch.wait_with_output().expect("an end");
    let watched = String::from_utf8_lossy(&watched.stdout).into_owned();
    let verbs: Vec<_> = watched.lines().filter_map(|line| line.split([' ', ':']).nth(1)).collect();
    assert_eq!(verbs, ["offered", "accepted", "offered", "accepted"], "{watched}");

    let unknown = verb(&["add", "--tag", "7be13bce-ae34-4a77-b6c3-16df975fcf1a", "--qmp", &address]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no backend has the tag 7be13bce"), "{unknown:?}");
}

#[test]
fn a_verb_without_a_program_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let nobody = format!("unix:{}", dir.path().join("nobody").display());
    let output = verb(&["status", "--qmp", &nobody]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("start one with `dcd run`"), "{said}");
}

#[test]
fn options_that_contradict_each_other_are_refused_with_their_names() {
    let refused = |arguments: &[&str]| {
        let output = verb(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let both = "cxl-type3,id=d,dc-regions-total-size=4G,volatile-dc-memdev=m0";
    assert!(refused(&["run", "--device", both]).contains("exclude each other"));
    assert!(refused(&["run", "--memory", "1.5G"]).contains("is no size"));
    assert!(
        refused(&["run", "--object", "memory-backend-ram,id=tm0,size=1G,tag=nonsense"]).contains("hyphenated UUID")
    );
    let policies = "the policies are accept, reject, hold, subset, late and linux";
    assert!(refused(&["run", "--guest", "driver,policy=maybe"]).contains(policies));
    assert!(refused(&["run", "--guest", "driver,busy=0"]).contains("needs policy=linux"));
    assert!(refused(&["run", "--guest", "nobody"]).contains("is no guest"));
}
