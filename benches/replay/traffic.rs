//! A recording of a million decisions: lives of backends as operators and a host's driver lead them, the same every time.
//!
//! Most are added, offered, accepted, asked back and given back; some are refused, withdrawn by force before or after the
//! answer, or given back in halves; every 32nd stays, until 256 stay. Between them the host reads its list and its log.

use device::backends;
use device::extents::{self, ReleaseRequest, Removal};
use device::operation::Input;
use journal::record::Origin;
use wire::Opcode;

use crate::field::{Field, GIB, MIB, tag, update};

const BLOCK: u64 = 2 * MIB;

/// The first records of the traffic.
pub(crate) fn traffic(records: usize) -> Field {
    let mut field = Field::new();
    for n in 0.. {
        if field.records.len() >= records {
            break;
        }
        life(&mut field, n);
    }
    field.records.truncate(records);
    field
}

fn life(field: &mut Field, n: u64) {
    let stays = n.is_multiple_of(32) && n < 256 * 32;
    let base = if stays { 2 * GIB + n / 32 * 4 * BLOCK } else { n % 128 * 8 * BLOCK };
    let extents = [(base + 2 * BLOCK, BLOCK), (base, BLOCK)];
    field.object_add(n, 2 * BLOCK);
    field.add(n, &extents);
    field.command(Opcode::GET_EVENT_RECORDS, vec![4]);
    if stays {
        field.command(Opcode::ADD_DC_RESPONSE, update(&extents));
        return field.clear_events();
    }
    match n % 8 {
        // The host takes none of it.
        1 => field.command(Opcode::ADD_DC_RESPONSE, update(&[])),
        // Withdrawn before the host has answered, which learns it then.
        2 => {
            force(field, n);
            field.command(Opcode::ADD_DC_RESPONSE, update(&extents));
            field.command(Opcode::ADD_DC_RESPONSE, update(&[]));
        }
        // Taken away.
        3 => {
            field.command(Opcode::ADD_DC_RESPONSE, update(&extents));
            force(field, n);
        }
        // Given back unasked, one after the other, the list read between.
        4 => {
            field.command(Opcode::ADD_DC_RESPONSE, update(&extents));
            field.command(Opcode::RELEASE_DC, update(&extents[..1]));
            field.command(Opcode::GET_DC_EXTENT_LIST, [64u32.to_le_bytes(), [0; 4]].concat());
            field.command(Opcode::RELEASE_DC, update(&extents[1..]));
        }
        _ => {
            field.command(Opcode::ADD_DC_RESPONSE, update(&extents));
            field.clear_events();
            field.release(n);
            field.command(Opcode::GET_EVENT_RECORDS, vec![4]);
            field.command(Opcode::RELEASE_DC, update(&extents));
        }
    }
    field.clear_events();
    field.take(Origin::Operator, Input::Backends(backends::Input::ObjectDel { id: format!("tm{n}") }));
}

fn force(field: &mut Field, n: u64) {
    let request = ReleaseRequest { removal: Removal::Forced, ..ReleaseRequest::by_tag(0, tag(n)) };
    field.take(Origin::Operator, Input::Extents(extents::Input::Release(request)));
}
