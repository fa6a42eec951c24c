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

/// Makes the part of a name.
type Get<'a> = dyn Fn(&str) -> Option<Node<'a>> + 'a;

/// A part of the tree.
pub enum Node<'a> {
    /// A value.
    Leaf(Value),
    /// Parts with fixed names.
    Fields(Fields<'a>),
    /// A collection.
    Items(Collection<'a>),
}

/// Parts by their fixed names; a part is made when somebody goes there.
pub struct Fields<'a> {
    pub(super) names: &'static [&'static str],
    pub(super) get: Box<Get<'a>>,
}

/// Things by their keys.
pub struct Collection<'a> {
    all: Box<dyn Fn() -> Items<'a> + 'a>,
    get: Box<Find<'a>>,
}

/// Parts with fixed names: `fields!("name" => node, …)`. Who asks for one value of a state after each of a million records
/// does not want the others made.
macro_rules! fields {
    ($($name:literal => $node:expr),+ $(,)?) => {
        $crate::inspect::node::Node::Fields($crate::inspect::node::Fields {
            names: &[$($name),+],
            get: Box::new(move |name| match name {
                $($name => Some($node),)+
                _ => None,
            }),
        })
    };
}
pub(super) use fields;

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
            Self::Fields(Fields { names, get }) => {
                names.iter().filter_map(|name| Some((Key::Name(name), get(name)?))).collect()
            }
            Self::Items(items) => (items.all)().into_iter().map(|(key, node)| (Key::Item(key), node)).collect(),
        }
    }

    /// The part of a name, if there is one, and else the node itself.
    pub(super) fn part(self, key: &str) -> Result<(Key, Node<'a>), Self> {
        match self {
            Self::Leaf(_) => Err(self),
            Self::Fields(Fields { names, get }) => {
                let name = names.iter().find(|name| **name == key);
                match name.and_then(|name| Some((Key::Name(name), get(name)?))) {
                    Some(part) => Ok(part),
                    None => Err(Self::Fields(Fields { names, get })),
                }
            }
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
