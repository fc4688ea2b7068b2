//! `pgpair rejoin`: makes the node that is not the primary its standby. It
//! follows if it can, is rewound if it must, and copied anew if nothing else
//! helps; its old data is kept until the new has proven itself.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use super::docker::OneShot;
use super::error::{Error, Why, failed, refused};
use super::fault_point;
use super::files::{self, Disks, NodeDisk};
use super::host::{MAX_SQL, MAX_START, Pair, docker_failed};
use super::layout::{CONF, LABEL, MOUNT, Node, PGDATA};
use super::local_client::SqlError;
use super::machine::Stop;
use crate::pg::control_file::{Control, Ended};
use crate::pg::data_dir::{DataDir, Folder};
use crate::pg::lsn::Lsn;
use crate::pg::wal;

/// A standby that neither streams nor gets any further for this long never
/// will: its WAL receiver tries every 5 s.
const MAX_QUIET: Duration = Duration::from_secs(12);

/// Longest until a standby streams that does get further.
const MAX_STREAM: Duration = Duration::from_secs(3600);

/// Longest for a rewind and for a copy of all data.
const MAX_REWIND: Duration = Duration::from_secs(3600);
const MAX_COPY: Duration = Duration::from_secs(24 * 3600);

/// What lies beside the data: being rewound, being copied, and kept.
const ASIDE: &str = "pgdata.rewind";
const BESIDE: &str = "pgdata.new";
const OLD: &str = "pgdata.old";

/// Room beside the size of what is copied: WAL that is written meanwhile.
const ROOM_BESIDE: u64 = 256 * 1024 * 1024;

/// How often a node is started that is found stopped.
const STARTS: usize = 2;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs crash recovery in the data and makes it follow the source. A lock file
/// of the dead server would name process 1, which lives in this container too.
const REWIND: &str = "\
cd /var/lib/postgresql/data
rm -f pgdata.rewind/standby.signal pgdata.rewind/postmaster.pid
pg_rewind --target-pgdata=pgdata.rewind --config-file=/etc/postgresql/postgresql.conf \
--source-server='host=/run/source user=postgres dbname=postgres'
sync
";

/// How far a node is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Until it streams.
    Whole,
    /// Until it has data, which whoever runs its container starts.
    DataOnly,
}

/// Makes `node` the standby of the other node, which must be the primary. Returns
/// whether it was none.
///
/// # Errors
///
/// Refuses what it must not touch; fails if nothing helps, with the old data
/// still there.
pub fn rejoin(pair: &Pair, node: Node, extent: Extent) -> Result<bool, Error> {
    let job = Job {
        pair,
        node,
        primary: node.other(),
        disks: Disks::read(&pair.layout)?,
    };
    if job.disks.primary == node {
        return Err(refused(Why::IsPrimary, format!("{node} is the primary")));
    }
    if extent == Extent::Whole {
        pair.container(node)?;
    }
    if extent == Extent::DataOnly && !job.disks.of(node).empty {
        pair.say(&format!("{node} has data already"));
        return Ok(false);
    }
    job.primary_is_well()?;
    if extent == Extent::Whole && pair.streams(node)? && job.is_on_primarys_timeline() {
        pair.say(&format!("{node} streams"));
        job.tidy_up()?;
        return Ok(false);
    }
    job.have_slot()?;
    if extent == Extent::DataOnly {
        job.copy()?;
        return Ok(true);
    }
    job.by_the_cheapest_way()?;
    job.tidy_up()?;
    Ok(true)
}

struct Job<'a> {
    pair: &'a Pair,
    node: Node,
    primary: Node,
    disks: Disks,
}

impl Job<'_> {
    fn primary_is_well(&self) -> Result<(), Error> {
        let recovering = self.pair.value(self.primary, "SELECT pg_is_in_recovery()");
        match recovering {
            Ok(answer) if answer == "f" => Ok(()),
            Ok(_) => Err(refused(
                Why::PrimarySilent,
                format!("{} is no primary", self.primary),
            )),
            Err(trouble) => Err(refused(
                Why::PrimarySilent,
                format!(
                    "the primary does not answer ({trouble}): start it, or run pgpair failover"
                ),
            )),
        }
    }

    /// Has the primary keep what the node will need.
    fn have_slot(&self) -> Result<(), Error> {
        let slot = self.pair.layout.slot(self.node);
        // One that has lost WAL cannot be used any more.
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
               WHERE slot_name = '{slot}' AND NOT active AND wal_status = 'lost'; \
             SELECT pg_create_physical_replication_slot('{slot}', true) \
               WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        );
        let asked = self.pair.server(self.primary).rows(&sql, MAX_SQL);
        asked
            .map(drop)
            .map_err(|error| self.pair.no_answer(self.primary, &error))
    }

    fn by_the_cheapest_way(&self) -> Result<(), Error> {
        let (pair, node) = (self.pair, self.node);
        let disk = self.disks.of(node);
        if disk.empty {
            self.copy()?;
            return self.start_and_stream();
        }
        let control = disk.control()?;
        let runs = !pair.is_down(node)?;
        if runs || self.may_follow(&control) {
            if self.start_and_stream().is_ok() {
                pair.say(&format!("{node} follows {} as it is", self.primary));
                return Ok(());
            }
            pair.say(&format!("{node} cannot follow {} as it is", self.primary));
        }
        // A rewind that finds no room would cost the data.
        pair.has_room(node).map_err(Error::on_the_way)?;
        match self.rewind() {
            Ok(()) if self.start_and_stream().is_ok() => return Ok(()),
            Ok(()) => pair.say(&format!("{node} does not stream after the rewind")),
            Err(trouble) => pair.say(&format!("{node} cannot be rewound: {trouble}")),
        }
        self.copy().map_err(Error::on_the_way)?;
        self.start_and_stream()
    }

    /// Says whether the node's WAL ends before the primary's own began, as far
    /// as its disk tells.
    fn may_follow(&self, control: &Control) -> bool {
        match control.ended {
            // Where a crashed primary's WAL ends is known by reading it.
            Ended::InProduction => self.goes_beyond_fork(control) == Some(false),
            Ended::ShutDown => self
                .fork_of(control.timeline)
                .is_none_or(|fork| control.checkpoint < fork),
            Ended::ShutDownInRecovery | Ended::Otherwise => {
                self.goes_beyond_fork(control) != Some(true)
            }
        }
    }

    /// Says whether the node's last valid record lies behind the place where the
    /// primary's own history begins, if that can be read.
    fn goes_beyond_fork(&self, control: &Control) -> Option<bool> {
        let layout = &self.pair.layout;
        let timeline = files::in_pg_wal(layout, self.node, |folder| {
            Ok(wal::newest_timeline(folder, control))
        });
        let timeline = timeline.ok()?;
        // Who works in one node's data does not see the other's.
        let fork = self.fork_of(timeline)?;
        let beyond = files::in_pg_wal(layout, self.node, |folder| {
            wal::walk(folder, timeline, control.system, fork)
        });
        beyond.ok().map(|walk| walk.records > 0)
    }

    /// Returns where the primary's history left a timeline, if it did.
    fn fork_of(&self, timeline: u32) -> Option<Lsn> {
        let control = self.disks.of(self.primary).control().ok()?;
        let left = files::in_pg_wal(&self.pair.layout, self.primary, |folder| {
            let newest = wal::newest_timeline(folder, &control);
            Ok(wal::history(folder, newest).unwrap_or_default())
        });
        let mut left = left.ok()?.into_iter();
        left.find_map(|(of, place)| (of == timeline).then_some(place))
    }

    /// Starts the node and waits until it streams.
    fn start_and_stream(&self) -> Result<(), Error> {
        let (pair, node) = (self.pair, self.node);
        pair.start(node)?;
        let began = pair.now();
        let mut moved_at = began;
        let mut last = String::new();
        let mut starts = 1;
        loop {
            if pair.streams(node)? && self.is_on_primarys_timeline() {
                pair.say(&format!("{node} streams from {}", self.primary));
                return Ok(());
            }
            match self.position() {
                Ok(position) if position != last => {
                    last = position;
                    moved_at = pair.now();
                }
                Err(SqlError::NotYet(_)) if pair.since(began) < MAX_START => {
                    moved_at = pair.now();
                }
                // A stop that was under way when it was started has come about.
                Err(SqlError::Gone(_)) if starts < STARTS && pair.is_down(node)? => {
                    starts += 1;
                    pair.start(node)?;
                }
                _ => {}
            }
            if pair.since(moved_at) > MAX_QUIET || pair.since(began) > MAX_STREAM {
                return Err(failed(
                    Why::NotStreaming,
                    format!(
                        "{node} does not stream: docker logs {} says why",
                        pair.layout.container(node)
                    ),
                ));
            }
            pair.sleep(POLL_INTERVAL);
        }
    }

    /// Says whether what it receives is the primary's history. One that has more than
    /// the primary's past streams the rest of that for a moment, and gets no further.
    fn is_on_primarys_timeline(&self) -> bool {
        let received = "SELECT lpad(upper(to_hex(received_tli)), 8, '0') FROM pg_stat_wal_receiver";
        let received = self.pair.value(self.node, received);
        let written = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
        let written = self.pair.value(self.primary, written);
        received.is_ok() && received == written
    }

    fn position(&self) -> Result<String, SqlError> {
        let sql = "SELECT coalesce(pg_last_wal_replay_lsn()::text, '') \
                   || coalesce(pg_last_wal_receive_lsn()::text, '')";
        self.pair.server(self.node).value(sql, MAX_SQL)
    }

    /// Rewinds the data, which is away from its place meanwhile: without its
    /// fence it must not be found there by anybody.
    fn rewind(&self) -> Result<(), Error> {
        let (pair, node) = (self.pair, self.node);
        pair.stop(node, Stop::Soon)?;
        // The rewind looks for the primary's timeline in its control file.
        let checkpoint = pair.server(self.primary).rows("CHECKPOINT", MAX_START);
        checkpoint.map_err(|error| pair.no_answer(self.primary, &error))?;
        self.rename(PGDATA, ASIDE)?;
        pair.say(&format!(
            "rewinding {node} to where {} went on",
            self.primary
        ));
        let source = pair.layout.run(self.primary);
        let done = self.run_tool(
            REWIND,
            "none",
            vec![(source, "/run/source", true)],
            MAX_REWIND,
        );
        if let Err(trouble) = done {
            // What was rewound in part is of use to nobody but an archaeologist.
            self.set_aside(ASIDE)?;
            return Err(trouble);
        }
        self.in_data(|data| {
            let rewound = data.folder(ASIDE)?.ok_or(ErrorKind::NotFound)?;
            files::fence_in(&rewound)?;
            data.rename(ASIDE, PGDATA)
        })
    }

    /// Makes a fresh copy beside the data and puts it in its place.
    fn copy(&self) -> Result<(), Error> {
        let (pair, node) = (self.pair, self.node);
        pair.stop(node, Stop::Soon)?;
        let tool = pair.machine.remove(&self.tool_name());
        tool.map_err(|error| docker_failed(&error))?;
        if self.in_data(|data| data.has(ASIDE))? {
            self.set_aside(ASIDE)?;
        }
        self.in_data(|data| data.free(BESIDE))?;
        self.has_room()?;
        pair.say(&format!("copying {} for {node}", self.primary));
        let script = format!(
            "cd {MOUNT}\n\
             pg_basebackup --pgdata=pgdata.new --wal-method=stream --checkpoint=fast --slot={} --dbname='host={} port=5432 \
             user=replicator passfile={CONF}/pgpass sslmode=verify-full sslrootcert={CONF}/ca.crt connect_timeout=10'\n\
             touch pgdata.new/standby.signal\n\
             sync\n",
            pair.layout.slot(node),
            pair.layout.container(self.primary),
        );
        // By the primary's own address: pg_hba lets replication in from the nodes alone.
        let network = format!("container:{}", pair.layout.container(self.primary));
        self.run_tool(&script, &network, Vec::new(), MAX_COPY)?;
        if !NodeDisk::read(&pair.layout, node).empty {
            self.set_aside(PGDATA)?;
        }
        // Where the data should be there may be an empty folder.
        self.in_data(|data| data.remove_empty(PGDATA))?;
        self.rename(BESIDE, PGDATA)?;
        pair.say(&format!("{node} has a copy of {}", self.primary));
        Ok(())
    }

    fn has_room(&self) -> Result<(), Error> {
        let layout = &self.pair.layout;
        let used = files::in_pgdata(layout, self.primary, Folder::used_bytes);
        let used = used.map_err(|error| self.io(self.primary, &error))?;
        let needed = used.unwrap_or(0) + ROOM_BESIDE;
        let place = layout.data(self.node);
        let free = self.in_data(Folder::free_bytes)?;
        if free >= needed {
            return Ok(());
        }
        Err(refused(
            Why::NoSpace,
            format!(
                "{} has {} MB free, and a copy needs {} MB: free some (what was set aside is in pgdata.old)",
                place.display(),
                free >> 20,
                needed >> 20
            ),
        ))
    }

    /// Runs one of PostgreSQL's tools beside the node's data.
    fn run_tool(
        &self,
        script: &str,
        network: &str,
        further: Vec<(PathBuf, &'static str, bool)>,
        within: Duration,
    ) -> Result<(), Error> {
        let layout = &self.pair.layout;
        let data = layout.data(self.node);
        let owner = DataDir::open(&data).map_err(|error| self.io(self.node, &error))?;
        // The node's own container may not exist yet; both have the same image.
        let container = self.pair.container(self.primary)?;
        let mut mounts = vec![(data, MOUNT, false), (layout.conf(self.node), CONF, true)];
        mounts.extend(further);
        let shot = OneShot {
            name: &self.tool_name(),
            label: format!("{LABEL}={}", layout.prefix),
            image: &container.image,
            user: owner.owner(),
            network,
            memory_bytes: container.memory_bytes,
            mounts,
            script,
        };
        let done = self.pair.machine.run_once(&shot, within);
        let done = done.map_err(|error| docker_failed(&error))?;
        match done.success {
            true => Ok(()),
            false => Err(failed(Why::CopyFailed, done.last_words())),
        }
    }

    fn tool_name(&self) -> String {
        format!("{}-copy", self.pair.layout.container(self.node))
    }

    /// Keeps data until its successor has proven itself. What is in place while
    /// something older is kept already did not.
    fn set_aside(&self, name: &str) -> Result<(), Error> {
        self.in_data(|data| {
            let kept = data.folder(OLD);
            if kept.is_ok_and(|kept| kept.is_some()) {
                return data.free(name);
            }
            // What is no folder is nobody's data.
            data.free(OLD)?;
            data.rename(name, OLD)
        })
    }

    /// Removes what is of no use once the node streams: its old data, and the
    /// slot of its time as primary, which would hold WAL back for ever.
    fn tidy_up(&self) -> Result<(), Error> {
        let slot = self.pair.layout.slot(self.primary);
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE slot_name = '{slot}' AND NOT active"
        );
        // It streams before it lets anybody in.
        self.pair.answers(self.node, MAX_START)?;
        let dropped = self.pair.server(self.node).rows(&sql, MAX_SQL);
        dropped.map_err(|error| self.pair.no_answer(self.node, &error))?;
        forget_old_data(self.pair, self.node);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.in_data(|data| data.rename(from, to))
    }

    fn in_data<T: Send>(
        &self,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send,
    ) -> Result<T, Error> {
        let done = fault_point::pass("before a change beside the data")
            .and_then(|()| files::in_data(&self.pair.layout, self.node, work))
            .and_then(|done| fault_point::pass("after it").map(|()| done));
        let done = done.and_then(|done| done.ok_or_else(|| ErrorKind::NotFound.into()));
        done.map_err(|error| self.io(self.node, &error))
    }

    fn io(&self, node: Node, error: &io::Error) -> Error {
        failed(
            Why::FileUnusable,
            format!("{}: {error}", self.pair.layout.data(node).display()),
        )
    }
}

/// Removes what is kept beside the data of a node that has proven itself. What
/// stays is in nobody's way.
pub fn forget_old_data(pair: &Pair, node: Node) {
    for name in [OLD, ASIDE, BESIDE] {
        if let Err(error) = files::in_data(&pair.layout, node, |data| data.remove(name)) {
            let place = pair.layout.data(node).join(name);
            pair.say(&format!("{} stays: {error}", place.display()));
        }
    }
}
