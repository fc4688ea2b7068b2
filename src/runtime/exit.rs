//! Exit codes of every command.

/// Ended as asked.
pub const OK: u8 = 0;
/// Failed while running, for example because the port is taken.
pub const FAILURE: u8 = 1;
/// Arguments or settings that cannot be used.
pub const USAGE: u8 = 2;
/// `check` and `status`: the arguments cannot be used.
pub const BAD_ARGUMENTS: u8 = 1;
/// `check` and `status`: nobody accepts connections there.
pub const NO_CONNECTION: u8 = 2;
/// `check` and `status`: no complete answer within the time limit.
pub const NO_ANSWER: u8 = 3;
/// `check`: the endpoint's answer is not 2xx; `status`: the pair is not whole.
pub const NOT_WELL: u8 = 4;
/// `switchover`, `failover`, `rejoin`: refused, and nothing was touched.
pub const REFUSED: u8 = 3;
/// `switchover` and `failover`: the primary moved, and the other node is not
/// back as its standby.
pub const ALONE: u8 = 4;
/// HTTP could not be answered any more.
pub const NO_HTTP: u8 = 70;
