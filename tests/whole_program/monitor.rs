//! `human-monitor-command`: what people are shown.

use expect_test::{Expect, expect};
use serde_json::json;

use crate::program::{Client, GIB, MIB, Program, TAG0, TAG1};

/// What a line is answered, with records by no number: how many a guest makes is its own affair.
fn shown(client: &mut Client, line: &str) -> String {
    let text = client.execute("human-monitor-command", json!({"command-line": line})).expect("a text");
    let text = text.as_str().expect("a text").replace("\r\n", "\n");
    let mut parts = text.split('#');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "#" + part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}

fn expect_shown(client: &mut Client, line: &str, expected: &Expect) {
    expected.assert_eq(&shown(client, line));
}

/// Two extents of one tag held, of another tag one offered that the host does not answer.
fn started() -> (tempfile::TempDir, Program, Client) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--memory", "3G"]);
    let mut client = program.client();
    client.object_add("tm0", TAG0, 4 * MIB).expect("a backend");
    client.object_add("tm1", TAG1, GIB).expect("a backend");
    client.add(TAG0, &[(GIB, 2 * MIB), (0, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
    // The guest has more to do: it clears the records that it has answered.
    while client.query()["counters"]["event-records"] != 0 {}
    client.execute("stop", json!({})).expect("stopped");
    client.add(TAG1, &[(2 * GIB, GIB)]).expect("an offer");
    (dir, program, client)
}

#[test]
fn info_cxl_shows_all_about_every_device() {
    let (_dir, _program, mut client) = started();
    expect_shown(
        &mut client,
        "info cxl",
        &expect![[r#"
            cxl-vmem0: /machine/peripheral/cxl-vmem0, at 0d:00.0, serial 0x0, mailbox payload 32768 bytes
              regions:
                0: 0x0..0x100000000, blocks of 2097152 bytes
              offers:
                #: region 0, tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a, backend tm1: 0x80000000..0xc0000000
              extents:
                #: 0x40000000..0x40200000, region 0, tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a, tm0 from 0x0 on, seen at 0x190000000
                #: 0x0..0x200000, region 0, tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a, tm0 from 0x200000 on, seen at 0x150000000
              counters:
                extents: 131069 of 131072 left
                tags: 131070 of 131072 left
                generation: 1
              decoders:
                0: 0x150000000..0x250000000 to DPA 0x0
              event log:
                1 of 4096 records, 0 dropped
                handle 3: add 0x80000000..0xc0000000, tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a
            journal: #, durable up to #
        "#]],
    );
}

#[test]
fn info_mtree_shows_what_the_guest_sees_where() {
    let (_dir, _program, mut client) = started();
    expect_shown(
        &mut client,
        "info mtree",
        &expect![[r#"
        address-space: memory
          0000000000000000-ffffffffffffffff (prio 0, i/o): system
            0000000000000000-000000007fffffff (prio 0, ram): ram @0000000000000000
            00000000c0000000-00000000dfffffff (prio 0, i/o): pci-bars
              00000000c0000000-00000000c000ffff (prio 0, i/o): cxl-vmem0 bar0
              00000000c0010000-00000000c001ffff (prio 0, i/o): cxl-vmem0 bar2
              00000000c0020000-00000000c0020fff (prio 0, i/o): cxl-vmem0 bar4
            0000000100000000-000000013fffffff (prio 0, ram): ram @0000000080000000
            0000000140000000-00000001400fffff (prio 0, i/o): cxl-host-registers
            0000000150000000-000000024fffffff (prio 0, i/o): cxl-fixed-window
              0000000150000000-000000024fffffff (prio 0, i/o): cxl-vmem0 decoder 0
                0000000150000000-00000001501fffff (prio 0, ram): tm0 @0000000000200000
                0000000190000000-00000001901fffff (prio 0, ram): tm0 @0000000000000000

    "#]],
    );
    expect_shown(
        &mut client,
        "info mtree -f",
        &expect![[r#"
        FlatView #
         AS "memory", root: system
         Root memory region: system
          0000000000000000-000000007fffffff (prio 0, ram): ram @0000000000000000
          00000000c0000000-00000000c000ffff (prio 0, i/o): cxl-vmem0 bar0
          00000000c0010000-00000000c001ffff (prio 0, i/o): cxl-vmem0 bar2
          00000000c0020000-00000000c0020fff (prio 0, i/o): cxl-vmem0 bar4
          0000000100000000-000000013fffffff (prio 0, ram): ram @0000000080000000
          0000000140000000-00000001400fffff (prio 0, i/o): cxl-host-registers
          0000000150000000-00000001501fffff (prio 0, ram): tm0 @0000000000200000
          0000000150200000-000000018fffffff (prio 0, i/o): cxl-vmem0 decoder 0
          0000000190000000-00000001901fffff (prio 0, ram): tm0 @0000000000000000
          0000000190200000-000000024fffffff (prio 0, i/o): cxl-vmem0 decoder 0

    "#]],
    );
}

#[test]
fn info_memdev_status_and_version() {
    let (_dir, _program, mut client) = started();
    expect_shown(
        &mut client,
        "info memdev",
        &expect![[r#"
        memory backend: tm0
          type:  memory-backend-ram
          size:  4194304
          merge: false
          dump: true
          prealloc: false
          share: true
          reserve: true
          policy: default
          host nodes:
          tag: 5be13bce-ae34-4a77-b6c3-16df975fcf1a

        memory backend: tm1
          type:  memory-backend-ram
          size:  1073741824
          merge: false
          dump: true
          prealloc: false
          share: true
          reserve: true
          policy: default
          host nodes:
          tag: 6be13bce-ae34-4a77-b6c3-16df975fcf1a

    "#]],
    );
    let lines = [
        "info status",
        "info version",
        "",
        "help help",
        "nonsense",
        "info nonsense",
        "info mtree -x",
        "info status -f",
        "info cxl cxl-vmem0",
    ];
    let text: String = lines.iter().map(|line| format!("(qemu) {line}\n{}", shown(&mut client, line))).collect();
    expect![[r#"
        (qemu) info status
        VM status: paused
        (qemu) info version
        11.1.0 (dcd 0.1.0)
        (qemu) 
        (qemu) help help
        help|? [command] -- show the help
        (qemu) nonsense
        unknown command: 'nonsense'
        (qemu) info nonsense
        unknown command: 'info nonsense'
        (qemu) info mtree -x
        info mtree: unsupported option -x
        Try "help info" for more information
        (qemu) info status -f
        info status: unsupported option -f
        Try "help info" for more information
        (qemu) info cxl cxl-vmem0
        info cxl: extraneous characters at the end of line
    "#]]
    .assert_eq(&text);
    let nobody = client.execute("human-monitor-command", json!({"command-line": "info cxl", "cpu-index": 1}));
    assert_eq!(
        nobody.expect_err("refused"),
        "Parameter 'cpu-index' expects a CPU number: give one below 1, or nothing"
    );
}
