//! The facts alone, held to the whole record: who reads only them reads the same, and refuses the same.

use journal::record::{Facts, Record};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{FORM, Sample, samples};

/// The bodies of all sampled records.
fn bodies() -> Vec<Vec<u8>> {
    let records = samples().into_values().filter(|sample| matches!(sample, Sample::Record(_)));
    records.map(|sample| sample.to_bytes()).collect()
}

/// The facts of a body, or why there are none: those of the whole record, and those that are read alone.
fn read_both_ways(body: &[u8]) -> [Result<Facts, String>; 2] {
    let whole = Record::from_body(FORM, body).map(Facts::from);
    [whole, Facts::from_body(FORM, body)].map(|facts| facts.map_err(|error| error.to_string()))
}

/// What befalls a body.
#[derive(Clone, Debug)]
enum Harm {
    Overwritten(Index, u8),
    Removed(Index),
    Inserted(Index, u8),
    CutAt(Index),
}

impl Harm {
    fn befall(&self, body: &mut Vec<u8>) {
        if body.is_empty() {
            // The harm before it has left nothing.
            return;
        }
        match self {
            Self::Overwritten(at, byte) => *at.get_mut(body) = *byte,
            Self::Removed(at) => drop(body.remove(at.index(body.len()))),
            Self::Inserted(at, byte) => body.insert(at.index(body.len()), *byte),
            Self::CutAt(at) => body.truncate(at.index(body.len())),
        }
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    // Variants, lengths and option bytes are small.
    let byte = prop_oneof![0u8..24, any::<u8>()];
    prop_oneof![
        8 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Harm::Overwritten(at, byte)),
        1 => any::<Index>().prop_map(Harm::Removed),
        1 => (any::<Index>(), byte).prop_map(|(at, byte)| Harm::Inserted(at, byte)),
        1 => any::<Index>().prop_map(Harm::CutAt),
    ]
}

#[test]
fn the_facts_of_every_sample_are_those_of_its_record() {
    for body in bodies() {
        let [whole, alone] = read_both_ways(&body);
        assert!(whole.is_ok());
        assert_eq!(alone, whole);
    }
}

#[test]
fn every_sample_cut_or_overwritten_anywhere_is_read_alike() {
    for body in bodies() {
        for at in 0..body.len() {
            let [whole, alone] = read_both_ways(&body[..at]);
            assert!(whole.is_err() && alone == whole, "cut at {at}");
            for byte in [0, 1, 2, 0x80, 0xff] {
                let mut body = body.clone();
                body[at] = byte;
                let [whole, alone] = read_both_ways(&body);
                assert_eq!(alone, whole, "{byte} at {at}");
            }
        }
    }
}

/// A list that lies takes no memory before it is refused.
#[test]
fn a_list_that_takes_too_much_room_is_refused_by_its_length() {
    let Sample::Record(record) = &samples()["fact offered"] else { panic!("a record") };
    let mut body = record.to_bytes();
    // The ranges stand behind the backend.
    let at = body.windows(3).position(|window| window == b"tm1").expect("a backend") + 3;
    body[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let [whole, alone] = read_both_ways(&body);
    assert!(whole.as_ref().is_err_and(|error| error.contains("too much room")), "{whole:?}");
    assert_eq!(alone, whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn harmed_bodies_are_read_alike(of in any::<Index>(), harms in prop::collection::vec(harm(), 1..4)) {
        let mut body = of.get(&bodies()).clone();
        for harm in harms {
            harm.befall(&mut body);
        }
        let [whole, alone] = read_both_ways(&body);
        prop_assert_eq!(alone, whole);
    }
}
