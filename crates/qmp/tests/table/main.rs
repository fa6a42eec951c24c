//! The table of commands and events: that it is complete and documented, and that what is made of it agrees with it.

mod documented;
mod introspection;
mod json_schema;
mod validator;
