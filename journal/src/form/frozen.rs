//! Frozen types: how a value of today stands in a body for ever, and how it comes out of one.
//!
//! ```text
//!  device type ──of, every field named──▶ frozen type ──codec──▶ body
//!  device type ◀─thawed, every field named── frozen type ◀─codec── body
//! ```
//!
//! A table of [`frozen!`] names every variant and every field, in the order in which they stand in a body. Where a
//! device type gets another one, the table no longer compiles: the next form takes it in, and whoever makes that form
//! says what it is in a body of this one. Deliberately absent: names in bodies, and defaults for what is not there.

use std::collections::BTreeMap;

use device::config::DeviceIndex;
use device::{Seq, VmTime};
use wire::{BlockSize, Dpa, Hpa, Opcode, ReturnCode, Tag};

use crate::codec::CodecError;

/// The frozen type of a value.
pub(super) trait Frozen<T>: Sized {
    /// What a body holds of a value.
    fn of(value: &T) -> Self;

    /// The value of what stands in a body.
    ///
    /// # Errors
    /// Where it is none that the value's type admits.
    fn thawed(self) -> Result<T, CodecError>;
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
        #[derive(bincode::Encode, bincode::Decode)]
        pub(in crate::form) struct $name { $($field: $form),+ }

        impl $crate::form::frozen::Frozen<$live> for $name {
            fn of(value: &$live) -> Self {
                type Live = $live;
                let Live { $($field),+ } = value;
                Self { $($field: $crate::form::frozen::Frozen::of($field)),+ }
            }

            fn thawed(self) -> Result<$live, $crate::codec::CodecError> {
                type Live = $live;
                let Self { $($field),+ } = self;
                Ok(Live { $($field: $crate::form::frozen::Frozen::thawed($field)?),+ })
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
        #[derive(bincode::Encode, bincode::Decode)]
        pub(in crate::form) enum $name {
            $($variant $(($($inner),+))? $(($($form),+))?),+
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

            fn thawed(self) -> Result<$live, $crate::codec::CodecError> {
                type Live = $live;
                Ok(match self {
                    $(Self::$variant $(($($item),+))? $(($($field),+))? => Live::$variant
                        $(($($crate::form::frozen::Frozen::thawed($item)?),+))?
                        $({ $($field: $crate::form::frozen::Frozen::thawed($field)?),+ })?,)+
                })
            }
        }

        $crate::form::frozen::frozen! { $($rest)* }
    };
}

pub(super) use frozen;

/// What stands in a body as it is.
macro_rules! as_it_is {
    ($($plain:ty),+) => {
        $(impl Frozen<$plain> for $plain {
            fn of(value: &$plain) -> Self {
                value.clone()
            }

            fn thawed(self) -> Result<$plain, CodecError> {
                Ok(self)
            }
        })+
    };
}

as_it_is!(u8, u16, u32, u64, String, [u8; 5], [u8; 32]);

/// A number that may be any number.
macro_rules! number {
    ($($form:ty: $live:ident),+ $(,)?) => {
        $(impl Frozen<$live> for $form {
            fn of(value: &$live) -> Self {
                value.0
            }

            fn thawed(self) -> Result<$live, CodecError> {
                Ok($live(self))
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

    fn thawed(self) -> Result<Tag, CodecError> {
        Ok(Tag::from_bytes(self))
    }
}

/// Bytes.
impl Frozen<BlockSize> for u64 {
    fn of(value: &BlockSize) -> Self {
        value.bytes()
    }

    fn thawed(self) -> Result<BlockSize, CodecError> {
        BlockSize::new(self).map_err(|error| CodecError::Field { field: "block size", reason: error.to_string() })
    }
}

/// The code of the standard.
impl Frozen<ReturnCode> for u16 {
    fn of(value: &ReturnCode) -> Self {
        *value as u16
    }

    fn thawed(self) -> Result<ReturnCode, CodecError> {
        let reason = || format!("{self:#x} is no return code of the standard");
        ReturnCode::from_u16(self).ok_or_else(|| CodecError::Field { field: "return code", reason: reason() })
    }
}

/// Bytes, which are copied at once and not one by one: their number as u64, then they.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct Bytes(Vec<u8>);

impl Frozen<Vec<u8>> for Bytes {
    fn of(value: &Vec<u8>) -> Self {
        Self(value.clone())
    }

    fn thawed(self) -> Result<Vec<u8>, CodecError> {
        Ok(self.0)
    }
}

/// 0, or 1 and the value.
impl<T, F: Frozen<T>> Frozen<Option<T>> for Option<F> {
    fn of(value: &Option<T>) -> Self {
        value.as_ref().map(F::of)
    }

    fn thawed(self) -> Result<Option<T>, CodecError> {
        self.map(F::thawed).transpose()
    }
}

/// Their number as u64, then they.
impl<T, F: Frozen<T>> Frozen<Vec<T>> for Vec<F> {
    fn of(value: &Vec<T>) -> Self {
        value.iter().map(F::of).collect()
    }

    fn thawed(self) -> Result<Vec<T>, CodecError> {
        self.into_iter().map(F::thawed).collect()
    }
}

/// A row of keys, each with its value. Keys rise, so that equal maps are equal bytes.
impl<K: Ord, V, FK: Frozen<K>, FV: Frozen<V>> Frozen<BTreeMap<K, V>> for Vec<(FK, FV)> {
    fn of(value: &BTreeMap<K, V>) -> Self {
        value.iter().map(|(key, value)| (FK::of(key), FV::of(value))).collect()
    }

    fn thawed(self) -> Result<BTreeMap<K, V>, CodecError> {
        let mut map = BTreeMap::new();
        for (index, (key, value)) in self.into_iter().enumerate() {
            let key = key.thawed()?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                let reason = format!("the key of entry {index} does not follow the one before it");
                return Err(CodecError::Field { field: "map", reason });
            }
            map.insert(key, value.thawed()?);
        }
        Ok(map)
    }
}
