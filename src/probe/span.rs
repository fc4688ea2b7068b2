//! A time in which every answer of a node showed the same.

use std::time::Instant;

/// From the first answer that showed something to the latest one, with no other
/// answer between them: so it held all the time from the end of the first round
/// trip to the begin of the latest one.
///
/// Two nodes are compared by their spans. What one showed 0.6 s ago is no fact
/// about the moment in which the other one answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When the first round trip had ended.
    since: Instant,
    /// When the latest round trip began and ended.
    latest: [Instant; 2],
}

impl Span {
    /// Begins with one round trip: nothing is certain of more than one moment in it.
    pub fn begin(round_trip: [Instant; 2]) -> Span {
        Span {
            since: round_trip[1],
            latest: round_trip,
        }
    }

    /// Goes on with a further round trip that showed the same.
    pub fn extend(self, round_trip: [Instant; 2]) -> Span {
        Span {
            latest: round_trip,
            ..self
        }
    }

    /// Continues `former`, or begins anew, if `shown`; ends it otherwise.
    pub fn follow(former: Option<Span>, round_trip: [Instant; 2], shown: bool) -> Option<Span> {
        let goes_on = former.map(|span| span.extend(round_trip));
        shown.then(|| goes_on.unwrap_or_else(|| Span::begin(round_trip)))
    }

    /// Says whether it held during the whole of another round trip.
    pub fn covers(&self, round_trip: [Instant; 2]) -> bool {
        self.since <= round_trip[0] && round_trip[1] <= self.latest[0]
    }

    /// Says whether it had certainly begun by then.
    pub fn has_begun_by(&self, moment: Instant) -> bool {
        self.since <= moment
    }

    /// Says whether both certainly held at one and the same moment.
    pub fn meets(&self, other: &Span) -> bool {
        let both = self.since.max(other.since) <= self.latest[0].min(other.latest[0]);
        both || self.covers(other.latest) || other.covers(self.latest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spans(of: &[&[(u64, u64)]]) -> Vec<Span> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        of.iter()
            .map(|trips| {
                let trip = |&(began, ended)| [at(began), at(ended)];
                trips[1..]
                    .iter()
                    .fold(Span::begin(trip(&trips[0])), |span, it| {
                        span.extend(trip(it))
                    })
            })
            .collect()
    }

    #[test]
    fn two_spans_meet_only_where_one_moment_is_certain() {
        for (one, other, expected) in [
            // One answer each, one after the other: nothing is certain.
            (&[(0, 1)][..], &[(2, 3)][..], false),
            // One answer each at the same time: either may have been first.
            (&[(0, 10)], &[(0, 10)], false),
            (&[(0, 10)], &[(4, 5)], false),
            // The same before and after the other one's answer.
            (&[(0, 1), (4, 5)], &[(2, 3)], true),
            (&[(0, 1), (4, 5)], &[(1, 4)], true),
            // The other one's answer may be of before, or of after.
            (&[(0, 3), (6, 7)], &[(2, 5)], false),
            (&[(0, 1), (4, 7)], &[(2, 5)], false),
            // Long ago, then the other one, for a long time too.
            (&[(0, 1), (100, 101)], &[(600, 601), (900, 901)], false),
            (&[(0, 1), (100, 101)], &[(50, 51), (900, 901)], true),
        ] {
            let both = spans(&[one, other]);
            assert_eq!(both[0].meets(&both[1]), expected, "{one:?} {other:?}");
            assert_eq!(both[1].meets(&both[0]), expected, "{other:?} {one:?}");
        }
    }

    #[test]
    fn an_answer_that_shows_something_else_ends_it() {
        let now = Instant::now();
        let trip = [now, now];
        let first = Span::follow(None, trip, true);
        assert_eq!(first, Some(Span::begin(trip)));
        assert_eq!(Span::follow(first, trip, true), first);
        assert_eq!(Span::follow(first, trip, false), None);
        assert_eq!(Span::follow(None, trip, false), None);
    }
}
