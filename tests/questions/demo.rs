//! Every verb on a journal that `dcd demo` made.

use expect_test::{Expect, expect};
use serde_json::Value;

use crate::program::{demo, keep, printed, refused, steady, verb};

fn check(arguments: &[&str], expected: Expect) {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.replace("JOURNAL", &journal)).collect();
    let output = verb(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    expected.assert_eq(&steady(&said, &journal));
}

#[test]
fn inspect_prints_a_part_of_the_tree() {
    check(
        &["inspect", "backends.tm0", "--journal", "JOURNAL", "--at", "#82"],
        expect![[r#"
        backends.tm0.type = memory-backend-ram
        backends.tm0.path = none
        backends.tm0.size-bytes = 1073741824
        backends.tm0.share = on
        backends.tm0.prealloc = off
        backends.tm0.reserve = on
        backends.tm0.tag = 5be13bce-ae34-4a77-b6c3-16df975fcf1a
        backends.tm0.source = request
        backends.tm0.created = #78
        backends.tm0.holder.state = attached
        backends.tm0.holder.device = cxl-vmem0
        backends.tm0.holder.by = #82
        backends.tm0.contents.state = intact
    "#]],
    );
}

#[test]
fn inspect_goes_where_it_is_told() {
    check(
        &["inspect", "devices.cxl-vmem0.extents.accepted[1G]", "--journal", "JOURNAL", "--at", "87"],
        expect![[r#"
        devices.cxl-vmem0.extents.accepted[0x40000000].len-bytes = 536870912
        devices.cxl-vmem0.extents.accepted[0x40000000].region = 0
        devices.cxl-vmem0.extents.accepted[0x40000000].tag = 6be13bce-ae34-4a77-b6c3-16df975fcf1a
        devices.cxl-vmem0.extents.accepted[0x40000000].backend = tm1
        devices.cxl-vmem0.extents.accepted[0x40000000].offset-bytes = 536870912
        devices.cxl-vmem0.extents.accepted[0x40000000].offered = #85
        devices.cxl-vmem0.extents.accepted[0x40000000].accepted = #87
        devices.cxl-vmem0.extents.accepted[0x40000000].position = 1
        devices.cxl-vmem0.extents.accepted[0x40000000].shared-sequence = 0
    "#]],
    );
}

#[test]
fn inspect_tells_mappings_and_decoders() {
    check(
        &["inspect", "devices.cxl-vmem0.windows.mappings", "--journal", "JOURNAL", "--at", "87"],
        expect![[r#"
        devices.cxl-vmem0.windows.mappings[0x110000000].dpa = 0x0
        devices.cxl-vmem0.windows.mappings[0x110000000].len-bytes = 1073741824
        devices.cxl-vmem0.windows.mappings[0x110000000].backend = tm0
        devices.cxl-vmem0.windows.mappings[0x110000000].offset-bytes = 0
        devices.cxl-vmem0.windows.mappings[0x150000000].dpa = 0x40000000
        devices.cxl-vmem0.windows.mappings[0x150000000].len-bytes = 536870912
        devices.cxl-vmem0.windows.mappings[0x150000000].backend = tm1
        devices.cxl-vmem0.windows.mappings[0x150000000].offset-bytes = 536870912
        devices.cxl-vmem0.windows.mappings[0x1d0000000].dpa = 0xc0000000
        devices.cxl-vmem0.windows.mappings[0x1d0000000].len-bytes = 536870912
        devices.cxl-vmem0.windows.mappings[0x1d0000000].backend = tm1
        devices.cxl-vmem0.windows.mappings[0x1d0000000].offset-bytes = 0
    "#]],
    );
}

#[test]
fn inspect_names_what_is_there_instead() {
    check(
        &["inspect", "backends.tm0.holders", "--journal", "JOURNAL"],
        expect![[r#"
            dcd: at #99: there is no 'holders' in backends.tm0: it has type, path, size-bytes, share, prealloc, reserve, tag, source, created, holder, contents
        "#]],
    );
}

#[test]
fn inspect_names_the_last_record() {
    check(
        &["inspect", "backends", "--journal", "JOURNAL", "--at", "#4000"],
        expect![[r#"
        dcd: there is no #4000: the journal ends with #99
    "#]],
    );
}

#[test]
fn inspect_says_that_a_collection_is_empty() {
    check(
        &["inspect", "devices.cxl-vmem0.extents.accepted", "--journal", "JOURNAL"],
        expect![[r#"
        devices.cxl-vmem0.extents.accepted is empty after #99
    "#]],
    );
}

#[test]
fn why_names_record_input_asker_and_what_was_replaced() {
    check(
        &["why", "backends.tm0.holder", "--journal", "JOURNAL", "--at", "#85"],
        expect![[r#"
        #82 at T ms, guest to cxl-vmem0: 4802h (Add Dynamic Capacity Response)
          accepted 0x0..0x40000000 of #80; tm0 attached; 1 mapped; 0h (success)
          backends.tm0.holder.state: reserved -> attached
          backends.tm0.holder.by: #80 -> #82
    "#]],
    );
}

#[test]
fn why_tells_what_is_gone() {
    check(
        &["why", "devices.cxl-vmem0.windows.pieces[0]", "--journal", "JOURNAL"],
        expect![[r#"
        #92 at T ms, guest to cxl-vmem0: 4803h (Release Dynamic Capacity)
          released 0x0..0x40000000; tm0 free; 1 unmapped; 0h (success)
          devices.cxl-vmem0.windows.pieces[0x0].len-bytes: 1073741824 -> absent
          devices.cxl-vmem0.windows.pieces[0x0].backend: tm0 -> absent
          devices.cxl-vmem0.windows.pieces[0x0].offset-bytes: 0 -> absent
    "#]],
    );
}

#[test]
fn why_tells_what_was_so_from_the_start() {
    check(
        &["why", "config.memory-bytes", "--journal", "JOURNAL"],
        expect![[r#"
            so from the start: no record wrote it
              config.memory-bytes = 1073741824
        "#]],
    );
}

#[test]
fn why_of_nothing_says_what_is_there() {
    check(
        &["why", "backends.tm9", "--journal", "JOURNAL"],
        expect![[r#"
            dcd: at #99: there is no 'tm9' in backends: it has tm0, tm1
        "#]],
    );
}

#[test]
fn bisect_finds_the_first_record_of_a_value() {
    check(
        &["bisect", "JOURNAL", "--path", "backends.tm1.holder.state=attached"],
        expect![[r#"
        backends.tm1.holder.state=attached first after #87
        #87 at T ms, guest to cxl-vmem0: 4802h (Add Dynamic Capacity Response)
          accepted 0xc0000000..0xe0000000 0x40000000..0x60000000 of #85; tm1 attached; 2 mapped; 0h (success)
        replay with: dcd replay JOURNAL --until 87
    "#]],
    );
}

#[test]
fn bisect_finds_what_is_gone() {
    check(
        &[
            "bisect",
            "JOURNAL",
            "--path",
            "devices.cxl-vmem0.extents.accepted[0xc0000000].tag=6BE13BCE-ae34-4a77-b6c3-16df975fcf1a",
        ],
        expect![[r#"
            devices.cxl-vmem0.extents.accepted[0xc0000000].tag=6BE13BCE-ae34-4a77-b6c3-16df975fcf1a first after #87
            #87 at T ms, guest to cxl-vmem0: 4802h (Add Dynamic Capacity Response)
              accepted 0xc0000000..0xe0000000 0x40000000..0x60000000 of #85; tm1 attached; 2 mapped; 0h (success)
            replay with: dcd replay JOURNAL --until 87
        "#]],
    );
}

#[test]
fn bisect_of_a_law_that_holds() {
    check(
        &["bisect", "JOURNAL", "--law", "counters-match"],
        expect![[r#"
            dcd: 'law counters-match is broken' is so after none of the 99 records
        "#]],
    );
}

#[test]
fn bisect_of_a_law_that_is_none() {
    check(
        &["bisect", "JOURNAL", "--law", "counters"],
        expect![[r#"
        dcd: there is no law 'counters': the laws are extents-disjoint, capacity-adds-up, counters-match, list-complete, generation-moves, backend-one-owner, tag-one-owner, mapped-is-accepted, mappings-inside-backends, mappings-of-state, offers-in-order, offers-answered-in-order, log-whole-chains, requested-is-accepted
    "#]],
    );
}

#[test]
fn replay_is_one_screen() {
    check(
        &["replay", "JOURNAL"],
        expect![[r#"
        JOURNAL: 99 records by dcd 0.1.0, T ms of the VM clock
        cxl-vmem0: 0 offers, 0 extents of 0 bytes in all, generation 4, 0 event records
        backend tm0: 1 GiB, free
        backend tm1: 1 GiB, free
        99 records fold, 14 laws hold after each, every decision is what this build decides
    "#]],
    );
}

#[test]
fn replay_stops_where_it_is_told() {
    check(
        &["replay", "JOURNAL", "--until", "#87", "--check"],
        expect![[r#"
        JOURNAL: 99 records by dcd 0.1.0, T ms of the VM clock
        after #87, at T ms:
        cxl-vmem0: 0 offers, 3 extents of 2 GiB in all, generation 2, 2 event records
          #82 0x0..0x40000000 of tm0 at 0x0, tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a, seen at 0x110000000
          #87 0xc0000000..0xe0000000 of tm1 at 0x0, tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a, seen at 0x1d0000000
          #87 0x40000000..0x60000000 of tm1 at 0x20000000, tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a, seen at 0x150000000
        backend tm0: 1 GiB, attached to cxl-vmem0, #82
        backend tm1: 1 GiB, attached to cxl-vmem0, #87
        87 records fold, 14 laws hold after each, every decision is what this build decides
    "#]],
    );
}

#[test]
fn replay_prints_a_part_of_the_state() {
    check(
        &["replay", "JOURNAL", "--until", "82", "--state", "backends.tm0.holder"],
        expect![[r#"
        backends.tm0.holder.state = attached
        backends.tm0.holder.device = cxl-vmem0
        backends.tm0.holder.by = #82
    "#]],
    );
}

#[test]
fn replay_until_a_law_that_holds() {
    check(
        &["replay", "JOURNAL", "--until", "law:extents-disjoint"],
        expect![[r#"
        dcd: law extents-disjoint holds after each of 99 records
    "#]],
    );
}

#[test]
fn whatif_tells_which_records_change() {
    check(
        &["whatif", "JOURNAL", "--drop", "#95"],
        expect![[r#"
        drop #95: 2 of 4 later records change
         record  input                        was                      is
         #96     0100h (Get Event Records)    0h (success), 288 bytes  0h (success), 32 bytes
         #98     0101h (Clear Event Records)  2 cleared; 0h (success)  Eh (invalid handle)
        the fork has 98 records, those up to #94 shared: dcd replay JOURNAL.drop-95
    "#]],
    );
}

#[test]
fn whatif_edits_what_it_is_told() {
    check(
        &["whatif", "JOURNAL", "--edit", "#95={\"extents\":{\"release\":{\"removal\":\"forced\"}}}"],
        expect![[r#"
            edit #95={"extents":{"release":{"removal":"forced"}}}: 2 of 4 later records change
             record  input                                                                      was                                                                                         is
             #95     forced release tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a region 0 (edited)  asked back 0xc0000000..0xe0000000 0x40000000..0x60000000; 2 event records                   2 event records; taken 0xc0000000..0xe0000000 0x40000000..0x60000000; tm1 free; 2 unmapped
             #96     0100h (Get Event Records)                                                  0h (success), 288 bytes; reply.whole.command.payload from byte 80 on: 0101000000010000      0h (success), 288 bytes; reply.whole.command.payload from byte 80 on: 0201000000010000
             #97     4803h (Release Dynamic Capacity)                                           released 0xc0000000..0xe0000000 0x40000000..0x60000000; tm1 free; 2 unmapped; 0h (success)  Fh (invalid physical address)
            the fork has 99 records, those up to #94 shared: dcd replay JOURNAL.edit-95-extents-release-removal-forced
        "#]],
    );
}

#[test]
fn whatif_of_no_input() {
    check(
        &["whatif", "JOURNAL", "--edit", "#95={\"extents\":{\"release\":{\"removal\":\"gentle\"}}}"],
        expect![[r#"
        dcd: #95 with this edit is no input: {"extents":{"release":{"extents":[],"host_id":0,"policy":"tag-based","region":0,"removal":"gentle","sanitize":"keep","tag":"6be13bce-ae34-4a77-b6c3-16df975fcf1a"}}}: unknown variant `gentle`, expected `requested` or `forced`
    "#]],
    );
}

#[test]
fn shrink_leaves_four_inputs() {
    check(
        &["shrink", "JOURNAL", "--path", "backends.tm1.holder.state=attached"],
        expect![[r#"
            backends.tm1.holder.state=attached: 4 of 99 inputs show it, found in 72 runs
             record  ms     device     actor     from          input                                                             outcome
             #1      0.000             backends  command line  plug cxl-vmem0, 4G of dynamic capacity
             #2      0.000             backends  operator      object-add tm1 size 2M tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a
             #3      0.000  cxl-vmem0  extents   operator      add tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a region 0, 1 extents  offered 0x40000000..0x40200000; 1 event records; tm1 reserved
             #4      0.000  cxl-vmem0  extents   guest         4802h (Add Dynamic Capacity Response)                             accepted 0x40000000..0x40200000 of #3; tm1 attached; 1 mapped; 0h (success)
            backends.tm1.holder.state=attached
            they are #2 #79 #85 #87 of JOURNAL
            the test: JOURNAL.shrink-backends-tm1-holder-state-attached.rs
            replay with: dcd replay JOURNAL.shrink-backends-tm1-holder-state-attached --until 4
        "#]],
    );
}

#[test]
fn shrink_of_what_holds() {
    check(
        &["shrink", "JOURNAL", "--law", "capacity-adds-up"],
        expect![[r#"
            dcd: nothing to shrink: 'law capacity-adds-up is broken' is not so after any of 99 records
        "#]],
    );
}

#[test]
fn laws_are_listed_with_their_sentences() {
    check(
        &["laws"],
        expect![[r#"
        extents-disjoint          No two extents, offered or accepted, of one device share an address, and each lies in one region in whole blocks.
        capacity-adds-up          What is counted as held of an offer is the sum of its extents, and no more than was offered.
        counters-match            The extent and tag counters count the offered and the accepted extents and their tags.
        list-complete             The list of 4801h names every accepted extent once, by add, place in the add and address.
        generation-moves          The generation number moves exactly when the list of accepted extents does.
        backend-one-owner         A backend is reserved by exactly one pending offer or attached to the accepted extents of exactly one device, or a device's own memory, or free.
        tag-one-owner             Where capacity comes by tag, a tag names one backend, and what is offered or accepted with it stands on that backend.
        mapped-is-accepted        Behind every accepted extent stands its piece of its backend, behind static memory its backend, and behind nothing else stands anything.
        mappings-inside-backends  Every piece lies inside its backend.
        mappings-of-state         What is mapped is what the committed decoders show of the pieces: all of it, at its address, once.
        offers-in-order           Offers stand in the order in which they were made.
        offers-answered-in-order  The host answers an offer only when it has answered those before it, or they are dead.
        log-whole-chains          The DC event log holds at most its size, handles are not 0 and differ, and its last chain is closed.
        requested-is-accepted     The host was asked to give back only what it holds.
    "#]],
    );
}

#[test]
fn a_fork_is_an_ordinary_journal_with_a_parent_and_differs_where_it_was_forked() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let fork = format!("{journal}.drop-95");
    printed(&["whatif", &journal, "--drop", "95"]);
    let replayed = printed(&["replay", &fork, "--check"]);
    assert!(
        replayed.contains(&format!("\nforked at #94: drop #95 of {journal}\n"))
            && replayed.contains("98 records fold, 14 laws hold"),
        "{replayed}"
    );
    let said = refused(&["whatif", &journal, "--drop", "95"]);
    assert!(said.contains("is there already: name another place with --into DIR"), "{said}");

    let output = verb(&["diff", &journal, &fork, "--path", "backends.tm1.holder"]);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(told.starts_with("the first input that differs:\n"), "{told}");
    assert!(told.contains("operator to cxl-vmem0: release tag 6be13bce"), "{told}");
    let output = verb(&["diff", &journal, &fork, "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&found["input"]["record"], &found["decision"]), (&Value::from(95), &Value::Null));
    assert!(found["state"].as_array().is_some_and(|changes| !changes.is_empty()));
}

#[test]
fn a_journal_and_its_copy_are_the_same() {
    let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let [first, second] = dirs.each_ref().map(|dir| demo(dir.path()));
    assert_eq!(printed(&["diff", &first, &second]), "the same inputs, the same decisions, the same state\n");
}

#[test]
fn programs_get_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&printed(arguments)).expect("JSON") };
    let state = json(&["inspect", "backends.tm0", "--journal", &journal, "--at", "82", "--json"]);
    assert_eq!(state["state"]["backends.tm0.size-bytes"], 1u64 << 30);
    assert_eq!(state["state"]["backends.tm0.holder.by"], "#82");
    let why = json(&["why", "backends.tm0.holder", "--journal", &journal, "--json"]);
    assert_eq!((&why["by"], &why["record"]["from"]), (&Value::from(92), &Value::from("guest")));
    assert_eq!(why["changes"][0]["before"], "attached");
    let first = json(&["bisect", &journal, "--path", "plugs=1", "--json"]);
    assert_eq!(first["record"], 2);
    let replayed = json(&["replay", &journal, "--json"]);
    assert_eq!((&replayed["records"], &replayed["finding"]), (&Value::from(99), &Value::Null));
    assert_eq!(replayed["state"]["runs"], 1);
    let laws = printed(&["laws", "--json"]);
    assert_eq!(laws.lines().count(), device::laws::LAWS.len());
}

/// Nobody types a directory for the journal that was last written.
#[test]
fn the_journal_of_the_latest_run_needs_no_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    std::fs::create_dir(dir.path().join("dcd")).expect("a directory");
    std::fs::rename(journal, dir.path().join("dcd/journal")).expect("moved");
    for arguments in [&["replay"][..], &["inspect", "runs"], &["why", "runs"], &["bisect", "--path", "runs=1"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dcd"));
        let output = command.args(arguments).env("XDG_STATE_HOME", dir.path()).output().expect("dcd runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn help_shows_an_example_of_each() {
    for question in ["replay", "inspect", "why", "diff", "bisect", "whatif", "shrink", "laws"] {
        let help = printed(&[question, "--help"]);
        assert!(help.contains(&format!("Example: dcd {question}")), "{help}");
    }
}

/// A law that is broken in the facts is found whatever this build decides, and every verb takes its record.
#[test]
fn a_broken_law_is_found_told_and_not_hidden() {
    use device::operation::Fact;
    let mut field = crate::field::Field::with_cycles(1);
    let last = field.records.last_mut().expect("a record");
    last.facts.clear();
    let accepted =
        field.records.iter_mut().find(|record| record.facts.iter().any(|fact| matches!(fact, Fact::Windows(_))));
    accepted.expect("an answer").facts.retain(|fact| !matches!(fact, Fact::Windows(_)));
    let dir = tempfile::tempdir().expect("a directory");
    let journal = dir.path().join("field");
    keep(&journal, &field.genesis, &field.records);
    let journal = journal.to_str().expect("a path");
    let said = refused(&["replay", journal]);
    expect![[r#"
        dcd: 5 of 7 records fold and keep the laws; then
        #6: law mapped-is-accepted is broken: cxl-vmem0: 0x80000000..0x80200000 of tm0 at 0x200000 should be mapped, nothing more is
        replay with: dcd replay JOURNAL --until 6
    "#]].assert_eq(&steady(&said, journal));
    expect![[r#"
        law mapped-is-accepted is broken first after #6: cxl-vmem0: 0x80000000..0x80200000 of tm0 at 0x200000 should be mapped, nothing more is
        #6 at T ms, guest to cxl-vmem0: 4802h (Add Dynamic Capacity Response)
          accepted 0x80400000..0x80600000 0x80000000..0x80200000 of #4; tm0 attached; 0h (success)
        replay with: dcd replay JOURNAL --until 6
    "#]].assert_eq(&steady(&printed(&["bisect", journal, "--law", "mapped-is-accepted"]), journal));
    expect![[r#"
        JOURNAL: 7 records by field, T ms of the VM clock
        after #6, at T ms:
        cxl-vmem0: 0 offers, 2 extents of 4 MiB in all, generation 1, 2 event records
          #6 0x80400000..0x80600000 of tm0 at 0x0, tag 00000000-0000-0000-a5a5-a5a5a5a5a5a5, seen at nowhere
          #6 0x80000000..0x80200000 of tm0 at 0x200000, tag 00000000-0000-0000-a5a5-a5a5a5a5a5a5, seen at nowhere
        backend tm0: 4 MiB, attached to cxl-vmem0, #6
        6 records fold
        from #6 on law mapped-is-accepted is broken: cxl-vmem0: 0x80000000..0x80200000 of tm0 at 0x200000 should be mapped, nothing more is
        5 of 6 decisions are what this build decides; the first other one:
        #6: the facts differ
          recorded: []
          decided:  [Windows(Mapped { pieces: [Piece { range: DpaRange { start: Dpa(2151677952), len_bytes: 2097152 }, backend: "tm0", offset_bytes: 0 }, Piece { range: DpaRange { start: Dpa(2147483648), len_bytes: 2097152 }, backend: "tm0", offset_bytes: 2097152 }] })]
    "#]].assert_eq(&steady(&printed(&["replay", journal, "--until", "law:mapped-is-accepted"]), journal));
    expect![[r#"
        dcd: 5 of 7 records agree with this build; then
        #6: the facts differ
          recorded: []
          decided:  [Windows(Mapped { pieces: [Piece { range: DpaRange { start: Dpa(2151677952), len_bytes: 2097152 }, backend: "tm0", offset_bytes: 0 }, Piece { range: DpaRange { start: Dpa(2147483648), len_bytes: 2097152 }, backend: "tm0", offset_bytes: 2097152 }] })]
        replay with: dcd replay JOURNAL --until 6 --check
    "#]].assert_eq(&steady(&refused(&["replay", journal, "--check"]), journal));
}
