//! How a pair on this Docker host is changed: the primary moved, replaced, its
//! old self brought back.
//!
//! - [`disk`] says who is primary, and holds the fence; [`control`] how a node
//!   ended; [`docker`] runs the containers, [`sql`] asks the servers.
//! - [`data_dir`] and [`socket`] are the only ways to what a container may write.
//! - [`moving`] is the one way in which a primary moves; [`switchover`] and
//!   [`failover`] decide whether it may, [`loss`] what would be lost,
//!   [`rejoin`] brings the other node back.
//! - [`guard`] does all that by itself, and keeps what [`sync`] promises.
//! - [`failure_detector`] decides whether a primary that is silent is replaced;
//!   [`witnesses`] says what is known, by [`session`], [`pulse`] and
//!   [`process_table`].
//! - [`journal`] lets one command at a time in, and remembers where a killed
//!   one was.

pub mod checks;
pub mod command;
pub mod disk;
pub mod docker;
pub mod failover;
pub mod failure_detector;
pub mod ground;
pub mod guard;
pub mod journal;
pub mod layout;
pub mod loss;
pub mod moving;
pub mod process_table;
pub mod pulse;
pub mod rejoin;
pub mod session;
pub mod socket;
pub mod sql;
pub mod switchover;
pub mod sync;
pub mod trouble;
pub mod witnesses;
