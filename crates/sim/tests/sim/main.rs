//! The simulator: hundreds of seeds, each kept by every law, and the same twice.

mod coverage;
mod crashes;

#[cfg(feature = "planted-bug")]
mod planted;
mod seeds;
