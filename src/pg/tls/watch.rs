//! Until when the certificate is good that a server shows.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::certificate::Certificate;
use crate::runtime::threads::lock;

/// A new login shows the certificate every 10 s; what was seen longer ago than a few of
/// them is not known any more.
const HOLDS_FOR: Duration = Duration::from_secs(60);

/// Sees every certificate that one server shows, be it acceptable or not.
#[derive(Clone, Debug, Default)]
pub struct CertificateWatch(Arc<Mutex<Option<Seen>>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// In seconds since 1970.
    good_until: i64,
    at: Instant,
}

impl CertificateWatch {
    /// Returns until when the certificate is good that was shown last, in seconds since
    /// 1970; `None` if none was shown for a minute.
    pub fn good_until(&self) -> Option<i64> {
        let seen = (*lock(&self.0))?;
        (seen.at.elapsed() < HOLDS_FOR).then_some(seen.good_until)
    }

    /// Takes note of a certificate.
    pub(super) fn saw(&self, certificate: Option<&Certificate<'_>>) {
        let good_until = certificate.map(Certificate::good_until);
        *lock(&self.0) = good_until.map(|good_until| Seen {
            good_until,
            at: Instant::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_last_certificate_counts_for_a_minute() {
        let mut params = CertificateParams::new(vec!["db".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(2030, 1, 2);
        let made = params.self_signed(&KeyPair::generate().expect("a key"));
        let made = made.expect("a certificate");
        let watch = CertificateWatch::default();
        assert_eq!(watch.good_until(), None);
        watch.clone().saw(Certificate::parse(made.der()).as_ref());
        assert_eq!(watch.good_until(), Some(1_893_542_400));
        if let Some(seen) = lock(&watch.0).as_mut() {
            seen.at -= HOLDS_FOR;
        }
        assert_eq!(watch.good_until(), None);
        watch.saw(Certificate::parse(made.der()).as_ref());
        watch.saw(None);
        assert_eq!(watch.good_until(), None);
    }
}
