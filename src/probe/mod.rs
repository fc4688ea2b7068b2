//! What is true: how each node is asked, what it answered, and what follows.

pub mod assessment;
pub mod board;
pub mod guard_report;
pub mod guard_status;
pub mod lag;
pub mod node;
pub mod observer;
pub mod span;
pub mod verdict;
pub mod watch;
