//! Form 1, held to its bytes: `bodies.hex` has a body for every variant of everything that it stores, and never changes.
//!
//! A body that reads differently, or a value that is written differently, breaks journals that are out in the world. A
//! change of the form is a form of its own, with a file of its own.

mod coverage;
mod facts;
mod records;
mod refusals;
mod states;

use std::collections::BTreeMap;

use journal::form::{KEYFRAME_VERSION, Keyframe};
use journal::record::{Genesis, Record};
use journal::{Recovered, Stored};

const FORM: u16 = 1;
const FROZEN: &str = include_str!("bodies.hex");

/// Something that has a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sample {
    Genesis(Genesis),
    Record(Box<Record>),
    Keyframe(Keyframe),
}

impl Sample {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Genesis(genesis) => genesis.to_bytes(),
            Self::Record(record) => record.to_bytes(),
            Self::Keyframe(keyframe) => keyframe.to_bytes(),
        }
    }

    /// What a body of form 1 says, if it is of the same kind.
    fn read(&self, body: &[u8]) -> Self {
        match self {
            Self::Genesis(_) => {
                let (genesis, records, torn) = (body.to_vec(), Vec::new(), None);
                let recovered =
                    Recovered { genesis, genesis_version: FORM, base: None, records, last: device::Seq(0), torn };
                Self::Genesis(Genesis::of(&recovered).expect("a genesis"))
            }
            Self::Record(record) => {
                let stored = Stored { seq: record.stamp.seq, version: FORM, body: body.to_vec() };
                Self::Record(Box::new(Record::from_stored(&stored).expect("a record")))
            }
            Self::Keyframe(_) => Self::Keyframe(Keyframe::from_stored(FORM, body).expect("a keyframe")),
        }
    }
}

/// Every sample, by a name that never changes.
fn samples() -> BTreeMap<String, Sample> {
    let mut named = BTreeMap::new();
    for (name, sample) in records::samples().into_iter().chain(refusals::samples()).chain(states::samples()) {
        assert!(named.insert(name.clone(), sample).is_none(), "two samples are called {name}");
    }
    named
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn frozen() -> BTreeMap<&'static str, &'static str> {
    FROZEN.lines().map(|line| line.split_once(": ").expect("a name and a body")).collect()
}

#[test]
fn bodies_are_written_as_they_always_were() {
    let frozen = frozen();
    let mut unknown = String::new();
    for (name, sample) in samples() {
        let body = hex(&sample.to_bytes());
        match frozen.get(name.as_str()) {
            Some(expected) => assert_eq!(&body, expected, "{name} is written differently"),
            None => unknown.push_str(&format!("{name}: {body}\n")),
        }
    }
    assert!(unknown.is_empty(), "samples that are not in bodies.hex yet:\n{unknown}");
}

#[test]
fn bodies_are_read_as_they_always_were() {
    let samples = samples();
    for (name, body) in frozen() {
        let sample = samples.get(name).unwrap_or_else(|| panic!("{name} was a sample: samples stay"));
        assert_eq!(&sample.read(&unhex(body)), sample, "{name} reads differently");
    }
}

#[test]
fn there_is_a_body_of_every_variant() {
    let mut seen = coverage::Seen::default();
    samples().values().for_each(|sample| seen.look_at(sample));
    assert_eq!(seen.missing(), Vec::<&str>::new(), "no sample has these");
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    for (name, sample) in samples() {
        let body = sample.to_bytes();
        for len in 0..body.len() {
            let is_refused = match &sample {
                Sample::Genesis(_) => {
                    let (genesis, records, torn) = (body[..len].to_vec(), Vec::new(), None);
                    let recovered =
                        Recovered { genesis, genesis_version: FORM, base: None, records, last: device::Seq(0), torn };
                    Genesis::of(&recovered).is_err()
                }
                Sample::Record(_) => Record::from_bytes(&body[..len]).is_err(),
                Sample::Keyframe(_) => Keyframe::from_stored(KEYFRAME_VERSION, &body[..len]).is_err(),
            };
            assert!(is_refused, "{name} cut to {len} of {} bytes", body.len());
        }
    }
}

/// Values of the form that no value of the device is.
#[test]
fn what_is_no_value_is_refused_with_its_name() {
    let mut record = match &samples()["reply command"] {
        Sample::Record(record) => record.to_bytes(),
        other => panic!("{other:?} is no record"),
    };
    // The return code is followed by the length of the payload and its four bytes.
    let at = record.len() - 4 - 8 - 2;
    record[at..at + 2].copy_from_slice(&0x21u16.to_le_bytes());
    let refused = Record::from_bytes(&record).expect_err("no return code").to_string();
    assert_eq!(refused, "the return code of the body: 0x21 is no return code of the standard");

    let mut plug = match &samples()["fact device-added tagged"] {
        Sample::Record(record) => record.to_bytes(),
        other => panic!("{other:?} is no record"),
    };
    let len_and_block = [0x2000_0000u64.to_le_bytes(), 0x20_0000u64.to_le_bytes()].concat();
    let block = plug.windows(16).position(|window| window == len_and_block).expect("a region") + 8;
    plug[block] = 1;
    let refused = Record::from_bytes(&plug).expect_err("no block size").to_string();
    assert!(refused.starts_with("the block size of the body: 2097153 is no block size"), "{refused}");
}
