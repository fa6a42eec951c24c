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

/// A unit of time, as people write it behind a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
    /// Minutes.
    Min,
    /// Hours.
    H,
}

impl TimeUnit {
    /// How each is spelled; one that ends like another stands before it.
    const SPELLED: [(&str, Self); 7] = [
        ("ns", Self::Ns),
        ("us", Self::Us),
        ("ms", Self::Ms),
        ("s", Self::S),
        ("min", Self::Min),
        ("m", Self::Min),
        ("h", Self::H),
    ];

    fn ns(self) -> u64 {
        match self {
            Self::Ns => 1,
            Self::Us => 1_000,
            Self::Ms => 1_000_000,
            Self::S => 1_000_000_000,
            Self::Min => 60 * 1_000_000_000,
            Self::H => 3_600 * 1_000_000_000,
        }
    }

    /// A time in this unit as a person would ask for it. It is rounded up, so that what is there then is there at the time
    /// that it says, too.
    pub(crate) fn told(self, time_ns: u64) -> String {
        const DECIMALS: usize = 6;
        let one = 10u128.pow(DECIMALS as u32);
        let parts = (u128::from(time_ns) * one).div_ceil(u128::from(self.ns()));
        let number = format!("{}.{:0DECIMALS$}", parts / one, parts % one);
        let number = number.trim_end_matches('0').trim_end_matches('.');
        let unit = if self == Self::Min {
            "min"
        } else {
            Self::SPELLED.iter().find(|(_, unit)| *unit == self).map_or("", |(name, _)| name)
        };
        format!("{number}{unit}")
    }
}

/// A position: after a record, at a time of the VM clock, or where a law is broken first.
#[derive(Clone, Copy)]
pub enum Position {
    /// After this record.
    Record(Seq),
    /// After the last record that is not later; and the unit in which that was asked.
    Time(VmTime, TimeUnit),
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
    #[error(
        "'{0}' is no position: a record (#312), a time (2h, 5m, 1.5s, 250ms, 30us, 10ns) or a law (law:counters-match)"
    )]
    Position(String),
    /// There is no such law.
    #[error(transparent)]
    Law(#[from] NoSuchLaw),
}

impl std::fmt::Debug for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(seq) => write!(f, "Record({seq})"),
            Self::Time(time, unit) => write!(f, "Time({})", unit.told(time.0)),
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
        time(text).map(|(time, unit)| Self::Time(time, unit)).ok_or_else(|| PositionError::Position(text.to_owned()))
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
            Self::Time(time, unit) => history.at_time(time).map_err(|error| match error {
                HistoryError::TooEarly { asked_ns, first_ns, first, .. } => {
                    HistoryError::TooEarly { asked_ns, first_ns, first, unit }
                }
                error => error,
            }),
            Self::Law(law) => {
                let records = history.records().len() as u64;
                let broken = history.first_broken(law)?;
                broken.map(|(seq, _)| seq).ok_or(HistoryError::Holds { law: law.name, records })
            }
        }
    }
}

/// A number with a unit and at most nine digits behind its point.
fn time(text: &str) -> Option<(VmTime, TimeUnit)> {
    let unit = |(name, unit): (&str, TimeUnit)| Some((text.strip_suffix(name)?, unit));
    let (number, unit) = TimeUnit::SPELLED.into_iter().find_map(unit)?;
    let unit_ns = unit.ns();
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) || part.len() > 9 {
        return None;
    }
    let whole_ns = whole.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    let part_ns = u128::from(part.parse::<u64>().ok()?) * u128::from(unit_ns) / 10u128.pow(part.len() as u32);
    let time_ns = whole_ns.checked_add(u64::try_from(part_ns).ok()?)?;
    Some((VmTime(time_ns), unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen as: "'5m' is no position", of a VM that had run for hours.
    #[test]
    fn minutes_and_hours_are_times() {
        for (text, s) in [("5m", 300), ("5min", 300), ("1h", 3_600), ("0.5h", 1_800), ("1.5m", 90)] {
            let time = text.parse();
            assert!(
                matches!(time, Ok(Position::Time(VmTime(time), _)) if time == s * 1_000_000_000),
                "{text}: {time:?}"
            );
        }
    }

    #[test]
    fn a_time_is_told_in_its_unit_and_rounded_up() {
        let told = |time_ns| {
            [TimeUnit::Ns, TimeUnit::Ms, TimeUnit::S, TimeUnit::Min, TimeUnit::H].map(|unit| unit.told(time_ns))
        };
        assert_eq!(told(90_000_000_000), ["90000000000ns", "90000ms", "90s", "1.5min", "0.025h"]);
        assert_eq!(told(1), ["1ns", "0.000001ms", "0.000001s", "0.000001min", "0.000001h"]);
        assert_eq!(told(0), ["0ns", "0ms", "0s", "0min", "0h"]);
        let text = TimeUnit::S.told(1_234_567_890);
        assert!(matches!(text.parse(), Ok(Position::Time(time, _)) if time >= VmTime(1_234_567_890)), "{text}");
    }

    #[test]
    fn records_and_times_are_told_apart_by_their_unit() {
        for text in ["312", "#312"] {
            assert!(matches!(text.parse(), Ok(Position::Record(Seq(312)))), "{text}");
        }
        for (text, ns) in
            [("10ns", 10), ("30us", 30_000), ("1.5ms", 1_500_000), ("2s", 2_000_000_000), ("0.1s", 100_000_000)]
        {
            assert!(matches!(text.parse(), Ok(Position::Time(VmTime(time), _)) if time == ns), "{text}");
        }
        for text in [
            "",
            "#",
            "-1",
            "1.s",
            ".5s",
            "5d",
            "5 m",
            "99999999h",
            "99999999999999999999s",
            "law:none",
            "1.0000000001s",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
