//! Who may ask for what: everybody learns roles; what is told besides, and what makes a
//! node work, is for those for whom it is meant.

use std::net::{IpAddr, SocketAddr, TcpStream};

use super::response::Response;

/// Which listening socket a client came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// `--listen`: roles for everybody, details for this host.
    Roles,
    /// `--listen-details`: everything for everybody.
    Details,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Details are told to it.
    gets_details: bool,
    /// It came to an address that no other machine can reach.
    at_loopback: bool,
}

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    host: Host,
    /// A browser sent it on behalf of a page that is not ours, or may have.
    of_a_page: bool,
}

/// The name under which a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// None, an address or `localhost`: nobody else can have that.
    Plain,
    /// One of `--hosts`.
    Listed,
    /// A name that may be anybody's, and may lead here by his will.
    Other,
}

/// What headers say of where a request comes from; the rest of them is nobody's
/// business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// `Host`.
    pub host: Option<&'a [u8]>,
    /// The host of a target in absolute form.
    pub authority: Option<&'a [u8]>,
    /// `Sec-Fetch-Site`: browsers say it to addresses that they trust.
    pub fetch_site: Option<&'a [u8]>,
    /// There is a header that only pages' requests have.
    pub of_a_browser: bool,
}

/// Names by which pgpair may be asked for details, in small letters; `None` for any but
/// at loopback.
pub type Hosts = Option<Vec<String>>;

impl Standing {
    /// Finds out where a client stands that came to `listener`.
    pub fn of(stream: &TcpStream, listener: Listener) -> Standing {
        let ip = |address: std::io::Result<SocketAddr>| address.ok().map(|it| it.ip());
        Standing::between(ip(stream.peer_addr()), ip(stream.local_addr()), listener)
    }

    fn between(peer: Option<IpAddr>, own: Option<IpAddr>, listener: Listener) -> Standing {
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        // The kernel takes neither from another machine.
        let is_here = peer.is_some_and(is_loopback) || (peer.is_some() && peer == own);
        Standing {
            gets_details: is_here || listener == Listener::Details,
            at_loopback: own.is_some_and(is_loopback),
        }
    }
}

impl Origin {
    /// What is known of a request that could not be read: nothing good.
    pub const UNKNOWN: Origin = Origin {
        host: Host::Other,
        of_a_page: true,
    };

    /// Reads the headers.
    pub fn of(headers: Headers<'_>, hosts: &Hosts) -> Origin {
        let named = headers.host.into_iter().chain(headers.authority);
        let host = named.map(|it| host(it, hosts)).max_by_key(|it| *it as u8);
        Origin {
            host: host.unwrap_or(Host::Plain),
            of_a_page: match headers.fetch_site {
                Some(site) => !matches!(site, b"none" | b"same-origin"),
                None => headers.of_a_browser,
            },
        }
    }

    /// Refuses details, if they are not for whoever asks.
    pub fn refuse_details(self, standing: Standing, path: &str, hosts: &Hosts) -> Option<Response> {
        if !standing.gets_details {
            let detail = format!(
                "{path} is not told here; ask on pgpair's own host or in its container, or at \
                 the address of --listen-details"
            );
            return Some(Response::refusal(403, "details_not_here", &detail));
        }
        self.refuse_host(standing, hosts)
    }

    /// Refuses what has a node work: no page of somebody else's may have it do so.
    pub fn refuse_trials(self, standing: Standing, hosts: &Hosts) -> Option<Response> {
        if self.of_a_page {
            let detail = "a page may not have PostgreSQL commit or log in; ask with curl";
            return Some(Response::refusal(403, "cross_site", detail));
        }
        self.refuse_host(standing, hosts)
    }

    fn refuse_host(self, standing: Standing, hosts: &Hosts) -> Option<Response> {
        let is_limited = standing.at_loopback || hosts.is_some();
        let detail = "ask by an address, by localhost or by a name of --hosts";
        (self.host == Host::Other && is_limited)
            .then(|| Response::refusal(403, "unknown_host", detail))
    }
}

fn host(value: &[u8], hosts: &Hosts) -> Host {
    let name = without_port(value).to_ascii_lowercase();
    let Ok(name) = std::str::from_utf8(&name) else {
        return Host::Other;
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name == "localhost" || name.parse::<IpAddr>().is_ok() {
        return Host::Plain;
    }
    let is_listed = hosts.iter().flatten().any(|it| it == name);
    if is_listed { Host::Listed } else { Host::Other }
}

/// Returns the name or address of `name:port`, without the brackets of an address.
fn without_port(value: &[u8]) -> &[u8] {
    if let Some(rest) = value.strip_prefix(b"[") {
        return rest.split(|byte| *byte == b']').next().unwrap_or(rest);
    }
    value.split(|byte| *byte == b':').next().unwrap_or(value)
}

#[cfg(test)]
mod tests;
