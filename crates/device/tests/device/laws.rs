//! Any mixture of operators and hosts, hostile ones too, keeps every law; the rig checks them after each record.

use crate::rig::{MIB, Rig, tag, update};
use proptest::prelude::*;
use wire::Opcode;

/// One thing that somebody does. Places and lengths are small numbers of blocks, so that they meet.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    ObjectAdd { n: u8, blocks: u64 },
    ObjectDel { n: u8 },
    Add { device: u8, region: u8, n: u8, extents: Vec<(u64, u64)> },
    Release { n: u8, forced: bool },
    ReleaseRange { start: u64, blocks: u64, forced: bool },
    Answer { skip: usize, take: usize, halves: bool, more: bool },
    AnswerWith { ranges: Vec<(u64, u64)>, flags: u8 },
    GiveBack { ranges: Vec<(u64, u64)>, flags: u8 },
    GiveBackAll,
    Clear,
    Command { opcode: u16, payload: Vec<u8> },
    Reset,
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0u64..24, 0u64..6), 0..4)
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let opcodes = prop::sample::select(vec![
        0x0100, 0x0101, 0x0102, 0x0103, 0x0300, 0x0301, 0x0400, 0x0401, 0x4000, 0x4800, 0x4801, 0x4802, 0x4803, 0x5600,
        0xffff,
    ]);
    prop_oneof![
        4 => (0u8..6, 1u64..9).prop_map(|(n, blocks)| Step::ObjectAdd { n, blocks }),
        1 => (0u8..6).prop_map(|n| Step::ObjectDel { n }),
        8 => (0u8..2, 0u8..2, 0u8..6, ranges())
            .prop_map(|(device, region, n, extents)| Step::Add { device, region, n, extents }),
        3 => (0u8..6, any::<bool>()).prop_map(|(n, forced)| Step::Release { n, forced }),
        2 => (0u64..24, 1u64..6, any::<bool>())
            .prop_map(|(start, blocks, forced)| Step::ReleaseRange { start, blocks, forced }),
        6 => (0usize..2, 0usize..4, any::<bool>(), any::<bool>())
            .prop_map(|(skip, take, halves, more)| Step::Answer { skip, take, halves, more }),
        2 => (ranges(), 0u8..2).prop_map(|(ranges, flags)| Step::AnswerWith { ranges, flags }),
        3 => (ranges(), 0u8..2).prop_map(|(ranges, flags)| Step::GiveBack { ranges, flags }),
        1 => Just(Step::GiveBackAll),
        2 => Just(Step::Clear),
        2 => (opcodes, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(opcode, payload)| Step::Command { opcode, payload }),
        1 => Just(Step::Reset),
    ]
}

const BLOCK: u64 = 2 * MIB;

fn in_bytes(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    ranges.iter().map(|(start, blocks)| (start * BLOCK, blocks * BLOCK)).collect()
}

pub(crate) fn take(rig: &mut Rig, step: &Step) {
    match step {
        Step::ObjectAdd { n, blocks } => drop(rig.object_add(&format!("tm{n}"), tag(*n), blocks * BLOCK)),
        Step::ObjectDel { n } => drop(rig.object_del(&format!("tm{n}"))),
        Step::Add { device, region, n, extents } => drop(rig.add_on(*device, *region, tag(*n), &in_bytes(extents))),
        Step::Release { n, forced: false } => drop(rig.release(tag(*n))),
        Step::Release { n, forced: true } => drop(rig.force(tag(*n))),
        Step::ReleaseRange { start, blocks, forced } => {
            rig.release_with(|request| {
                request.policy = device::extents::RemovalPolicy::Prescriptive;
                if *forced {
                    request.removal = device::extents::Removal::Forced;
                }
                let (offset, len_bytes) = (start * BLOCK, blocks * BLOCK);
                request.extents = vec![device::extents::RegionRange { offset, len_bytes }];
            });
        }
        Step::Answer { skip, take, halves, more } => {
            let head = rig.device(0).extents.offers().head();
            let mut ranges: Vec<_> = head
                .into_iter()
                .flat_map(|offer| &offer.extents)
                .skip(*skip)
                .take(*take)
                .map(|range| (range.start.0, range.len_bytes))
                .collect();
            if *halves {
                ranges.iter_mut().for_each(|range| range.1 = (range.1 / 2).next_multiple_of(BLOCK));
            }
            rig.command(Opcode::ADD_DC_RESPONSE, update(&ranges, u8::from(*more)));
        }
        Step::AnswerWith { ranges, flags } => {
            rig.command(Opcode::ADD_DC_RESPONSE, update(&in_bytes(ranges), *flags));
        }
        Step::GiveBack { ranges, flags } => {
            rig.command(Opcode::RELEASE_DC, update(&in_bytes(ranges), *flags));
        }
        Step::GiveBackAll => {
            let held: Vec<_> = rig.list().into_iter().map(|(start, len, _)| (start, len)).collect();
            rig.command(Opcode::RELEASE_DC, update(&held, 0));
        }
        Step::Clear => rig.clear_events(),
        Step::Command { opcode, payload } => drop(rig.command(Opcode(*opcode), payload.clone())),
        Step::Reset => rig.reset(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_law_holds_after_every_record(steps in prop::collection::vec(step(), 1..60)) {
        let mut rig = Rig::new(2);
        for step in &steps {
            take(&mut rig, step);
        }
    }
}
