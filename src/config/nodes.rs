//! From a connection string and libpq's variables to one settings value a node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::conninfo::{self, Parameters};
use super::value::is_node_name;
use super::{ConfigError, DATABASE_URL, NODES, Source};
use crate::probe::db::{Host, Password, Settings};
use crate::probe::passfile::{self, Secret};
use crate::probe::tls::{self, Roots, SslMode};

/// libpq's variables and the parameters that they stand in for.
const VARIABLES: [(&str, &str); 11] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGAPPNAME", "application_name"),
];

/// Longest wait for TCP to connect, where nothing else is said. The kernel
/// repeats a lost SYN after 1 s, 3 s, 7 s …: trying anew every second finds a
/// host that came back sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// More hosts than this are not a pair any more; a mistake is likelier.
const NODES_AT_MOST: usize = 16;

/// Reads every node's settings.
pub(super) fn nodes(source: &Source<'_>) -> Result<Vec<(String, Settings)>, ConfigError> {
    let given = Given::read(source)?;
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
                if name.starts_with("--") && parsed.contains_key("password") {
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
        for (variable, parameter) in VARIABLES {
            if let Some(value) = source.environment.get(variable)? {
                parameters.insert(parameter.to_owned(), value.to_owned());
            }
        }
        parameters.extend(from_string.clone());
        Ok(Given {
            parameters,
            from_string,
            string_name,
        })
    }

    fn get(&self, parameter: &str) -> Option<&str> {
        self.parameters.get(parameter).map(String::as_str)
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
        let variable = VARIABLES.iter().find(|(_, name)| *name == parameter);
        let name = variable.map_or(self.string_name.as_str(), |(variable, _)| variable);
        ConfigError::new(name, self.get(parameter), problem)
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
        if count > NODES_AT_MOST {
            return Err(self.error("host", format!("must name at most {NODES_AT_MOST} hosts")));
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
            (Some(name), _) if name.starts_with('/') => Ok((Host::Unix(PathBuf::from(name)), None)),
            // Not to be resolved or shown: most likely it is half a password.
            (Some(name), _) if name.contains(is_in_no_host_name) => Err(self.error(
                "host",
                "has a character that host names do not have; in a URI, write @ : / of a \
                 password as %40 %3A %2F",
            )),
            (Some(name), address) => Ok((Host::Tcp((*name).to_owned()), address)),
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
                text => text
                    .parse()
                    .ok()
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
        let user = match self.get("user") {
            Some(user) => user,
            None => source
                .environment
                .get("USER")?
                .ok_or_else(|| self.error("user", "must name a user; or set PGUSER"))?,
        };
        let sslmode = self.sslmode()?;
        let roots = self.roots(sslmode, source)?;
        let tls = tls::connector(sslmode, roots.as_ref()).map_err(|error| {
            match self.hides("sslrootcert") {
                true => self.error("sslrootcert", error.about("that file")),
                false => self.error("sslrootcert", error.to_string()),
            }
        })?;
        Ok(Settings {
            host: Host::Tcp(String::new()),
            hostaddr: None,
            port: 5432,
            user: user.to_owned(),
            dbname: self.get("dbname").unwrap_or(user).to_owned(),
            password: self.password(source)?,
            application_name: self.get("application_name").unwrap_or("pgpair").to_owned(),
            connect_timeout: self.connect_timeout()?,
            sslmode,
            tls,
        })
    }

    fn sslmode(&self) -> Result<SslMode, ConfigError> {
        let Some(text) = self.get("sslmode") else {
            return Ok(match self.get("sslrootcert") {
                Some("system") => SslMode::VerifyFull,
                _ => SslMode::default(),
            });
        };
        let found = SslMode::ALL.into_iter().find(|mode| mode.word() == text);
        let found = found.ok_or_else(|| {
            self.error(
                "sslmode",
                "use disable, prefer, require, verify-ca or verify-full",
            )
        })?;
        if self.get("sslrootcert") == Some("system") && found != SslMode::VerifyFull {
            return Err(self.error("sslmode", "must be verify-full with sslrootcert=system"));
        }
        Ok(found)
    }

    fn roots(&self, mode: SslMode, source: &Source<'_>) -> Result<Option<Roots>, ConfigError> {
        match self.get("sslrootcert") {
            Some("system") => Ok(Some(Roots::System)),
            Some(path) => Ok(Some(Roots::File(PathBuf::from(path)))),
            None if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) => {
                let usual = in_home(source, ".postgresql/root.crt")?;
                usual.map(Roots::File).map(Some).ok_or_else(|| {
                    self.error(
                        "sslmode",
                        format!(
                            "{} needs sslrootcert (or PGSSLROOTCERT): a file, or system",
                            mode.word()
                        ),
                    )
                })
            }
            None => Ok(None),
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
        match self.get("connect_timeout") {
            None => Ok(CONNECT_TIMEOUT),
            Some(text) => match text.parse() {
                // As in libpq, zero is "no limit"; a probe needs one.
                Ok(0) => Ok(CONNECT_TIMEOUT),
                Ok(seconds @ 1..=60) => Ok(Duration::from_secs(seconds)),
                _ => Err(self.error("connect_timeout", "must be 0 to 60 seconds")),
            },
        }
    }
}

fn is_in_no_host_name(character: char) -> bool {
    character.is_ascii() && !character.is_ascii_alphanumeric() && !"-_.:%".contains(character)
}

/// A file in the user's home directory, if it exists.
fn in_home(source: &Source<'_>, name: &str) -> Result<Option<PathBuf>, ConfigError> {
    let home = source.environment.get("HOME")?;
    Ok(home
        .map(|home| Path::new(home).join(name))
        .filter(|path| path.exists()))
}

fn list(text: Option<&str>) -> Vec<&str> {
    text.map_or(Vec::new(), |text| text.split(',').map(str::trim).collect())
}

fn names(
    source: &Source<'_>,
    hosts: &[(Host, Option<IpAddr>)],
    ports: &[u16],
) -> Result<Vec<String>, ConfigError> {
    let Some((setting, text)) = source.get(&NODES)? else {
        return default_names(hosts, ports);
    };
    let names: Vec<String> = list(Some(text)).into_iter().map(str::to_owned).collect();
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
    if has_duplicates(&names) {
        return error("names must differ".to_owned());
    }
    Ok(names)
}

/// The host names; with the port where that is needed to tell them apart.
fn default_names(
    hosts: &[(Host, Option<IpAddr>)],
    ports: &[u16],
) -> Result<Vec<String>, ConfigError> {
    let plain: Vec<String> = hosts
        .iter()
        .map(|(host, _)| match host {
            Host::Tcp(name) => name.replace(':', "-"),
            Host::Unix(_) => "local".to_owned(),
        })
        .collect();
    let names: Vec<String> = if has_duplicates(&plain) {
        let pairs = plain.iter().zip(ports);
        pairs.map(|(name, port)| format!("{name}-{port}")).collect()
    } else {
        plain
    };
    if has_duplicates(&names) || !names.iter().all(|name| is_node_name(name)) {
        return Err(ConfigError::new(
            NODES.environment,
            None,
            "must name the nodes: their hosts' names will not do",
        ));
    }
    Ok(names)
}

fn has_duplicates(names: &[String]) -> bool {
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}
