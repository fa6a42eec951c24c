//! Questions to a journal: what state its facts make, whether the laws hold, whether today's build decides the same, who
//! wrote a value, where it went wrong, what would be without a record, and which few inputs show it.
//!
//! ```text
//!  records ──▶ Fold: admit, evolve ──▶ state at any record, for ever        History: inspect, why, bisect
//!          ├─▶ recheck: decide again ──▶ equal, or the first difference     replay
//!          └─▶ rerun: decide on ──▶ other records                           whatif, shrink
//! ```
//!
//! Needs no actor, no KVM and no privilege. Deliberately absent: effects, which replay drops, and directories.
#![forbid(unsafe_code)]

mod archived;
mod diff;
mod fold;
mod followed;
mod history;
mod lawful;
mod lineage;
mod position;
mod recheck;
mod renumber;
mod replay;
mod rerun;
mod row;
mod shrink;
mod simplify;
mod slice;
mod stood;
mod watched;
mod weight;
mod whatif;

pub use archived::{Archived, Found, UnreadableError, fold_of, record_of, start_of};
pub use diff::{Diff, Parting, diff};
pub use fold::{Fold, FoldError, Foldable};
pub use followed::{Behind, Followed};
pub use history::{History, HistoryError, PathValue, PathValueError};
pub use lineage::{Origin, lineage, origin};
pub use position::{Position, PositionError, TimeUnit, parse_seq};
pub use recheck::{Difference, Divergence, panic_message, recheck};
pub use replay::{Finding, Replay, replay};
pub use rerun::{Decided, End, Numbers, Step, Visitor, rerun, rerun_all};
pub use row::{DeviceNames, Row, actor_name};
pub use shrink::{Question, Search, ShrinkError, Shrunk, shrink};
pub use stood::Stood;
pub use watched::Written;
pub use whatif::{Changed, Edit, Fork, whatif};
