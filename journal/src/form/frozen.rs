//! Frozen types: how a value of today stands in a body for ever, and how it comes out of one.
//!
//! ```text
//!  device type ──of, every field named──▶ frozen type ──codec──▶ body
//!  device type ◀─────────read, every field named─────────── body
//! ```
//!
//! A table of [`frozen!`] names every variant and every field, in the order in which they stand in a body. Where a
//! device type gets another one, the table no longer compiles: the next form takes it in, and whoever makes that form
//! says what it is in a body of this one. The same tables say how to pass over a value that nobody asks for ([`Passed`]).
//! Deliberately absent: names in bodies, and defaults for what is not there.

use std::collections::BTreeMap;

use device::config::DeviceIndex;
use device::{Seq, VmTime};
use wire::{BlockSize, Dpa, Hpa, Opcode, ReturnCode, Tag};

use crate::codec::{CodecError, Reader};

/// A frozen type of which a value can be passed over: nothing is kept of it, and all of it is looked at.
pub(super) trait Passed {
    /// Reads past a value. `None` where it is none, or where only reading it tells.
    fn pass(reader: &mut Reader<'_>) -> Option<()>;
}

/// The frozen type of a value.
pub(super) trait Frozen<T>: Sized {
    /// What a body holds of a value.
    fn of(value: &T) -> Self;

    /// The value that stands next in a body. `None` where none does that its type admits, of which the reader knows why.
    fn read(reader: &mut Reader<'_>) -> Option<T>;
}

/// Makes frozen types, one for each line of the table, with both conversions.
///
/// The order of variants and fields is the form: it never changes. Variants are numbered from 0, in their order. Their
/// fields have no names in the frozen type: the codec's derive does not find those of a variant that a macro makes.
macro_rules! frozen {
    () => {};
    (
        $(#[$doc:meta])*
        struct $name:ident of $live:ty { $($field:ident: $form:ty),+ $(,)? }
        $($rest:tt)*
    ) => {
        $(#[$doc])*
        #[derive(bincode::Encode)]
        pub(in crate::form) struct $name { $($field: $form),+ }

        impl $crate::form::frozen::Passed for $name {
            #[inline]
            fn pass(reader: &mut $crate::codec::Reader<'_>) -> Option<()> {
                $(<$form as $crate::form::frozen::Passed>::pass(reader)?;)+
                Some(())
            }
        }

        impl $crate::form::frozen::Frozen<$live> for $name {
            fn of(value: &$live) -> Self {
                type Live = $live;
                let Live { $($field),+ } = value;
                Self { $($field: $crate::form::frozen::Frozen::of($field)),+ }
            }

            #[inline]
            fn read(reader: &mut $crate::codec::Reader<'_>) -> Option<$live> {
                type Live = $live;
                Some(Live { $($field: <$form as $crate::form::frozen::Frozen<_>>::read(reader)?),+ })
            }
        }

        $crate::form::frozen::frozen! { $($rest)* }
    };
    (
        $(#[$doc:meta])*
        enum $name:ident of $live:ty {
            $($variant:ident $(($($item:ident: $inner:ty),+))? $({ $($field:ident: $form:ty),+ $(,)? })?),+ $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$doc])*
        #[derive(bincode::Encode)]
        pub(in crate::form) enum $name {
            $($variant $(($($inner),+))? $(($($form),+))?),+
        }

        impl $crate::form::frozen::Passed for $name {
            #[inline]
            fn pass(reader: &mut $crate::codec::Reader<'_>) -> Option<()> {
                let (stored, number) = (reader.u32()?, 0);
                $(
                    if stored == number {
                        $($(<$inner as $crate::form::frozen::Passed>::pass(reader)?;)+)?
                        $($(<$form as $crate::form::frozen::Passed>::pass(reader)?;)+)?
                        return Some(());
                    }
                    let number = number + 1;
                )+
                let _number_of_variants: u32 = number;
                None
            }
        }

        impl $crate::form::frozen::Frozen<$live> for $name {
            fn of(value: &$live) -> Self {
                type Live = $live;
                match value {
                    $(Live::$variant $(($($item),+))? $({ $($field),+ })? => Self::$variant
                        $(($($crate::form::frozen::Frozen::of($item)),+))?
                        $(($($crate::form::frozen::Frozen::of($field)),+))?,)+
                }
            }

            #[inline]
            fn read(reader: &mut $crate::codec::Reader<'_>) -> Option<$live> {
                type Live = $live;
                let (stored, number) = (reader.u32()?, 0);
                $(
                    if stored == number {
                        return Some(Live::$variant
                            $(($(<$inner as $crate::form::frozen::Frozen<_>>::read(reader)?),+))?
                            $({ $($field: <$form as $crate::form::frozen::Frozen<_>>::read(reader)?),+ })?);
                    }
                    let number = number + 1;
                )+
                let _number_of_variants: u32 = number;
                reader.no_variant(stringify!($name), stored)
            }
        }

        $crate::form::frozen::frozen! { $($rest)* }
    };
}

pub(super) use frozen;

/// A number that stands in a body as it is.
macro_rules! as_it_is {
    ($($plain:ident),+) => {
        $(impl Frozen<$plain> for $plain {
            fn of(value: &$plain) -> Self {
                *value
            }

            #[inline]
            fn read(reader: &mut Reader<'_>) -> Option<$plain> {
                reader.$plain()
            }
        }

        impl Passed for $plain {
            #[inline]
            fn pass(reader: &mut Reader<'_>) -> Option<()> {
                reader.$plain().map(drop)
            }
        })+
    };
}

as_it_is!(u8, u16, u32, u64);

impl<const N: usize> Frozen<[u8; N]> for [u8; N] {
    fn of(value: &[u8; N]) -> Self {
        *value
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<[u8; N]> {
        reader.array()
    }
}

impl<const N: usize> Passed for [u8; N] {
    #[inline]
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        reader.array::<N>().map(drop)
    }
}

impl Frozen<String> for String {
    fn of(value: &String) -> Self {
        value.clone()
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<String> {
        reader.text().map(str::to_owned)
    }
}

impl Passed for String {
    #[inline]
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        reader.text().map(drop)
    }
}

/// A number that may be any number.
macro_rules! number {
    ($($form:ident: $live:ident),+ $(,)?) => {
        $(impl Frozen<$live> for $form {
            fn of(value: &$live) -> Self {
                value.0
            }

            #[inline]
            fn read(reader: &mut Reader<'_>) -> Option<$live> {
                reader.$form().map($live)
            }
        })+
    };
}

number! { u8: DeviceIndex, u16: Opcode, u64: Dpa, u64: Hpa, u64: Seq, u64: VmTime }

/// The sixteen bytes of the wire.
impl Frozen<Tag> for [u8; 16] {
    fn of(value: &Tag) -> Self {
        value.bytes()
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<Tag> {
        reader.array().map(Tag::from_bytes)
    }
}

/// The size of a block in bytes, which not every number is.
#[derive(bincode::Encode)]
pub(super) struct BlockBytes(u64);

impl Frozen<BlockSize> for BlockBytes {
    fn of(value: &BlockSize) -> Self {
        Self(value.bytes())
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<BlockSize> {
        BlockSize::new(reader.u64()?)
            .map_err(|error| CodecError::Field { field: "block size", reason: error.to_string() })
            .map_or_else(|error| reader.refuse(error), Some)
    }
}

impl Passed for BlockBytes {
    #[inline]
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        Self::read(reader).map(drop)
    }
}

/// A return code of the standard, which not every number is.
#[derive(bincode::Encode)]
pub(super) struct Code(u16);

impl Frozen<ReturnCode> for Code {
    fn of(value: &ReturnCode) -> Self {
        Self(*value as u16)
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<ReturnCode> {
        let stored = reader.u16()?;
        let reason = || format!("{stored:#x} is no return code of the standard");
        ReturnCode::from_u16(stored)
            .or_else(|| reader.refuse(CodecError::Field { field: "return code", reason: reason() }))
    }
}

impl Passed for Code {
    #[inline]
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        Self::read(reader).map(drop)
    }
}

/// Bytes, which are copied at once and not one by one: their number as u64, then they.
#[derive(bincode::Encode)]
pub(super) struct Bytes(Vec<u8>);

impl Frozen<Vec<u8>> for Bytes {
    fn of(value: &Vec<u8>) -> Self {
        Self(value.clone())
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
        reader.counted_bytes().map(<[u8]>::to_vec)
    }
}

impl Passed for Bytes {
    #[inline]
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        reader.counted_bytes().map(drop)
    }
}

/// 0, or 1 and the value.
impl<T, F: Frozen<T>> Frozen<Option<T>> for Option<F> {
    fn of(value: &Option<T>) -> Self {
        value.as_ref().map(F::of)
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<Option<T>> {
        match reader.u8()? {
            0 => Some(None),
            1 => F::read(reader).map(Some),
            other => reader.no_variant("what may be absent", other.into()),
        }
    }
}

impl<F: Passed> Passed for Option<F> {
    #[inline]
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        match reader.u8()? {
            0 => Some(()),
            1 => F::pass(reader),
            other => reader.no_variant("what may be absent", other.into()),
        }
    }
}

/// Their number as u64, then they.
impl<T, F: Frozen<T>> Frozen<Vec<T>> for Vec<F> {
    fn of(value: &Vec<T>) -> Self {
        value.iter().map(F::of).collect()
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<Vec<T>> {
        let count = reader.count::<F>()?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            reader.item::<F>();
            values.push(F::read(reader)?);
        }
        Some(values)
    }
}

impl<F: Passed> Passed for Vec<F> {
    #[inline]
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        for _ in 0..reader.count::<F>()? {
            reader.item::<F>();
            F::pass(reader)?;
        }
        Some(())
    }
}

/// An entry of a map: whether the keys rise is told by reading them.
impl<FK, FV> Passed for (FK, FV) {
    fn pass(_: &mut Reader<'_>) -> Option<()> {
        None
    }
}

/// A row of keys, each with its value. Keys rise, so that equal maps are equal bytes.
impl<K: Ord, V, FK: Frozen<K>, FV: Frozen<V>> Frozen<BTreeMap<K, V>> for Vec<(FK, FV)> {
    fn of(value: &BTreeMap<K, V>) -> Self {
        value.iter().map(|(key, value)| (FK::of(key), FV::of(value))).collect()
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Option<BTreeMap<K, V>> {
        let mut map = BTreeMap::new();
        for index in 0..reader.count::<(FK, FV)>()? {
            reader.item::<(FK, FV)>();
            let (key, value) = (FK::read(reader)?, FV::read(reader)?);
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                let reason = format!("the key of entry {index} does not follow the one before it");
                return reader.refuse(CodecError::Field { field: "map", reason });
            }
            map.insert(key, value);
        }
        Some(map)
    }
}
