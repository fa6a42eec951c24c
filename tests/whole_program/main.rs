//! The whole program: its binary at a shell and a socket, and its actors with a guest in this process.

mod defects;
mod demo;
mod kill;
mod lives;
mod program;
mod qmp;
mod readme;
mod replay;
mod resume;
mod traffic;
mod verbs;
mod vm;
