//! What the program can be asked for, a file each.

pub mod check;
pub mod http_client;
pub mod inspect;
pub mod pair;
pub mod serve;
pub mod status;
