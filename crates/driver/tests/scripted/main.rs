//! The driver against a scripted device: what it sends, in which order, with which bytes, and what it makes of answers.

mod decoding;
mod device;
mod discovery;
mod draining;
mod exchange;
mod late;
mod linux;
mod listing;
mod machine;
mod mailbox;
mod probing;
mod subset;
