//! A position in a journal, as people name it.

use std::str::FromStr;

use device::laws::{Law, NoSuchLaw};
use device::{Seq, VmTime};
use thiserror::Error;

use crate::history::{History, HistoryError};

/// A record, `#312` or `312`.
///
/// # Errors
/// If it is none.
pub fn parse_seq(text: &str) -> Result<Seq, PositionError> {
    let number = text.strip_prefix('#').unwrap_or(text).parse();
    number.map(Seq).map_err(|_| PositionError::Record(text.to_owned()))
}

/// A position: after a record, at a time of the VM clock, or where a law is broken first.
#[derive(Clone, Copy)]
pub enum Position {
    /// After this record.
    Record(Seq),
    /// After the last record that is not later.
    Time(VmTime),
    /// After the first record that breaks the law.
    Law(&'static Law),
}

/// A text that names no position.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PositionError {
    /// It is no record.
    #[error("'{0}' is no record: a number, such as #312 or 312")]
    Record(String),
    /// It is no position.
    #[error("'{0}' is no position: a record (#312), a time (1.5s, 250ms, 30us, 10ns) or a law (law:counters-match)")]
    Position(String),
    /// There is no such law.
    #[error(transparent)]
    Law(#[from] NoSuchLaw),
}

impl std::fmt::Debug for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(seq) => write!(f, "Record({seq})"),
            Self::Time(time) => write!(f, "Time({} ns)", time.0),
            Self::Law(law) => write!(f, "Law({})", law.name),
        }
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        if let Some(name) = text.strip_prefix("law:") {
            return Ok(Self::Law(Law::named(name)?));
        }
        if let Ok(seq) = parse_seq(text) {
            return Ok(Self::Record(seq));
        }
        time(text).map(Self::Time).ok_or_else(|| PositionError::Position(text.to_owned()))
    }
}

impl Position {
    /// The record after which this position is.
    ///
    /// # Errors
    /// If the journal has no such position.
    pub fn of(self, history: &History) -> Result<Seq, HistoryError> {
        match self {
            Self::Record(seq) => history.check_position(seq).map(|()| seq),
            Self::Time(time) => history.at_time(time),
            Self::Law(law) => {
                let records = history.records().len() as u64;
                let broken = history.first_broken(law)?;
                broken.map(|(seq, _)| seq).ok_or(HistoryError::Holds { law: law.name, records })
            }
        }
    }
}

/// A number with a unit and at most nine digits behind its point.
fn time(text: &str) -> Option<VmTime> {
    let units = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000u64)];
    let (number, unit_ns) = units.into_iter().find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, ns)))?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 9 {
        return None;
    }
    let whole_ns = whole.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    let part_ns = u128::from(part.parse::<u64>().ok()?) * u128::from(unit_ns) / 10u128.pow(part.len() as u32);
    whole_ns.checked_add(u64::try_from(part_ns).ok()?).map(VmTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_times_are_told_apart_by_their_unit() {
        for text in ["312", "#312"] {
            assert!(matches!(text.parse(), Ok(Position::Record(Seq(312)))), "{text}");
        }
        for (text, ns) in
            [("10ns", 10), ("30us", 30_000), ("1.5ms", 1_500_000), ("2s", 2_000_000_000), ("0.1s", 100_000_000)]
        {
            assert!(matches!(text.parse(), Ok(Position::Time(VmTime(time))) if time == ns), "{text}");
        }
        for text in ["", "#", "-1", "1.s", ".5s", "5m", "99999999999999999999s", "law:none", "1.0000000001s"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
