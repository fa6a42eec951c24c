//! Ends: whatever the journal called durable is there after `kill -9` and after a power cut, at any moment of its life, of which
//! sealing and keeping short are a part.

mod chance;
mod disk;
mod kill;
mod power_cut;
mod writer;
