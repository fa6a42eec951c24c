//! A value that clones have in common until one of them changes.
//!
//! ```text
//!  state ── clone ──▶ a state that is kept        no extent is copied
//!    └ the next fact: copied once, if the other is still kept
//! ```
//!
//! Whoever takes a whole state, for a snapshot or a keyframe, takes it while the guest stands still: of ten thousand extents
//! a copy takes longer than all else. Deliberately absent: change from two sides.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A value of which clones are the same until one of them changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared<T>(Arc<T>);

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_was_when_the_other_changes() {
        let mut one = Shared::from(vec![1]);
        let other = one.clone();
        assert!(std::ptr::eq(&*one, &*other), "nothing was copied");
        one.push(2);
        assert_eq!((&*one, &*other), (&vec![1, 2], &vec![1]));
        let place = one.as_ptr();
        drop(other);
        one[0] = 3;
        assert_eq!((one.as_ptr(), &*one), (place, &vec![3, 2]), "nor when it is alone");
    }
}
