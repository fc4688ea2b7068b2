//! Every command with every call failing once, with the program ended before and
//! after every call, and with the engine, the network or another hand in between:
//! never two nodes that may write, nothing acknowledged lost, and whoever runs it
//! again has a whole pair in the end.

mod model;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use self::model::{Blow, Fault, Killed, Model};
use crate::pair::error::{Error, Why};
use crate::pair::files::Disks;
use crate::pair::host::{Output, Pair};
use crate::pair::layout::Node;
use crate::pair::rejoin::Extent;
use crate::pair::transition::Moved;
use crate::pair::transition::journal::{self, Held};
use crate::pair::{failover, guard, rejoin, switchover, sync};

const SECOND: Duration = Duration::from_secs(1);

/// What a person has to do at most until all is well again.
const MAX_RUNS: usize = 6;

type Command = fn(&Model, &Pair) -> Result<(), Error>;

/// A command, and the state in which it is run.
struct Scenario {
    prepare: fn(&Model),
    command: Command,
    /// Somebody is primary at its begin, and must be whenever it ends.
    serves: bool,
    /// It goes on by itself: nobody else is to do anything.
    guards: bool,
}

/// How a command ended.
enum End {
    Done,
    Failed(Error),
    Killed,
}

fn pair_on(model: &Arc<Model>) -> Pair {
    let machine = Arc::clone(model);
    Pair::on(machine, model.layout.clone(), Output::Log)
}

fn run(model: &Arc<Model>, command: Command) -> End {
    let pair = pair_on(model);
    let ended: Result<_, Box<dyn Any + Send>> =
        catch_unwind(AssertUnwindSafe(|| command(model, &pair)));
    match ended {
        Ok(Ok(())) => End::Done,
        Ok(Err(error)) => End::Failed(error),
        Err(payload) if payload.is::<Killed>() => End::Killed,
        Err(payload) => resume_unwind(payload),
    }
}

/// The primary has moved; why the other node is not back is no refusal of that.
fn whole(moved: Moved) -> Result<(), Error> {
    let alone = moved.alone.map(Error::on_the_way);
    alone.map_or(Ok(()), Err)
}

fn switch_over(_: &Model, pair: &Pair) -> Result<(), Error> {
    let options = switchover::Options {
        to: Some(Node::B),
        dry_run: false,
    };
    match switchover::switchover(pair, &options)? {
        switchover::Done::Nothing => Ok(()),
        switchover::Done::Moved(moved) => whole(moved),
    }
}

fn fail_over(_: &Model, pair: &Pair) -> Result<(), Error> {
    let options = failover::Options {
        to: Some(Node::B),
        accept_loss: false,
    };
    failover::failover(pair, &options)?.map_or(Ok(()), whole)
}

/// As `pgpair rejoin` does it.
fn bring_back(_: &Model, pair: &Pair) -> Result<(), Error> {
    let held = Held::take(&pair.layout, "rejoin")?;
    if let Some(unfinished) = held.unfinished()? {
        return whole(switchover::take_up(pair, &held, unfinished)?);
    }
    let standby = Disks::read(&pair.layout)?.primary.other();
    rejoin::rejoin(pair, standby, Extent::Whole).map(drop)
}

/// Guards until nothing is left to do. A guard that comes too late must first be there
/// for half a minute.
fn watch_over(model: &Model, pair: &Pair) -> Result<(), Error> {
    let forgotten = || journal::read(&model.layout) == Ok(None);
    let done = || model.is_struck() && model.is_whole() && forgotten();
    guard::watch_for(pair, 60 * SECOND, done);
    Ok(())
}

impl Scenario {
    /// Tries it with one fault; returns how many calls it made.
    fn try_with(&self, fault: Option<(u64, Fault)>) -> u64 {
        let model = Model::new();
        model.enter();
        (self.prepare)(&model);
        model.arm(fault);
        let end = run(&model, self.command);
        let calls = model.disarm();
        model.pass(SECOND);
        let told = match &end {
            End::Done => "done".to_owned(),
            End::Killed => "killed".to_owned(),
            End::Failed(error) => error.to_string(),
        };
        let context = format!("{fault:?}: {told}");
        if let (None, End::Failed(error)) = (fault, &end) {
            panic!("without a fault: {error}");
        }
        if let End::Failed(error) = &end {
            self.is_true(&model, error, &context);
        }
        let again = self.converge(&model, &end);
        assert!(
            model.is_whole(),
            "not whole in the end; {context}; then {again:?}\n{}",
            model.describe()
        );
        assert_eq!(journal::read(&model.layout), Ok(None), "{context}");
        let primary = model.primary().expect("it is whole");
        assert_eq!(model.lost_on(primary), 0, "{context}; then {again:?}");
        assert!(model.wrong().is_empty(), "{:?}; {context}", model.wrong());
        calls
    }

    /// What a command says that it left must be so.
    fn is_true(&self, model: &Model, error: &Error, context: &str) {
        let text = error.to_string();
        let needs_help = text.contains("could not be") || text.contains("run this again");
        let refused = matches!(error, Error::Refused(..));
        if text.contains("is the primary again") || refused && self.serves {
            assert_eq!(model.primary(), Some(Node::A), "{context}");
        }
        if self.serves && !needs_help {
            assert!(model.primary().is_some(), "nobody is primary; {context}");
        }
    }

    /// Runs it again as a person would, until all is well; returns what was told.
    fn converge(&self, model: &Arc<Model>, end: &End) -> Vec<String> {
        let mut told = Vec::new();
        let mut done = matches!(end, End::Done);
        for _ in 0..MAX_RUNS {
            if done && model.is_whole() {
                break;
            }
            let command = match done && !self.guards {
                true => bring_back,
                false => self.command,
            };
            match run(model, command) {
                End::Done => done = true,
                End::Killed => unreachable!("nothing goes wrong any more"),
                End::Failed(error) => {
                    told.push(error.to_string());
                    // It came back: there is nothing to replace.
                    done |= error.why() == Why::PrimaryAnswers;
                }
            }
            model.pass(2 * SECOND);
        }
        told
    }

    /// Tries it with every call going wrong.
    fn try_all(&self, name: &str) {
        let calls = self.try_with(None);
        let mut tried = 1;
        for call in 1..=calls {
            for fault in Fault::ALL {
                self.try_with(Some((call, fault)));
                tried += 1;
            }
        }
        println!("{name}: {calls} calls, {tried} trials");
        assert!(calls > 20, "{calls} calls are too few for a command");
    }
}

#[test]
fn switchover_of_a_pair_that_is_well() {
    let scenario = Scenario {
        prepare: |_| {},
        command: switch_over,
        serves: true,
        guards: false,
    };
    scenario.try_all("switchover");
}

#[test]
fn failover_of_a_primary_that_is_dead() {
    let scenario = Scenario {
        prepare: |model| model.kill(Node::A),
        command: fail_over,
        serves: false,
        guards: false,
    };
    scenario.try_all("failover, dead");
}

#[test]
fn failover_of_a_primary_that_is_frozen() {
    let scenario = Scenario {
        prepare: |model| {
            model.strike_in(Node::A, SECOND, Blow::Freeze);
            model.pass(20 * SECOND);
        },
        command: fail_over,
        serves: false,
        guards: false,
    };
    scenario.try_all("failover, frozen");
}

#[test]
fn failover_of_a_primary_that_has_what_the_standby_lacks() {
    let scenario = Scenario {
        prepare: |model| {
            model.cut(2 * SECOND);
            model.start_commits();
            model.pass(SECOND);
            model.kill(Node::A);
            assert!(model.lost_on(Node::B) > 0);
        },
        command: fail_over,
        serves: false,
        guards: false,
    };
    scenario.try_all("failover, behind");
}

#[test]
fn failover_by_the_guard() {
    let scenario = Scenario {
        prepare: |model| model.strike_in(Node::A, SECOND, Blow::Kill),
        command: watch_over,
        serves: false,
        guards: true,
    };
    scenario.try_all("guard, dead");
}

#[test]
fn failover_by_the_guard_of_a_frozen_primary() {
    let scenario = Scenario {
        prepare: |model| model.strike_in(Node::A, SECOND, Blow::Freeze),
        command: watch_over,
        serves: false,
        guards: true,
    };
    scenario.try_all("guard, frozen");
}

#[test]
fn rejoin_of_a_standby_that_was_stopped() {
    let scenario = Scenario {
        prepare: |model| model.kill(Node::B),
        command: bring_back,
        serves: true,
        guards: false,
    };
    scenario.try_all("rejoin, stopped");
}

#[test]
fn rejoin_of_a_node_that_has_diverged() {
    let scenario = Scenario {
        prepare: |model| {
            model.kill(Node::B);
            model.diverge(Node::B);
        },
        command: bring_back,
        serves: true,
        guards: false,
    };
    scenario.try_all("rejoin, diverged");
}

#[test]
fn rejoin_of_a_node_without_data() {
    let scenario = Scenario {
        prepare: |model| {
            model.kill(Node::B);
            model.lose_data(Node::B);
        },
        command: bring_back,
        serves: true,
        guards: false,
    };
    scenario.try_all("rejoin, empty");
}

#[test]
fn switchover_where_commits_wait_for_the_standby() {
    let scenario = Scenario {
        prepare: |model| {
            let promise = sync::Promise {
                mode: sync::Mode::Sync,
                primary: Node::A,
                in_force: true,
            };
            sync::write(&model.layout, &promise).expect("writes");
        },
        command: switch_over,
        serves: true,
        guards: false,
    };
    scenario.try_all("switchover, sync");
}
