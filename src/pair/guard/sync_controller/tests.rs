use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn seen(waits: bool, standby: Option<(bool, u64)>) -> Seen {
    Seen {
        end: Lsn(100),
        waits,
        standby: standby.map(|(synchronous, flushed)| Standby {
            synchronous,
            flushed: Lsn(flushed),
        }),
    }
}

struct Clock(Instant);

impl Clock {
    fn after(&mut self, seconds: u64) -> Instant {
        self.0 += Duration::from_secs(seconds);
        self.0
    }
}

fn sync_controller(mode: Mode, in_force: bool) -> (SyncController, Clock) {
    let now = Instant::now();
    (SyncController::new(mode, LIMIT, in_force, now), Clock(now))
}

/// Brings a promise into force.
fn promised(mode: Mode) -> (SyncController, Clock) {
    let (mut sync_controller, mut clock) = sync_controller(mode, false);
    let streams = seen(false, Some((false, 100)));
    assert_eq!(sync_controller.next(&streams, clock.after(1)), Act::Wait);
    let waits = seen(true, Some((true, 100)));
    assert_eq!(sync_controller.next(&waits, clock.after(0)), Act::Nothing);
    assert_eq!(sync_controller.next(&waits, clock.after(1)), Act::Settle);
    assert_eq!(sync_controller.next(&waits, clock.after(1)), Act::Nothing);
    assert!(!sync_controller.in_force());
    sync_controller.not_settled(clock.after(1));
    assert_eq!(sync_controller.next(&waits, clock.after(1)), Act::Settle);
    assert_eq!(sync_controller.next(&waits, clock.after(1)), Act::Nothing);
    assert_eq!(sync_controller.next(&waits, clock.after(1)), Act::Promise);
    assert!(sync_controller.in_force());
    (sync_controller, clock)
}

#[test]
fn a_promise_comes_into_force_once_the_standby_has_what_came_before_it() {
    let (mut sync_controller, mut clock) = sync_controller(Mode::Sync, false);
    assert_eq!(
        sync_controller.next(&seen(false, None), clock.after(1)),
        Act::Nothing
    );
    assert_eq!(
        sync_controller.next(&seen(false, Some((false, 50))), clock.after(1)),
        Act::Wait
    );
    assert_eq!(
        sync_controller.next(&seen(true, Some((true, 50))), clock.after(1)),
        Act::Settle
    );
    for _ in 0..3 {
        // It is synchronous, and does not have everything yet.
        assert_eq!(
            sync_controller.next(&seen(true, Some((true, 50))), clock.after(1)),
            Act::Nothing
        );
    }
    assert_eq!(
        sync_controller.next(&seen(true, Some((false, 100))), clock.after(1)),
        Act::Nothing
    );
    assert_eq!(
        sync_controller.next(&seen(true, Some((true, 100))), clock.after(1)),
        Act::Promise
    );
    promised(Mode::Strict);
}

#[test]
fn sync_degrades_after_the_limit_and_comes_back_and_strict_never_does() {
    for mode in [Mode::Sync, Mode::Strict] {
        let (mut sync_controller, mut clock) = promised(mode);
        let gone = seen(true, None);
        assert_eq!(sync_controller.next(&gone, clock.after(9)), Act::Nothing);
        let late = sync_controller.next(&gone, clock.after(9));
        if mode == Mode::Strict {
            assert_eq!(late, Act::Nothing);
            assert!(sync_controller.in_force());
            continue;
        }
        assert_eq!(late, Act::Degrade);
        assert!(!sync_controller.in_force());
        assert_eq!(
            sync_controller.next(&seen(false, None), clock.after(9)),
            Act::Nothing
        );
        let back = seen(false, Some((false, 100)));
        assert_eq!(sync_controller.next(&back, clock.after(1)), Act::Wait);
    }
}

#[test]
fn a_standby_that_streams_and_takes_nothing_is_gone_too() {
    let (mut sync_controller, mut clock) = promised(Mode::Sync);
    let stuck = seen(true, Some((true, 99)));
    assert_eq!(sync_controller.next(&stuck, clock.after(1)), Act::Nothing);
    assert_eq!(sync_controller.next(&stuck, clock.after(9)), Act::Nothing);
    assert_eq!(sync_controller.next(&stuck, clock.after(9)), Act::Degrade);
    // It does not come back as long as it takes nothing.
    let still = seen(false, Some((false, 99)));
    assert_eq!(sync_controller.next(&still, clock.after(9)), Act::Nothing);
    let moves = seen(false, Some((false, 100)));
    assert_eq!(sync_controller.next(&moves, clock.after(1)), Act::Wait);
}

#[test]
fn async_takes_back_what_another_mode_left_and_a_setting_that_is_gone_is_no_promise() {
    let (mut sync_controller, mut clock) = sync_controller(Mode::Async, true);
    assert_eq!(
        sync_controller.next(&seen(true, None), clock.after(1)),
        Act::Degrade
    );
    assert_eq!(
        sync_controller.next(&seen(false, None), clock.after(1)),
        Act::Nothing
    );
    let (mut sync_controller, mut clock) = promised(Mode::Strict);
    assert_eq!(
        sync_controller.next(&seen(false, None), clock.after(1)),
        Act::Degrade
    );
    assert!(!sync_controller.in_force());
    assert_eq!(
        sync_controller.next(&seen(false, None), clock.after(1)),
        Act::Wait
    );
}
