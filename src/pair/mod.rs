//! How a pair on this Docker host is changed: the primary moved, replaced, its
//! old self brought back.
//!
//! - [`files`] says who is primary, and holds the fence; [`docker`] runs the
//!   containers, [`local_client`] asks the servers; [`host`] is all of it at hand.
//! - [`machine`] is the seam under all of it: the real one, or a test's model.
//! - [`state_file`] reads the pair's own small files.
//! - [`socket`] is the only way to a server, as a container may write where it lies.
//! - [`transition`] is the one way in which a primary moves; [`switchover`] and
//!   [`failover`] decide whether it may, [`rejoin`] brings the other node back.
//! - [`guard`] does all that by itself, and keeps what [`sync`] promises.
//! - [`failure_detector`] decides whether a primary that is silent is replaced;
//!   [`witnesses`] says what is known, by [`session`], [`pulse`] and
//!   [`process_table`].
//! - [`inspect`] says what is known of all that, and changes nothing.

pub mod docker;
pub mod error;
pub mod failover;
pub mod failure_detector;
pub mod fault_point;
pub mod files;
pub mod guard;
pub mod host;
pub mod inspect;
pub mod layout;
pub mod local_client;
pub mod machine;
pub mod process_table;
pub mod pulse;
pub mod rejoin;
pub mod session;
pub mod socket;
pub mod state_file;
pub mod switchover;
pub mod sync;
pub mod transition;
pub mod witnesses;
