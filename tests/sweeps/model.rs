//! What the table says of the bytes of one space: what they hold, and which of their bits take a write.

use crate::table::{hex, rows};

const TABLE: &str = include_str!("registers.txt");

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Widths {
    /// Memory space: accesses of 1, 2, 4 and 8 bytes.
    Memory,
    /// Configuration space: of 1, 2 and 4 bytes, never unaligned.
    Configuration,
}

/// The bytes of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) bytes: Vec<u8>,
    writable: Vec<u8>,
    /// Bits that do something by themselves.
    pub(crate) acts: Vec<u8>,
    /// Bytes that take writes of any width and alignment.
    memory: Vec<bool>,
    named: Vec<bool>,
    widths: Widths,
}

impl Model {
    /// A space of so many bytes at power-on.
    pub(crate) fn of(space: &str, len: usize, widths: Widths) -> Self {
        let zeros = || vec![0; len];
        let mut model = Self {
            bytes: zeros(),
            writable: zeros(),
            acts: zeros(),
            memory: vec![false; len],
            named: vec![false; len],
            widths,
        };
        let all = rows(TABLE).filter(|row| row[0] == space);
        assert!(all.map(|row| model.name(&row)).count() > 0, "no row is of {space}");
        model
    }

    fn name(&mut self, row: &[&str]) {
        let &[_, offset, len, access, power_on, writable, acts, register] = row else { panic!("{row:?}") };
        let (first, repeat) = offset.split_once('+').unwrap_or((offset, "0 x 1"));
        let (stride, count) = repeat.split_once(" x ").expect("stride x count");
        let len = hex(len) as usize;
        assert_eq!(access == "rw", !writable.is_empty(), "{register}: rw has writable bits");
        assert!(["ro", "rw", "w1c", "mem"].contains(&access), "{register}: {access}");
        for index in 0..count.parse().expect("a count") {
            let at = (hex(first) + index * hex(stride)) as usize;
            assert!(!self.named[at..at + len].contains(&true), "{register}: another row has it too");
            self.named[at..at + len].fill(true);
            self.memory[at..at + len].fill(access == "mem");
            for (column, to) in [(power_on, &mut self.bytes), (writable, &mut self.writable), (acts, &mut self.acts)] {
                let value = hex(column).to_le_bytes();
                let part = len.min(8);
                assert!(value[part..].iter().all(|byte| *byte == 0), "{register}: {column} is too long");
                to[at..at + part].copy_from_slice(&value[..part]);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Offset and length of each run of bytes that registers have, and of each that none has.
    pub(crate) fn runs(&self) -> Vec<(bool, usize, usize)> {
        let mut runs: Vec<(bool, usize, usize)> = Vec::new();
        for (at, named) in self.named.iter().enumerate() {
            let is_register = *named && !self.memory[at];
            match runs.last_mut() {
                Some((last, _, len)) if *last == is_register => *len += 1,
                _ => runs.push((is_register, at, 1)),
            }
        }
        runs
    }

    /// Takes every write away from these bytes.
    pub(crate) fn freeze(&mut self, offset: usize, len: usize) {
        self.writable[offset..offset + len].fill(0);
        self.memory[offset..offset + len].fill(false);
    }

    /// What an access makes of the space. Aligned writes of a width that the bus has change the writable bits of every
    /// register that they reach; every other write changes memory only.
    pub(crate) fn write(&mut self, offset: usize, from: &[u8]) {
        let is_aligned = offset.is_multiple_of(from.len());
        let is_narrow = self.widths == Widths::Memory || from.len() <= 4;
        for (at, byte) in (offset..self.len()).zip(from) {
            let writable = match (self.memory[at], is_aligned && is_narrow) {
                (true, _) => 0xff,
                (false, true) => self.writable[at],
                (false, false) => 0,
            };
            self.bytes[at] = self.bytes[at] & !writable | byte & writable;
        }
    }

    /// What an access reads; zeros behind the end.
    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        if self.widths == Widths::Configuration && (!offset.is_multiple_of(len) || len > 4) {
            return vec![0xff; len];
        }
        (offset..offset + len).map(|at| self.bytes.get(at).copied().unwrap_or(0)).collect()
    }
}
