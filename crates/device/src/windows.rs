//! The window mapper: HDM decoders, the pieces of backends behind accepted extents, and from both what is mapped where.
//!
//! ```text
//!  guest address ──decoder──▶ DPA ──piece──▶ backend + offset
//! ```
//!
//! Pieces come and go with accepted extents (the extent manager's records); decoders with the host's commits. What is
//! mapped is never stored: [`State::mappings`] derives it. A committed decoder decodes whether or not the global HDM
//! enable is set: the range registers of the DVSEC, its alternative, have size 0 here, and drivers written against QEMU
//! do not set it. Deliberately absent: host addresses and slots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::{Dpa, Hpa};

use crate::config::DeviceConfig;
use crate::decode::{DecodedRange, Granularity, Ways};
use crate::range::DpaRange;
use crate::shared::Shared;
use crate::stamp::Stamp;

/// HDM decoders of a device (CXL r4.0 8.2.4.20.1).
pub const DECODERS: usize = 10;

/// What a host asked of one decoder when it set the commit bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct DecoderFields {
    /// Base in guest-physical addresses.
    pub base: Hpa,
    /// Size in bytes.
    pub size_bytes: u64,
    /// DPA skip in bytes.
    pub skip_bytes: u64,
    /// The control register as written: interleave granularity 3:0 and ways 7:4, lock on commit 8.
    pub control: u32,
}

/// One decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Decoder {
    /// Not committed.
    #[default]
    Idle,
    /// The host asked for something that cannot be decoded.
    Failed,
    /// Committed.
    Committed {
        /// As the host programmed it.
        fields: DecoderFields,
        /// What it decodes; `None` for a decoder of size 0.
        range: Option<DecodedRange>,
        /// Where the DPA range of the next decoder begins, before its skip.
        dpa_end: Dpa,
    },
}

/// A piece of a backend behind an accepted range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The accepted range.
    pub range: DpaRange,
    /// The backend.
    pub backend: String,
    /// Where in the backend the piece begins, in bytes.
    pub offset_bytes: u64,
}

impl Piece {
    /// Whether neither its range nor its place in the backend wraps.
    fn is_sound(&self) -> bool {
        DpaRange::new(self.range.start, self.range.len_bytes).is_some()
            && self.offset_bytes.checked_add(self.range.len_bytes).is_some()
    }
}

/// The mapper's state for one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    decoders: [Decoder; DECODERS],
    hdm_control: u32,
    pieces: Shared<BTreeMap<Dpa, Piece>>,
}

/// All that the mapper's state is made of; what a decoder decodes follows from what the host asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The decoders, in their order.
    pub decoders: Vec<DecoderParts>,
    /// The HDM global control register.
    pub hdm_control: u32,
    /// The pieces behind accepted extents and static memory, by address.
    pub pieces: Vec<Piece>,
}

/// What a [`Decoder`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderParts {
    /// Not committed.
    Idle,
    /// The host asked for something that cannot be decoded.
    Failed,
    /// Committed.
    Committed {
        /// As the host programmed it.
        fields: DecoderFields,
        /// Where its DPA range begins.
        dpa: Dpa,
    },
}

/// What reaches the mapper itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Input {
    /// The HDM global control register was written.
    HdmGlobalControl {
        /// The value.
        value: u32,
    },
    /// A decoder's commit bit was set.
    DecoderCommit {
        /// Which.
        decoder: u8,
        /// The staged fields.
        fields: DecoderFields,
    },
    /// A decoder's commit bit was cleared.
    DecoderUncommit {
        /// Which.
        decoder: u8,
    },
}

/// What was decided to have happened to decoders and pieces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Fact {
    /// The HDM global control register has a new value.
    HdmGlobalControlSet {
        /// The value.
        value: u32,
    },
    /// A decoder decodes.
    DecoderCommitted {
        /// Which.
        decoder: u8,
        /// As programmed.
        fields: DecoderFields,
        /// Where its DPA range begins.
        dpa: Dpa,
    },
    /// A decoder could not be committed.
    DecoderFailed {
        /// Which.
        decoder: u8,
    },
    /// A decoder decodes no more.
    DecoderUncommitted {
        /// Which.
        decoder: u8,
    },
    /// Pieces stand behind accepted extents.
    Mapped {
        /// The pieces.
        pieces: Vec<Piece>,
    },
    /// Ranges have nothing behind them any more.
    Unmapped {
        /// The ranges, each inside mapped pieces.
        ranges: Vec<DpaRange>,
    },
    /// Power-on state of the registers; pieces stay.
    Reset,
}

/// What the extent manager asks the mapper to prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// Put pieces behind ranges that are about to be accepted.
    Map(Vec<Piece>),
    /// Take what is behind ranges away.
    Unmap(Vec<DpaRange>),
    /// Put the registers into their power-on state.
    Reset,
    /// Take everything away: the device leaves.
    Unplug,
}

/// The mapper's answer to [`Prepare`]: the facts that commit would make true.
pub type Prepared = Result<Vec<Fact>, crate::refusal::Refusal>;

/// A stretch of guest-physical addresses that shows a backend's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Where the guest sees it.
    pub hpa: Hpa,
    /// The device addresses it shows.
    pub range: DpaRange,
    /// The backend behind.
    pub backend: String,
    /// Where in the backend it begins, in bytes.
    pub offset_bytes: u64,
}

/// A [`Mapping`] by its piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    /// Where the guest sees it.
    pub(crate) hpa: Hpa,
    /// The device addresses it shows.
    pub(crate) range: DpaRange,
    piece: &'a Piece,
}

impl Shown<'_> {
    fn mapping(&self) -> Mapping {
        let Self { hpa, range, piece: Piece { range: whole, backend, offset_bytes } } = *self;
        Mapping { hpa, range, backend: backend.clone(), offset_bytes: offset_bytes + (range.start.0 - whole.start.0) }
    }
}

impl State {
    /// The mapper of a device as it is at power-on: its static memory is there, undecoded.
    pub fn new(config: &DeviceConfig) -> Self {
        let fixed = config.static_memory.as_ref().map(|memory| {
            let range = DpaRange { start: Dpa(0), len_bytes: memory.len_bytes };
            (range.start, Piece { range, backend: memory.backend.clone(), offset_bytes: 0 })
        });
        Self { pieces: BTreeMap::from_iter(fixed).into(), ..Self::default() }
    }

    /// What the state is made of.
    pub fn parts(&self) -> Parts {
        let Self { decoders, hdm_control, pieces } = self;
        let part = |decoder: &Decoder| match *decoder {
            Decoder::Idle => DecoderParts::Idle,
            Decoder::Failed => DecoderParts::Failed,
            // A decoder of size 0 ends where it begins.
            Decoder::Committed { fields, range, dpa_end } => {
                DecoderParts::Committed { fields, dpa: range.map_or(dpa_end, |range| range.dpa) }
            }
        };
        Parts {
            decoders: decoders.iter().map(part).collect(),
            hdm_control: *hdm_control,
            pieces: pieces.values().cloned().collect(),
        }
    }

    /// The state that is made of these parts, which may be from a file.
    ///
    /// # Errors
    /// Where no state is.
    pub fn from_parts(config: &DeviceConfig, parts: Parts) -> Result<Self, String> {
        let Parts { decoders, hdm_control, pieces } = parts;
        if decoders.len() != DECODERS {
            return Err(format!("{} decoders: a device has {DECODERS}", decoders.len()));
        }
        let mut state = Self { hdm_control, ..Self::default() };
        for (decoder, parts) in (0u8..).zip(decoders) {
            let fact = match parts {
                DecoderParts::Idle => continue,
                DecoderParts::Failed => Fact::DecoderFailed { decoder },
                DecoderParts::Committed { fields, dpa } => Fact::DecoderCommitted { decoder, fields, dpa },
            };
            state.admit(&fact)?;
            state.evolve(Stamp::default(), &fact);
        }
        let mut end = 0;
        for piece in &pieces {
            let is_next = end <= piece.range.start.0 && piece.range.end() <= config.dpa_end();
            if !is_next || !piece.is_sound() {
                return Err(format!("{piece:?} is out of the device, or out of order"));
            }
            end = piece.range.end();
        }
        // In order and apart: at once, because there may be very many.
        state.pieces = BTreeMap::from_iter(pieces.into_iter().map(|piece| (piece.range.start, piece))).into();
        Ok(state)
    }

    /// How many decoders are committed.
    pub fn committed(&self) -> u32 {
        let committed = self.decoders.iter().filter(|decoder| matches!(decoder, Decoder::Committed { .. }));
        committed.count() as u32
    }

    /// The decoders.
    pub fn decoders(&self) -> &[Decoder; DECODERS] {
        &self.decoders
    }

    /// The HDM global control register.
    pub fn hdm_control(&self) -> u32 {
        self.hdm_control
    }

    /// The pieces behind accepted extents, by address.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.values()
    }

    /// The piece that begins at an address.
    pub fn piece(&self, start: Dpa) -> Option<&Piece> {
        self.pieces.get(&start)
    }

    /// What the committed decoders decode, in their order.
    pub fn decoded(&self) -> Vec<DecodedRange> {
        self.decoders
            .iter()
            .filter_map(|decoder| match decoder {
                Decoder::Committed { range, .. } => *range,
                _ => None,
            })
            .collect()
    }

    /// What is mapped where: every piece through every decoder that does not interleave. (An interleaved decoder
    /// shows no contiguous stretch; it is resolved access by access.)
    pub fn mappings(&self) -> Vec<Mapping> {
        self.shown_of(|| self.pieces()).iter().map(Shown::mapping).collect()
    }

    /// As [`State::mappings`], of some of the pieces.
    pub(crate) fn shown_of<'a, P: Iterator<Item = &'a Piece>>(&self, pieces: impl Fn() -> P) -> Vec<Shown<'a>> {
        let mut shown = Vec::new();
        for decoded in self.decoded().into_iter().filter(|decoded| decoded.ways.count() == 1) {
            let Some(window) = DpaRange::new(decoded.dpa, decoded.size_bytes) else { continue };
            for piece in pieces() {
                let Some(range) = piece.range.intersection(window) else { continue };
                let Some(hpa) = decoded.hpa_of(range.start) else { continue };
                shown.push(Shown { hpa, range, piece });
            }
        }
        shown.sort_unstable_by_key(|shown| shown.hpa);
        shown
    }

    /// Where the guest sees the beginning of what each decoder shows of a range; nowhere without a decoder.
    pub fn hpas_of(&self, range: DpaRange) -> Vec<Hpa> {
        let shown = |decoded: DecodedRange| {
            let part = range.intersection(DpaRange::new(decoded.dpa, decoded.dpa_len_bytes())?)?;
            decoded.hpa_of(part.start)
        };
        self.decoded().into_iter().filter_map(shown).collect()
    }

    /// Answers what the extent manager wants to do, and changes nothing.
    pub fn prepare(&self, prepare: &Prepare) -> Prepared {
        Ok(vec![match prepare {
            Prepare::Map(pieces) => Fact::Mapped { pieces: pieces.clone() },
            Prepare::Unmap(ranges) => Fact::Unmapped { ranges: ranges.clone() },
            Prepare::Reset => Fact::Reset,
            Prepare::Unplug => return Ok(vec![self.nothing_mapped(), Fact::Reset]),
        }])
    }

    fn nothing_mapped(&self) -> Fact {
        Fact::Unmapped { ranges: self.pieces.values().map(|piece| piece.range).collect() }
    }

    /// Decides what reaches the mapper itself.
    pub fn decide(&self, input: &Input) -> Vec<Fact> {
        vec![match *input {
            Input::HdmGlobalControl { value } => Fact::HdmGlobalControlSet { value: value & 0b11 },
            Input::DecoderUncommit { decoder } => Fact::DecoderUncommitted { decoder },
            Input::DecoderCommit { decoder, fields } => match self.decodable(decoder, fields) {
                Some(dpa) => Fact::DecoderCommitted { decoder, fields, dpa },
                None => Fact::DecoderFailed { decoder },
            },
        }]
    }

    /// Where the DPA range of a decoder would begin, or `None` if it cannot be committed: an earlier decoder is not
    /// committed, the interleave is none of the standard's, an address wraps, or two decoders claim one address. The
    /// standard obliges to these checks only with lock on commit; a host that passes them without is right as well.
    fn decodable(&self, decoder: u8, fields: DecoderFields) -> Option<Dpa> {
        let earlier = self.decoders.get(..usize::from(decoder))?;
        let mut dpa_end = Dpa(0);
        for other in earlier {
            let Decoder::Committed { dpa_end: end, .. } = other else { return None };
            dpa_end = *end;
        }
        let dpa = dpa_end.checked_add(fields.skip_bytes)?;
        let range = decoded_range(fields, dpa)?;
        dpa.checked_add(fields.size_bytes)?;
        let hpa_end = fields.base.checked_add(fields.size_bytes)?;
        let claimed = |other: &DecodedRange| other.hpa < hpa_end && fields.base.0 < other.hpa.0 + other.size_bytes;
        let is_claimed = range.is_some() && self.decoded_but(decoder).iter().any(claimed);
        (!is_claimed).then_some(dpa)
    }

    fn decoded_but(&self, decoder: u8) -> Vec<DecodedRange> {
        let others = (0u8..).zip(&self.decoders).filter(|(index, _)| *index != decoder);
        others
            .filter_map(|(_, other)| match other {
                Decoder::Committed { range, .. } => *range,
                _ => None,
            })
            .collect()
    }

    /// Whether a fact from a file can be true of this state; if not, why.
    pub fn admit(&self, fact: &Fact) -> Result<(), String> {
        let fits = match fact {
            Fact::DecoderCommitted { decoder, fields, dpa } => {
                usize::from(*decoder) < DECODERS
                    && decoded_range(*fields, *dpa).is_some()
                    && dpa.checked_add(fields.size_bytes).is_some()
                    && fields.base.checked_add(fields.size_bytes).is_some()
            }
            Fact::DecoderFailed { decoder } | Fact::DecoderUncommitted { decoder } => usize::from(*decoder) < DECODERS,
            Fact::Mapped { pieces } => {
                pieces.iter().all(|piece| piece.is_sound() && self.overlapping(piece.range).next().is_none())
            }
            Fact::Unmapped { ranges } => {
                ranges.iter().all(|range| DpaRange::new(range.start, range.len_bytes).is_some() && self.covers(*range))
            }
            Fact::HdmGlobalControlSet { .. } | Fact::Reset => true,
        };
        if fits { Ok(()) } else { Err(format!("{fact:?} does not fit the window")) }
    }

    /// The pieces that share an address with `range`, by address.
    pub(crate) fn overlapping(&self, range: DpaRange) -> impl Iterator<Item = &Piece> {
        let before = self.pieces.range(..range.start).next_back();
        let inside = self.pieces.range(range.start..Dpa(range.end()));
        before.into_iter().chain(inside).map(|(_, piece)| piece).filter(move |piece| piece.range.overlaps(range))
    }

    fn covers(&self, range: DpaRange) -> bool {
        let covered = self.overlapping(range).filter_map(|piece| piece.range.intersection(range));
        covered.map(|part| part.len_bytes).sum::<u64>() == range.len_bytes
    }

    /// Makes a fact true.
    pub fn evolve(&mut self, _stamp: Stamp, fact: &Fact) {
        match fact {
            Fact::HdmGlobalControlSet { value } => self.hdm_control = *value,
            Fact::DecoderCommitted { decoder, fields, dpa } => {
                let range = decoded_range(*fields, *dpa).flatten();
                let dpa_len_bytes = range.map_or(0, |range| range.dpa_len_bytes());
                let dpa_end = Dpa(dpa.0.saturating_add(dpa_len_bytes));
                self.set(*decoder, Decoder::Committed { fields: *fields, range, dpa_end });
            }
            Fact::DecoderFailed { decoder } => self.set(*decoder, Decoder::Failed),
            Fact::DecoderUncommitted { decoder } => self.set(*decoder, Decoder::Idle),
            Fact::Mapped { pieces } => {
                self.pieces.extend(pieces.iter().map(|piece| (piece.range.start, piece.clone())));
            }
            Fact::Unmapped { ranges } => ranges.iter().for_each(|range| self.unmap(*range)),
            Fact::Reset => {
                self.decoders = [Decoder::Idle; DECODERS];
                self.hdm_control = 0;
            }
        }
    }

    fn set(&mut self, decoder: u8, to: Decoder) {
        if let Some(decoder) = self.decoders.get_mut(usize::from(decoder)) {
            *decoder = to;
        }
    }

    fn first_overlapping(&self, range: DpaRange) -> Option<Dpa> {
        self.overlapping(range).next().map(|piece| piece.range.start)
    }

    fn unmap(&mut self, range: DpaRange) {
        // What is left of a piece overlaps the range no more.
        while let Some(start) = self.first_overlapping(range) {
            let Some(piece) = self.pieces.remove(&start) else { return };
            for rest in [
                DpaRange::between(piece.range.start.0, range.start.0),
                DpaRange::between(range.end(), piece.range.end()),
            ] {
                let Some(rest) = rest else { continue };
                let offset_bytes = piece.offset_bytes + (rest.start.0 - piece.range.start.0);
                self.pieces.insert(rest.start, Piece { range: rest, backend: piece.backend.clone(), offset_bytes });
            }
        }
    }
}

/// What a decoder with these fields decodes: `Some(None)` for size 0, which is legal, `None` for what is no interleave
/// of the standard.
fn decoded_range(fields: DecoderFields, dpa: Dpa) -> Option<Option<DecodedRange>> {
    let granularity = Granularity::from_code((fields.control & 0xf) as u8)?;
    let ways = Ways::from_code((fields.control >> 4 & 0xf) as u8)?;
    if !fields.size_bytes.is_multiple_of(u64::from(ways.count())) {
        return None;
    }
    let range = DecodedRange { hpa: fields.base, size_bytes: fields.size_bytes, dpa, ways, granularity };
    Some((fields.size_bytes > 0).then_some(range))
}
