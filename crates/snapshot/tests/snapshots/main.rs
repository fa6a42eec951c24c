//! Snapshots from outside: written, read, chained, damaged, cut short.

mod chains;
mod damage;
mod flatten;
mod hostile;
mod kill;
mod limits;
mod sample;
mod store;
