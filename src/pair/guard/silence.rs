//! When a primary that does not answer is given up. Pure.

use std::time::{Duration, Instant};

use crate::pair::sql::SqlError;

/// It takes this many questions without an answer.
const MISSES: u32 = 3;

/// A server that starts or recovers is given this long.
const STARTING_AT_MOST: Duration = Duration::from_secs(60);

/// How long a primary has been silent.
#[derive(Debug, Default)]
pub struct Silence {
    since: Option<Instant>,
    misses: u32,
    starting: bool,
}

impl Silence {
    /// Notes an answer, or why there was none.
    pub fn note<T>(&mut self, answer: &Result<T, SqlError>, now: Instant) {
        match answer {
            Err(error) if !error.is_alive() => {
                self.since.get_or_insert(now);
                self.misses += 1;
                self.starting = matches!(error, SqlError::NotYet(_));
            }
            _ => *self = Silence::default(),
        }
    }

    /// Says whether it has been silent for long enough.
    pub fn is_over(&self, confirm: Duration, now: Instant) -> bool {
        let limit = match self.starting {
            true => confirm.max(STARTING_AT_MOST),
            false => confirm,
        };
        let long = self
            .since
            .is_some_and(|since| now.duration_since(since) >= limit);
        long && self.misses >= MISSES
    }

    /// Says since when it has been silent.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIRM: Duration = Duration::from_secs(5);

    fn gone() -> Result<(), SqlError> {
        Err(SqlError::Gone("x".into()))
    }

    #[test]
    fn it_takes_both_the_misses_and_the_time() {
        let began = Instant::now();
        let mut silence = Silence::default();
        for second in 0..10 {
            let now = began + Duration::from_secs(second);
            silence.note(&gone(), now);
            assert_eq!(silence.is_over(CONFIRM, now), second >= 5, "{second}");
        }
        let mut slow = Silence::default();
        for (turn, second) in [0, 6, 12].into_iter().enumerate() {
            let now = began + Duration::from_secs(second);
            slow.note(&gone(), now);
            assert_eq!(slow.is_over(CONFIRM, now), turn == 2);
        }
    }

    #[test]
    fn an_answer_of_any_kind_ends_it_and_a_start_takes_longer() {
        let began = Instant::now();
        let at = |second| began + Duration::from_secs(second);
        let mut silence = Silence::default();
        for second in 0..9 {
            silence.note(&gone(), at(second));
        }
        silence.note(
            &Err::<(), _>(SqlError::Said("too many clients".into())),
            at(9),
        );
        assert_eq!(silence.since(), None);
        let starting = || Err::<(), _>(SqlError::NotYet("starting up".into()));
        for second in 10..80 {
            silence.note(&starting(), at(second));
            let over = silence.is_over(CONFIRM, at(second));
            assert_eq!(over, second >= 70, "{second}");
        }
        silence.note(&gone(), at(80));
        assert!(silence.is_over(CONFIRM, at(80)), "it has gone after all");
    }
}
