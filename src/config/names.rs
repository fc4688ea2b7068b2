//! Names for the nodes: given, or made of what their hosts are called.

use std::net::IpAddr;

use super::settings::NODES;
use super::value::{MAX_NODE_NAME, is_node_name};
use super::{ConfigError, Source};
use crate::probe::observer::connect::Host;

/// A host, and its address where that is given.
type Place = (Host, Option<IpAddr>);

/// Reads the names, or makes them.
pub(super) fn names(
    source: &Source<'_>,
    hosts: &[Place],
    ports: &[u16],
) -> Result<Vec<String>, ConfigError> {
    let Some((setting, text)) = source.get(&NODES)? else {
        return default_names(hosts, ports);
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let error = |problem: String| Err(ConfigError::new(setting, Some(text), problem));
    if names.len() != hosts.len() {
        return error(format!(
            "must have one name for each of the {} hosts",
            hosts.len()
        ));
    }
    if !names.iter().all(|name| is_node_name(name)) {
        return error("names are 1 to 63 letters, digits, '-', '_' and '.'".to_owned());
    }
    if !are_distinct(&names) {
        return error("names must differ".to_owned());
    }
    Ok(names)
}

/// The host names; with the port, or their places, where that is needed to tell
/// them apart.
fn default_names(hosts: &[Place], ports: &[u16]) -> Result<Vec<String>, ConfigError> {
    let places: Vec<(&Place, &u16)> = hosts.iter().zip(ports).collect();
    if !are_distinct(&places) {
        return Err(ConfigError::new(
            NODES.environment,
            None,
            "must name the nodes: two of the hosts are one server",
        ));
    }
    let plain: Vec<String> = hosts.iter().map(|(host, _)| name_of(host)).collect();
    if are_distinct(&plain) {
        return Ok(plain);
    }
    let with_ports = with(&plain, ports.iter().map(u16::to_string));
    if are_distinct(&with_ports) {
        return Ok(with_ports);
    }
    let with_places = with(&plain, (1..=plain.len()).map(|place| place.to_string()));
    if are_distinct(&with_places) {
        return Ok(with_places);
    }
    Ok((1..=plain.len())
        .map(|place| format!("node-{place}"))
        .collect())
}

/// Appends `-SUFFIX` to each name, which is cut where it becomes too long.
fn with(names: &[String], suffixes: impl Iterator<Item = String>) -> Vec<String> {
    let suffixed = names.iter().zip(suffixes).map(|(name, suffix)| {
        let room = MAX_NODE_NAME - suffix.len() - 1;
        format!("{}-{suffix}", cut(name, room))
    });
    suffixed.collect()
}

/// Makes a name that will do of what a host is called: the whole, or the first
/// label where that is too long.
fn name_of(host: &Host) -> String {
    let Host::Tcp(called) = host else {
        return "local".to_owned();
    };
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = called.chars().map(plain).collect();
    let first = name.split('.').next().unwrap_or_default();
    let short = if name.len() > MAX_NODE_NAME {
        first
    } else {
        &name
    };
    let short = cut(short, MAX_NODE_NAME);
    match is_node_name(short) {
        true => short.to_owned(),
        false => "node".to_owned(),
    }
}

fn cut(name: &str, at_most: usize) -> &str {
    &name[..name.len().min(at_most)]
}

fn are_distinct<T: PartialEq>(all: &[T]) -> bool {
    (1..all.len()).all(|at| !all[..at].contains(&all[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(hosts: &[&str], ports: &[u16]) -> Vec<String> {
        let host = |name: &&str| match name.starts_with('/') {
            true => (Host::Unix(name.into()), None),
            false => (Host::Tcp((*name).to_owned()), None),
        };
        let hosts: Vec<Place> = hosts.iter().map(host).collect();
        default_names(&hosts, ports).expect("distinct hosts")
    }

    #[test]
    fn name_that_is_too_long_is_its_first_label() {
        let tail = "c9akciq32.eu-central-1.rds.amazonaws.com.internal.example.org";
        let (a, b) = (format!("db-a.{tail}"), format!("db-b.{tail}"));
        assert_eq!(made(&[&a, &b], &[1, 1]), ["db-a", "db-b"]);
        assert_eq!(made(&[&a, "db-a"], &[1, 1]), ["db-a-1", "db-a-2"]);
        assert_eq!(made(&[&a, &format!("{a}.")], &[1, 2]), ["db-a-1", "db-a-2"]);
        let label = "x".repeat(75);
        let (one, two) = (format!("{label}1"), format!("{label}2"));
        assert_eq!(made(&[&one], &[1]), ["x".repeat(63)]);
        let names = made(&[&one, &two], &[5432, 5432]);
        assert_eq!(
            names,
            [1, 2].map(|place| format!("{}-{place}", "x".repeat(61)))
        );
        assert!(names.iter().all(|name| is_node_name(name)));
    }

    #[test]
    fn every_host_has_a_name_that_will_do() {
        for (hosts, ports, expected) in [
            (&["fe80::1%eth0"][..], &[1][..], &["fe80--1-eth0"][..]),
            (&["::"], &[1], &["node"]),
            (&["b\u{fc}ro"], &[1], &["b-ro"]),
            (&["/run/a", "/run/b"], &[1, 1], &["local-1", "local-2"]),
            (&["a", "a", "a-1"], &[1, 2, 1], &["a-1", "a-2", "a-1-1"]),
            (&["a", "a-1", "a"], &[7, 1, 8], &["a-7", "a-1-1", "a-8"]),
        ] {
            assert_eq!(made(hosts, ports), expected, "{hosts:?}");
        }
    }
}
