//! A host that answers some time after the event.

use driver::{Handled, LATE_MS, Policy};
use wire::DcEventKind::{Add, Release};
use wire::Opcode;

use crate::draining::{block, held, holding};
use crate::exchange::{MIB, cleared, extent, ok, record, records, update};
use crate::probing::probed;

const ADD: Opcode = Opcode::ADD_DC_RESPONSE;
const RELEASE: Opcode = Opcode::RELEASE_DC;

#[test]
fn offers_are_answered_in_order_each_when_its_time_has_come() {
    let (mut machine, mut host) = probed(Policy::Late);
    assert_eq!(host.wakes_at_ms(), None);
    for (now_ms, n) in [(1_000, 3), (1_040, 1)] {
        machine.now_ms = now_ms;
        let offer = record(1, Add, 0, extent(block(n).0, 2 * MIB, n as u8));
        machine.expect([records(&[offer]), cleared(), records(&[])]);
        host.on_interrupt(&mut machine).expect("a clear log");
    }
    machine.device.set_event_status(0);
    machine.sent();
    assert_eq!((host.offers().count(), host.wakes_at_ms()), (2, Some(1_000 + LATE_MS)));
    machine.now_ms = 1_000 + LATE_MS - 1;
    assert_eq!(host.on_interrupt(&mut machine), Ok(vec![]), "it is too early");
    for (now_ms, n, next_ms) in [(1_000 + LATE_MS, 3, Some(1_040 + LATE_MS)), (1_040 + LATE_MS, 1, None)] {
        machine.now_ms = now_ms;
        machine.expect([ok(ADD, &[])]);
        host.on_interrupt(&mut machine).expect("an answer");
        assert_eq!(machine.sent(), [(0x4802, update(&[block(n)], 0))]);
        assert_eq!(host.wakes_at_ms(), next_ms);
    }
    assert_eq!(held(&host), [(6 * MIB, 2 * MIB, 3), (2 * MIB, 2 * MIB, 1)]);
}

#[test]
fn requests_are_followed_when_their_time_has_come() {
    let (mut machine, mut host) = holding(Policy::Late, &[(5, 2), (6, 3), (7, 4)]);
    for (now_ms, n, tag) in [(0, 5, 2), (10, 6, 3), (50, 7, 4)] {
        machine.now_ms = now_ms;
        let asked = record(1, Release, 0, extent(block(n).0, 2 * MIB, tag));
        machine.expect([records(&[asked]), cleared(), records(&[])]);
        host.on_interrupt(&mut machine).expect("a clear log");
    }
    machine.device.set_event_status(0);
    machine.sent();
    // Whoever comes late finds two that are due: they leave with one command; the third waits.
    machine.now_ms = LATE_MS + 20;
    machine.expect([ok(RELEASE, &[])]);
    let handled = host.on_interrupt(&mut machine).expect("a release");
    assert_eq!(machine.sent(), [(0x4803, update(&[block(5), block(6)], 0))]);
    assert!(matches!(handled.last(), Some(Handled::Released { ranges }) if ranges.len() == 2));
    assert_eq!((held(&host).len(), host.wakes_at_ms()), (1, Some(LATE_MS + 50)));
}
