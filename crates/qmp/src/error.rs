//! What a client is told when its request cannot be answered: a class for programs and a sentence for people.
//!
//! ```text
//! {"error": {"class": "CommandNotFound", "desc": "The command foo has not been found"}, "id": 1}
//! ```
//!
//! Deliberately absent: error codes. QMP has none; what is not one of the five classes is told apart by its sentence.

use std::fmt;

use serde_json::{Value, json};

/// The classes of QMP, of which all but the first are kept for clients that already tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Whatever has no class of its own.
    GenericError,
    /// No such command, or not in this phase of the connection.
    CommandNotFound,
    /// The device that was named does not exist.
    DeviceNotFound,
    /// The device that was named cannot do this at the moment.
    DeviceNotActive,
    /// KVM lacks what the request needs.
    KVMMissingCap,
}

impl ErrorClass {
    /// The word on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::KVMMissingCap => "KVMMissingCap",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal of one request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {description}")]
pub struct QmpError {
    /// For programs.
    pub class: ErrorClass,
    /// For people: what was asked and what stands in the way.
    pub description: String,
}

impl QmpError {
    /// A refusal of the class `class`.
    pub fn new(class: ErrorClass, description: impl Into<String>) -> Self {
        Self { class, description: description.into() }
    }

    /// A refusal without a class of its own.
    pub fn generic(description: impl Into<String>) -> Self {
        Self::new(ErrorClass::GenericError, description)
    }

    /// The answer to a command that does not exist.
    #[must_use]
    pub fn command_not_found(name: &str) -> Self {
        Self::new(ErrorClass::CommandNotFound, format!("The command {name} has not been found"))
    }

    /// The object under the member `error` of an answer.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({ "class": self.class.name(), "desc": self.description })
    }
}
