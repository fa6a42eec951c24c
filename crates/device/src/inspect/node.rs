//! A node of the tree: a value, or named parts. Collections are expanded when somebody goes there.

use std::borrow::Cow;

use wire::{Dpa, Tag};

use crate::stamp::Seq;

use super::Value;
use super::path::push_key;

/// The name of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// One of the fixed names of a branch: `.name`.
    Name(&'static str),
    /// One of the things in a collection: `.id`, or `[…]` where it is no plain word.
    Item(String),
}

/// The things in a collection, each with its key.
type Items<'a> = Vec<Item<'a>>;

/// A thing in a collection and its key.
type Item<'a> = (String, Node<'a>);

/// Finds a thing by its key.
type Find<'a> = dyn Fn(&str) -> Option<Item<'a>> + 'a;

/// A part of the tree.
pub enum Node<'a> {
    /// A value.
    Leaf(Value),
    /// Parts with fixed names.
    Fields(Vec<(&'static str, Node<'a>)>),
    /// A collection.
    Items(Collection<'a>),
}

/// Things by their keys.
pub struct Collection<'a> {
    all: Box<dyn Fn() -> Items<'a> + 'a>,
    get: Box<Find<'a>>,
}

/// Parts with fixed names.
pub(super) fn fields<'a, const N: usize>(fields: [(&'static str, Node<'a>); N]) -> Node<'a> {
    Node::Fields(fields.into_iter().collect())
}

/// A collection of which one thing is found without expanding the others. A key has one spelling in the tree, and `get`
/// may take others.
pub(super) fn items<'a>(all: impl Fn() -> Items<'a> + 'a, get: impl Fn(&str) -> Option<Item<'a>> + 'a) -> Node<'a> {
    Node::Items(Collection { all: Box::new(all), get: Box::new(get) })
}

/// A list: things by their place, counted from 0.
pub(super) fn list<'a, T>(things: &'a [T], node: impl Fn(&'a T) -> Node<'a> + Copy + 'a) -> Node<'a> {
    items(
        move || things.iter().enumerate().map(|(index, thing)| (index.to_string(), node(thing))).collect(),
        move |key| {
            let index = Value::parse_number(key)?;
            let thing = things.get(usize::try_from(index).ok()?)?;
            Some((index.to_string(), node(thing)))
        },
    )
}

impl Node<'_> {
    pub(super) fn number(number: impl Into<u64>) -> Self {
        Self::Leaf(Value::Number(number.into()))
    }

    pub(super) fn count(count: usize) -> Self {
        Self::Leaf(Value::Number(count as u64))
    }

    pub(super) fn address(address: impl Into<u64>) -> Self {
        Self::Leaf(Value::Address(address.into()))
    }

    pub(super) fn dpa(dpa: Dpa) -> Self {
        Self::Leaf(Value::Address(dpa.0))
    }

    pub(super) fn word(word: &'static str) -> Self {
        Self::Leaf(Value::Text(Cow::Borrowed(word)))
    }

    pub(super) fn text(text: &str) -> Self {
        Self::Leaf(Value::Text(Cow::Owned(text.to_owned())))
    }

    pub(super) fn tag(tag: Tag) -> Self {
        if tag.is_none() { Self::word("none") } else { Self::Leaf(Value::Text(Cow::Owned(tag.to_string()))) }
    }

    pub(super) fn record(seq: Seq) -> Self {
        Self::Leaf(Value::Record(seq))
    }
}

impl<'a> Node<'a> {
    /// All parts, in their order; none of a value.
    pub fn parts(self) -> Vec<(Key, Node<'a>)> {
        match self {
            Self::Leaf(_) => Vec::new(),
            Self::Fields(fields) => fields.into_iter().map(|(name, node)| (Key::Name(name), node)).collect(),
            Self::Items(items) => (items.all)().into_iter().map(|(key, node)| (Key::Item(key), node)).collect(),
        }
    }

    /// The part of a name, if there is one, and else the node itself.
    pub(super) fn part(self, key: &str) -> Result<(Key, Node<'a>), Self> {
        match self {
            Self::Leaf(_) => Err(self),
            Self::Fields(mut fields) => match fields.iter().position(|(name, _)| *name == key) {
                Some(index) => {
                    let (name, node) = fields.swap_remove(index);
                    Ok((Key::Name(name), node))
                }
                None => Err(Self::Fields(fields)),
            },
            Self::Items(items) => match (items.get)(key) {
                Some((key, node)) => Ok((Key::Item(key), node)),
                None => Err(Self::Items(items)),
            },
        }
    }

    /// Visits every value, each with its path, which begins with `place`.
    pub fn walk(self, place: &mut String, each: &mut dyn FnMut(&str, Value)) {
        if let Self::Leaf(value) = self {
            return each(place, value);
        }
        for (key, part) in self.parts() {
            let len = place.len();
            push_key(place, &key);
            part.walk(place, each);
            place.truncate(len);
        }
    }
}
