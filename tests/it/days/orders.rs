//! Both containers stopped and started in every order.

use super::{becomes_primary, is_primary};
use crate::support::command::{Observer, other};
use crate::support::deployment::Deployment;

/// Ends both and starts both in every order; who was the primary still is, and
/// the other follows it, by itself.
pub fn every_order_brings_the_same_primary_back(pair: &Deployment, primary: &str, ends: &[&str]) {
    let observer = Observer::start(pair);
    let orders = [[primary, other(primary)], [other(primary), primary]];
    for end in ends {
        for down in orders {
            for up in orders {
                pair.each(end, &down);
                pair.each("start", &up);
                pair.has_primary(primary);
            }
        }
    }
    for both in orders {
        pair.each("restart", &both);
        pair.has_primary(primary);
    }
    observer.end();
}

/// A failover is killed once the new primary takes writes: the old one is fenced
/// and nobody's standby yet. Whoever is started, and when, it takes no write, and
/// `pgpair rejoin` makes the pair whole.
pub fn fenced_primary_is_none_in_any_order(pair: &Deployment, old: &str) {
    let new = other(old);
    let observer = Observer::start(pair);
    pair.each("kill", &[old]);
    let mut failover = pair.begins(&["failover"]);
    failover.says_that("takes writes");
    drop(failover);
    assert!(pair.data(old).join("standby.signal").exists());
    for (down, up) in [
        (["stop", new], [old, new]),
        (["restart", old], [new, old]),
        (["kill", new], [new, old]),
        (["restart", new], [old, new]),
    ] {
        pair.each(down[0], &[down[1]]);
        pair.each("start", &up);
        becomes_primary(pair, new);
        assert!(!is_primary(pair, old), "{down:?} {up:?}");
    }
    pair.does(&["rejoin"]);
    pair.has_primary(new);
    observer.end();
}
