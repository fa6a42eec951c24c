//! The whole program: its binary at a shell and a socket, and its actors with a guest in this process.

mod backends;
mod corpus;
mod defects;
mod demo;
mod flows;
mod kill;
mod kvm;
mod lives;
mod monitor;
mod open_journal;
mod plain;
mod plug;
mod policies;
mod program;
mod qmp;
mod qtest;
mod qtest_client;
mod readme;
mod replay;
mod resume;
mod schema;
mod traffic;
mod transports;
mod verbs;
mod vm;
