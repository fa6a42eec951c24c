//! A path into the tree, as people type it.
//!
//! ```text
//!  devices.cxl-vmem0.extents.accepted[0x40000000].tag
//!  │       └ item: a plain word, or anything in brackets    └ name
//!  └ name
//! ```

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::node::{Key, Node};

/// Most names that an error lists.
const NAMES_SHOWN: usize = 12;

/// A path: the empty one is the whole tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    segments: Vec<String>,
}

/// A path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// It is no path.
    #[error("'{text}' is no path: names with dots between them, such as devices.cxl-vmem0.extents.accepted[0x0].tag")]
    Syntax {
        /// What was asked.
        text: String,
    },
    /// There is no such part.
    #[error("there is no '{key}' in {place}: {there}")]
    Missing {
        /// What was asked.
        key: String,
        /// How far the path goes.
        place: String,
        /// What is there.
        there: String,
    },
}

/// How many segments say which facts write a path.
const BEGINNING_SEGMENTS: usize = 4;

/// The first segments of a path, in no memory of their own: whoever asks who writes it asks it of every fact.
pub(super) struct Beginning<'a> {
    words: [&'a str; BEGINNING_SEGMENTS],
    len: usize,
}

impl<'a> Beginning<'a> {
    pub(super) fn words(&self) -> &[&'a str] {
        &self.words[..self.len]
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let bad = || PathError::Syntax { text: text.to_owned() };
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (segment, behind) = if let Some(item) = rest.strip_prefix('[') {
                item.split_once(']').ok_or_else(bad)?
            } else {
                rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
            };
            if segment.is_empty() {
                return Err(bad());
            }
            segments.push(segment.to_owned());
            rest = match behind.strip_prefix('.') {
                Some("") => return Err(bad()),
                Some(next) => next,
                None if behind.is_empty() || behind.starts_with('[') => behind,
                None => return Err(bad()),
            };
        }
        Ok(Self { segments })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for segment in &self.segments {
            push_key(&mut text, &Key::Item(segment.clone()));
        }
        f.write_str(&text)
    }
}

impl Path {
    pub(super) fn beginning(&self) -> Beginning<'_> {
        let mut words = [""; BEGINNING_SEGMENTS];
        words.iter_mut().zip(&self.segments).for_each(|(word, segment)| *word = segment);
        Beginning { words, len: self.segments.len().min(BEGINNING_SEGMENTS) }
    }

    /// Its parts, without dots and brackets.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// What is there, if anything is.
    pub(super) fn lead<'a>(&self, tree: Node<'a>) -> Option<Node<'a>> {
        let lead = |node: Node<'a>, key: &String| node.part(key).ok().map(|(_, part)| part);
        self.segments.iter().try_fold(tree, lead)
    }

    /// What is there, with the path as the tree spells it.
    ///
    /// # Errors
    /// How far the path goes, and what is there instead.
    pub fn find<'a>(&self, tree: Node<'a>) -> Result<(String, Node<'a>), PathError> {
        let (mut place, mut node) = (String::new(), tree);
        for key in &self.segments {
            let (found, part) = node.part(key).map_err(|node| missing(key, &place, node))?;
            push_key(&mut place, &found);
            node = part;
        }
        Ok((place, node))
    }
}

fn missing(key: &str, place: &str, node: Node<'_>) -> PathError {
    let there = match node {
        Node::Leaf(value) => format!("it is a value, {value}"),
        node => match &node.parts()[..] {
            [] => "it is empty".to_owned(),
            parts => {
                let mut names: Vec<_> = parts.iter().take(NAMES_SHOWN).map(|(key, _)| shown(key)).collect();
                if parts.len() > NAMES_SHOWN {
                    names.push(format!("and {} more", parts.len() - NAMES_SHOWN));
                }
                format!("it has {}", names.join(", "))
            }
        },
    };
    let place = if place.is_empty() { "the state" } else { place };
    PathError::Missing { key: key.to_owned(), place: place.to_owned(), there }
}

fn shown(key: &Key) -> String {
    match key {
        Key::Name(name) => (*name).to_owned(),
        Key::Item(item) => item.clone(),
    }
}

/// Appends a key to a path.
pub(super) fn push_key(path: &mut String, key: &Key) {
    let text = match key {
        Key::Name(name) => name,
        Key::Item(item) => item.as_str(),
    };
    let is_word = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_word || (matches!(key, Key::Item(_)) && is_uuid(text)) {
        path.push('[');
        path.push_str(text);
        path.push(']');
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(text);
}

/// A tag stands in brackets whatever digit it begins with.
fn is_uuid(text: &str) -> bool {
    text.len() == 36 && wire::Tag::parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(text: &str) -> Result<Vec<String>, PathError> {
        text.parse::<Path>().map(|path| path.segments)
    }

    #[test]
    fn a_path_reads_back_as_it_is_written() {
        for text in ["", "runs", "backends.tm0.holder.state", "backends[tm.0].tag", "devices.d.extents.offers[#80]"] {
            assert_eq!(text.parse::<Path>().unwrap().to_string(), text);
        }
        assert_eq!(segments("a[0x10][b.c].d").unwrap(), ["a", "0x10", "b.c", "d"]);
        assert_eq!(segments("backends[tm0].tag").unwrap(), segments("backends.tm0.tag").unwrap());
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [".", "a.", "a..b", "a[", "a[]", "a[b]c", ".a"] {
            assert!(segments(text).is_err(), "{text}");
        }
    }
}
