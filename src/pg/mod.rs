//! PostgreSQL's own formats and ways: connection strings, passwords, TLS, what lies in
//! PGDATA. Knows nothing of pairs and of probes.

pub mod conninfo;
pub mod control_file;
pub mod data_dir;
pub mod lsn;
pub mod parameters;
pub mod passfile;
pub mod resolve;
pub mod tls;
pub mod wal;
