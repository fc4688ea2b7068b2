//! Looks up the addresses of a host.
//!
//! Each family is asked for by itself: musl's resolver fails a name as a whole when
//! the answer about one of them is an error, though the other has addresses.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use dns_lookup::{AddrFamily, AddrInfoHints, SockType, getaddrinfo};

use crate::runtime::threads;

/// How much longer the second family is waited for once the first has addresses:
/// servers of names tell both at once, or one of them late or never (RFC 8305 takes
/// 50 ms for it).
const SECOND_FAMILY: Duration = Duration::from_millis(100);

/// Look-ups under way at once, in threads of their own. musl gives one up after 5 s,
/// so that a name server which is silent about one family would collect them.
const MAX_THREADS: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);

type Found = io::Result<Vec<SocketAddr>>;

/// Looks up a name, or reads an address; the addresses come in the order in which
/// they are to be tried.
///
/// # Errors
///
/// Fails if the name has no address, or nobody can be asked.
pub fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let mut found = in_both_families(name)?;
    found.iter_mut().for_each(|address| address.set_port(port));
    Ok(found)
}

fn in_both_families(name: &str) -> io::Result<Vec<SocketAddr>> {
    let (told, answers) = mpsc::channel();
    for family in [AddrFamily::Inet, AddrFamily::Inet6] {
        ask(name.to_owned(), family, told.clone());
    }
    drop(told);
    let (found, failure) = collect(&answers);
    match failure {
        Some(failure) if found.is_empty() => Err(failure),
        _ => Ok(sorted(found, is_reachable)),
    }
}

/// Asks in a thread of its own, or here if there can be none.
fn ask(name: String, family: AddrFamily, told: Sender<Found>) {
    let is_free = THREADS.fetch_add(1, Ordering::Relaxed) < MAX_THREADS;
    let (again, here) = (name.clone(), told.clone());
    let begun = is_free
        && threads::spawn("resolve".to_owned(), move || {
            // Who does not wait any more needs no answer.
            let _ = told.send(look_up(&name, family));
            THREADS.fetch_sub(1, Ordering::Relaxed);
        })
        .is_ok();
    if !begun {
        THREADS.fetch_sub(1, Ordering::Relaxed);
        let _ = here.send(look_up(&again, family));
    }
}

fn look_up(name: &str, family: AddrFamily) -> Found {
    let hints = AddrInfoHints {
        socktype: SockType::Stream.into(),
        address: family.into(),
        ..AddrInfoHints::default()
    };
    let found = getaddrinfo(Some(name), None, Some(hints))?;
    found.map(|it| it.map(|it| it.sockaddr)).collect()
}

/// Takes the answers of both families, and the last failure.
fn collect(answers: &Receiver<Found>) -> (Vec<SocketAddr>, Option<io::Error>) {
    let (mut found, mut failure) = (Vec::new(), None);
    let next = |found: &Vec<SocketAddr>| match found.is_empty() {
        true => answers.recv().ok(),
        false => answers.recv_timeout(SECOND_FAMILY).ok(),
    };
    while let Some(answer) = next(&found) {
        match answer {
            Ok(addresses) => found.extend(addresses),
            Err(error) => failure = Some(error),
        }
    }
    (found, failure)
}

/// Puts IPv6 first, as everybody does, but where it leads nowhere.
fn sorted(
    mut found: Vec<SocketAddr>,
    is_reachable: impl Fn(SocketAddr) -> bool,
) -> Vec<SocketAddr> {
    found.sort_by_cached_key(|address| match address {
        SocketAddr::V6(_) if is_reachable(*address) => 0,
        SocketAddr::V4(_) => 1,
        SocketAddr::V6(_) => 2,
    });
    found.dedup();
    found
}

/// Says whether there is a way to an address. Nothing is sent.
fn is_reachable(mut address: SocketAddr) -> bool {
    // Any port will do: 9 discards what it gets.
    address.set_port(9);
    let own = (Ipv6Addr::UNSPECIFIED, 0);
    UdpSocket::bind(own)
        .and_then(|socket| socket.connect(address))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        let parsed = list.iter().map(|it| it.parse().expect("an address"));
        parsed.map(|address| SocketAddr::new(address, 1)).collect()
    }

    #[test]
    fn families_are_in_the_order_in_which_they_are_to_be_tried() {
        let found = addresses(&["10.0.0.2", "10.0.0.1", "fd00::2", "fd00::1"]);
        let with = addresses(&["fd00::2", "fd00::1", "10.0.0.2", "10.0.0.1"]);
        assert_eq!(sorted(found.clone(), |_| true), with);
        assert_eq!(sorted(found.clone(), |_| false), found);
    }

    #[test]
    fn one_family_is_enough_and_the_other_is_not_waited_for() {
        let (told, answers) = mpsc::channel();
        told.send(Err(io::Error::other("AAAA"))).expect("taken");
        told.send(Ok(addresses(&["10.0.0.1"]))).expect("taken");
        // `told` lives on: somebody is silent.
        let (found, failure) = collect(&answers);
        assert_eq!(found, addresses(&["10.0.0.1"]));
        assert!(failure.is_some());
    }

    #[test]
    fn address_needs_nobody_to_ask() {
        for text in ["127.0.0.1", "::1"] {
            let found = resolve(text, 5432).expect("an address");
            let expected = SocketAddr::new(text.parse().expect("an address"), 5432);
            assert_eq!(found, [expected]);
        }
        assert!(resolve("no-such-host.invalid", 5432).is_err());
    }
}
