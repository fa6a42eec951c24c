//! The device as its operators and hosts meet it, in one thread.

mod breaking;
mod inspect;
mod laws;
mod life;
mod plain;
mod plug;
mod rig;
