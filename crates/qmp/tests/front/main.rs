//! The front of the server, from socket to socket, before a service that does next to nothing.

mod events;
mod jobs;
mod listening;
mod protocol;
mod rig;
