//! From a connection string and libpq's variables to one settings value a node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::names::names;
use super::settings::DATABASE_URL;
use super::{ConfigError, Source};
use crate::pg::conninfo::{self, Parameters};
use crate::pg::parameters::{self, PARAMETERS, Support};
use crate::pg::passfile::{self, Secret};
use crate::pg::tls::{self, Connector, Roots, SslMode, Version};
use crate::probe::observer::connect::{ChannelBinding, Host, Password, Settings};

/// Longest wait for TCP to connect, where nothing else is said. The kernel
/// repeats a lost SYN after 1 s, 3 s, 7 s …: trying anew every second finds a
/// host that came back sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// No longer wait is needed: a watcher that is stuck is abandoned long before.
const MAX_CONNECT_TIMEOUT: u64 = 60;

/// More hosts than this are not a pair any more; a mistake is likelier.
const MAX_NODES: usize = 16;

/// Reads every node's settings.
pub(super) fn nodes(source: &Source<'_>) -> Result<Vec<(String, Settings)>, ConfigError> {
    let given = Given::read(source)?;
    given.refuse()?;
    let hosts = given.hosts()?;
    let ports = given.ports(hosts.len())?;
    let common = given.common(source)?;
    let names = names(source, &hosts, &ports)?;
    let settings = hosts
        .into_iter()
        .zip(ports)
        .map(|((host, hostaddr), port)| Settings {
            host,
            hostaddr,
            port,
            ..common.clone()
        });
    Ok(names.into_iter().zip(settings).collect())
}

/// The parameters, and who gave each: the connection string or a variable.
struct Given {
    parameters: Parameters,
    from_string: Parameters,
    string_name: String,
}

impl Given {
    fn read(source: &Source<'_>) -> Result<Given, ConfigError> {
        let (string_name, from_string) = match source.get(&DATABASE_URL)? {
            Some((name, text)) => {
                let parsed = conninfo::parse(text)
                    .map_err(|error| ConfigError::new(&name, None, error.to_string()))?;
                let has_password = parsed.get("password").is_some_and(|it| !it.is_empty());
                if name.starts_with("--") && has_password {
                    return Err(ConfigError::new(
                        name,
                        None,
                        "would show its password to everybody who lists processes; \
                         use PGPASSFILE, or DATABASE_URL in the environment",
                    ));
                }
                (name, parsed)
            }
            None => (DATABASE_URL.environment.to_owned(), Parameters::new()),
        };
        let mut parameters = Parameters::new();
        for known in PARAMETERS.iter().filter(|it| !it.variable.is_empty()) {
            if let Some(value) = source.environment.given(known.variable)? {
                parameters.insert(known.name.to_owned(), value.to_owned());
            }
        }
        // As libpq reads an old one.
        let required = source.environment.given("PGREQUIRESSL")?;
        if required.is_some_and(|it| it.starts_with('1')) {
            let mode = parameters.entry("sslmode".to_owned());
            mode.or_insert_with(|| "require".to_owned());
        }
        parameters.extend(from_string.clone());
        Ok(Given {
            parameters,
            from_string,
            string_name,
        })
    }

    /// Returns a parameter; what is empty is as good as left out.
    fn get(&self, parameter: &str) -> Option<&str> {
        self.word(parameter).filter(|value| !value.is_empty())
    }

    /// Returns a parameter that takes one of some words, of which nothing is none.
    fn word(&self, parameter: &str) -> Option<&str> {
        self.parameters.get(parameter).map(String::as_str)
    }

    /// Refuses what cannot be honoured.
    fn refuse(&self) -> Result<(), ConfigError> {
        for known in &PARAMETERS {
            let problem = match (known.support, self.word(known.name)) {
                (Support::Harmless(check), Some(value)) => check(value).err(),
                (Support::Refused(why), Some(value)) if !value.is_empty() => Some(why),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(self.error(known.name, problem));
            }
        }
        Ok(())
    }

    /// Says whether a value must not be shown, for it came in a connection string.
    fn hides(&self, parameter: &str) -> bool {
        self.from_string.contains_key(parameter)
    }

    /// Makes an error about a parameter, under the name by which it was given.
    /// What came in a connection string is not shown: it may be misread.
    fn error(&self, parameter: &str, problem: impl Into<String>) -> ConfigError {
        let problem = problem.into();
        if self.hides(parameter) {
            return ConfigError::new(format!("{}: {parameter}", self.string_name), None, problem);
        }
        let name = parameters::variable_of(parameter).unwrap_or(&self.string_name);
        ConfigError::new(name, self.word(parameter), problem)
    }

    fn hosts(&self) -> Result<Vec<(Host, Option<IpAddr>)>, ConfigError> {
        let names = list(self.get("host"));
        let addresses = list(self.get("hostaddr"));
        let count = names.len().max(addresses.len());
        if count == 0 {
            return Err(ConfigError::new(
                &self.string_name,
                None,
                "must name a host; set DATABASE_URL, for example \
                 postgresql://user@primary,standby/postgres, or PGHOST",
            ));
        }
        if count > MAX_NODES {
            return Err(self.error("host", format!("must name at most {MAX_NODES} hosts")));
        }
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            return Err(self.error("hostaddr", "must have as many entries as host"));
        }
        (0..count)
            .map(|index| self.host(names.get(index), addresses.get(index)))
            .collect()
    }

    fn host(
        &self,
        name: Option<&&str>,
        address: Option<&&str>,
    ) -> Result<(Host, Option<IpAddr>), ConfigError> {
        let address = match address.filter(|text| !text.is_empty()) {
            Some(text) => Some(
                text.parse()
                    .map_err(|_| self.error("hostaddr", "must be IPv4 or IPv6 addresses"))?,
            ),
            None => None,
        };
        match (name.filter(|text| !text.is_empty()), address) {
            (Some(name), None) if name.starts_with('/') => {
                Ok((Host::Unix(PathBuf::from(name)), None))
            }
            (Some(name), Some(_)) if name.starts_with('/') => {
                Ok((Host::Tcp((*name).to_owned()), address))
            }
            // Not to be resolved or shown: most likely it is half a password.
            (Some(name), _) if name.contains(is_in_no_host_name) => Err(self.error(
                "host",
                "has a character that host names do not have; in a URI, write @ : / of a \
                 password as %40 %3A %2F",
            )),
            (Some(name), address) => Ok((Host::Tcp((*name).to_owned()), address)),
            (None, Some(_)) if self.sslmode()? == SslMode::VerifyFull => Err(self.error(
                "host",
                "must be named for sslmode=verify-full, beside hostaddr",
            )),
            (None, Some(address)) => Ok((Host::Tcp(address.to_string()), Some(address))),
            (None, None) => Err(self.error("host", "must not have an empty entry")),
        }
    }

    fn ports(&self, hosts: usize) -> Result<Vec<u16>, ConfigError> {
        let texts = list(self.get("port"));
        let ports = texts
            .iter()
            .map(|text| match *text {
                "" => Ok(5432),
                text => parameters::whole(text)
                    .and_then(|port| port.try_into().ok())
                    .filter(|port| *port != 0)
                    .ok_or_else(|| self.error("port", "must be 1 to 65535")),
            })
            .collect::<Result<Vec<u16>, ConfigError>>()?;
        match ports.len() {
            0 => Ok(vec![5432; hosts]),
            1 => Ok(vec![ports[0]; hosts]),
            count if count == hosts => Ok(ports),
            _ => Err(self.error("port", "must be one port, or one for each host")),
        }
    }

    /// What every node has in common; host and port are filled in later.
    fn common(&self, source: &Source<'_>) -> Result<Settings, ConfigError> {
        let user = self
            .get("user")
            .or(source.environment.account_name())
            .ok_or_else(|| self.error("user", "must name a user; or set PGUSER"))?;
        let sslmode = self.sslmode()?;
        let is_tls_direct = self.is_tls_direct(sslmode)?;
        let tls = self.tls(&tls::Options {
            mode: sslmode,
            roots: self.roots(sslmode, source)?,
            versions: self.versions()?,
            names_host: self.word("sslsni").is_none_or(|it| it.starts_with('1')),
            is_direct: is_tls_direct,
        })?;
        let name = self
            .get("application_name")
            .or(self.get("fallback_application_name"));
        Ok(Settings {
            host: Host::Tcp(String::new()),
            hostaddr: None,
            port: 5432,
            user: user.to_owned(),
            dbname: self.get("dbname").unwrap_or(user).to_owned(),
            password: self.password(source)?,
            channel_binding: self.channel_binding()?,
            application_name: name.unwrap_or("pgpair").to_owned(),
            options: self.get("options").map(str::to_owned),
            connect_timeout: self.connect_timeout()?,
            sslmode,
            is_tls_direct,
            tls,
        })
    }

    fn sslmode(&self) -> Result<SslMode, ConfigError> {
        let Some(text) = self.word("sslmode") else {
            return Ok(match self.get("sslrootcert") {
                Some("system") => SslMode::VerifyFull,
                _ => SslMode::default(),
            });
        };
        let found = SslMode::ALL.into_iter().find(|mode| mode.word() == text);
        let found = found.ok_or_else(|| {
            self.error(
                "sslmode",
                "use disable, allow, prefer, require, verify-ca or verify-full",
            )
        })?;
        if self.get("sslrootcert") == Some("system") && found != SslMode::VerifyFull {
            return Err(self.error("sslmode", "must be verify-full with sslrootcert=system"));
        }
        Ok(found)
    }

    fn is_tls_direct(&self, mode: SslMode) -> Result<bool, ConfigError> {
        match self.word("sslnegotiation") {
            None | Some("postgres") => Ok(false),
            Some("direct") if is_weak(mode) => Err(self.error(
                "sslnegotiation",
                "direct needs sslmode require, verify-ca or verify-full",
            )),
            Some("direct") => Ok(true),
            Some(_) => Err(self.error("sslnegotiation", "use postgres or direct")),
        }
    }

    /// Reads the oldest and the newest version of TLS.
    fn versions(&self) -> Result<(Version, Version), ConfigError> {
        let read = |parameter, default| match self.word(parameter).unwrap_or(default) {
            "" => Ok(None),
            text => place_of_version(text)
                .map(Some)
                .ok_or_else(|| self.error(parameter, "use TLSv1.2 or TLSv1.3")),
        };
        let (least, most) = ("ssl_min_protocol_version", "ssl_max_protocol_version");
        let from = read(least, "TLSv1.2")?.unwrap_or(0);
        let to = read(most, "")?.unwrap_or(VERSIONS.len() - 1);
        if from > to {
            let (one, problem) = match self.get(least) {
                Some(_) => (least, format!("must not be above {most}")),
                None => (most, "must be TLSv1.2 or TLSv1.3".to_owned()),
            };
            return Err(self.error(one, problem));
        }
        let old = "is not supported: TLS before 1.2 is not spoken";
        let to = VERSIONS[to].1.ok_or_else(|| self.error(most, old))?;
        Ok((VERSIONS[from].1.unwrap_or(Version::Tls12), to))
    }

    fn channel_binding(&self) -> Result<ChannelBinding, ConfigError> {
        match self.word("channel_binding") {
            None | Some("prefer") => Ok(ChannelBinding::Prefer),
            Some("disable") => Ok(ChannelBinding::Disable),
            Some("require") => Ok(ChannelBinding::Require),
            Some(_) => Err(self.error("channel_binding", "use disable, prefer or require")),
        }
    }

    fn tls(&self, options: &tls::Options) -> Result<Connector, ConfigError> {
        Connector::new(options).map_err(|error| match self.hides("sslrootcert") {
            true => self.error("sslrootcert", error.about("that file")),
            false => self.error("sslrootcert", error.to_string()),
        })
    }

    /// Finds who vouches for servers: a file that is named, or the usual one.
    fn roots(&self, mode: SslMode, source: &Source<'_>) -> Result<Option<Roots>, ConfigError> {
        if mode == SslMode::Disable {
            return Ok(None);
        }
        let file = match self.get("sslrootcert") {
            Some("system") => return Ok(Some(Roots::System)),
            // As in libpq, though only where nobody asked for TLS.
            Some(path) if may_be_plain(mode) && !Path::new(path).exists() => None,
            Some(path) => Some(PathBuf::from(path)),
            None => in_home(source, ".postgresql/root.crt")?,
        };
        match file {
            Some(file) => {
                self.refuse_revocations(source)?;
                Ok(Some(Roots::File(file)))
            }
            None if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) => {
                let needs = "needs sslrootcert (or PGSSLROOTCERT): a file, or system";
                Err(self.error("sslmode", format!("{} {needs}", mode.word())))
            }
            None => Ok(None),
        }
    }

    /// libpq looks at the usual list of revoked certificates without being told.
    fn refuse_revocations(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        match in_home(source, ".postgresql/root.crl")? {
            None => Ok(()),
            Some(path) => Err(ConfigError::new(
                path.display().to_string(),
                None,
                "is not supported: no list of revoked certificates is looked at; \
                 move it away to go without",
            )),
        }
    }

    fn password(&self, source: &Source<'_>) -> Result<Password, ConfigError> {
        if let Some(password) = self.get("password") {
            return Ok(Password::Given(Secret::new(password)));
        }
        let path = match self.get("passfile") {
            Some(path) => PathBuf::from(path),
            None => match in_home(source, ".pgpass")? {
                Some(path) => path,
                None => return Ok(Password::None),
            },
        };
        passfile::read(&path).map_err(|error| match self.hides("passfile") {
            true => self.error("passfile", error.about("that file")),
            false => self.error("passfile", error.to_string()),
        })?;
        Ok(Password::File(path))
    }

    fn connect_timeout(&self) -> Result<Duration, ConfigError> {
        let Some(text) = self.get("connect_timeout") else {
            return Ok(CONNECT_TIMEOUT);
        };
        let seconds = parameters::whole(text)
            .ok_or_else(|| self.error("connect_timeout", "must be a whole number of seconds"))?;
        // As in libpq, zero and less is "no limit"; a probe needs one.
        Ok(match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Duration::from_secs(seconds.min(MAX_CONNECT_TIMEOUT)),
            _ => CONNECT_TIMEOUT,
        })
    }
}

/// libpq's words for versions of TLS, and those that are spoken here.
const VERSIONS: [(&str, Option<Version>); 4] = [
    ("TLSv1", None),
    ("TLSv1.1", None),
    ("TLSv1.2", Some(Version::Tls12)),
    ("TLSv1.3", Some(Version::Tls13)),
];

fn place_of_version(text: &str) -> Option<usize> {
    VERSIONS
        .iter()
        .position(|(word, _)| word.eq_ignore_ascii_case(text))
}

fn is_weak(mode: SslMode) -> bool {
    mode == SslMode::Disable || may_be_plain(mode)
}

fn may_be_plain(mode: SslMode) -> bool {
    matches!(mode, SslMode::Allow | SslMode::Prefer)
}

fn is_in_no_host_name(character: char) -> bool {
    character.is_ascii() && !character.is_ascii_alphanumeric() && !"-_.:%".contains(character)
}

/// A file in the user's home directory, if it exists.
fn in_home(source: &Source<'_>, name: &str) -> Result<Option<PathBuf>, ConfigError> {
    let home = source.environment.home()?;
    Ok(home
        .map(|home| home.join(name))
        .filter(|path| path.exists()))
}

fn list(text: Option<&str>) -> Vec<&str> {
    text.map_or(Vec::new(), |text| text.split(',').collect())
}
