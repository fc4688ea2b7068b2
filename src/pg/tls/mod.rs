//! libpq's `sslmode` on rustls. The only folder that names rustls, ring and tokio.

pub mod certificate;
mod driver;
mod names;
mod verifier;
mod watch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use rustls::{CertificateError, ClientConfig, Error, SupportedProtocolVersion, version};

pub use driver::Progress;
use verifier::{UnknownKind, Verifier};
pub use watch::CertificateWatch;

use crate::runtime::read;

/// What goes wrong in a TLS handshake.
pub use rustls::Error as TlsError;

/// How a connection is protected, with libpq's meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Plain text where the server takes it, TLS otherwise.
    Allow,
    /// TLS where that goes well, plain text otherwise.
    #[default]
    Prefer,
    /// Always TLS, unverified unless there are root certificates.
    Require,
    /// TLS with a certificate that the root certificates vouch for.
    VerifyCa,
    /// As `verify-ca`, and the certificate is for the host's name.
    VerifyFull,
}

impl SslMode {
    /// Every mode, from the weakest to the strongest.
    pub const ALL: [SslMode; 6] = [
        SslMode::Disable,
        SslMode::Allow,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ];

    /// Returns libpq's word for this mode.
    pub const fn word(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// Where the certificates come from that may vouch for a server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// A file of PEM certificates.
    File(PathBuf),
    /// The system's trust store.
    System,
}

/// Why root certificates cannot be used.
#[derive(Debug)]
pub enum RootsError {
    /// The file cannot be read, or holds no PEM certificate.
    Unusable(PathBuf, Box<dyn std::error::Error + Send + Sync>),
    /// The file holds no certificate at all.
    Empty(PathBuf),
    /// The system has no trust store where one is looked for.
    NoSystemStore,
}

impl RootsError {
    /// Says it with the file called `name`.
    pub fn about(&self, name: impl fmt::Display) -> String {
        match self {
            RootsError::Unusable(_, cause) => {
                format!("cannot read certificates from {name}: {cause}")
            }
            RootsError::Empty(_) => format!("no certificate in {name}"),
            RootsError::NoSystemStore => "this system has no trust store".to_owned(),
        }
    }
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            RootsError::Unusable(path, _) | RootsError::Empty(path) => self.about(path.display()),
            RootsError::NoSystemStore => self.about(""),
        })
    }
}

impl std::error::Error for RootsError {}

/// A version of TLS. Older ones than these are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    const ALL: [(Version, &'static SupportedProtocolVersion); 2] = [
        (Version::Tls12, &version::TLS12),
        (Version::Tls13, &version::TLS13),
    ];
}

/// How TLS is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much is verified.
    pub mode: SslMode,
    /// Who vouches for servers. Defaults to nobody.
    pub roots: Option<Roots>,
    /// Oldest and newest version. Defaults to both that there are.
    pub versions: (Version, Version),
    /// The host's name is told before the connection is encrypted. Defaults to true.
    pub names_host: bool,
    /// TLS begins without being asked for. Defaults to false.
    pub is_direct: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: SslMode::default(),
            roots: None,
            versions: (Version::Tls12, Version::Tls13),
            names_host: true,
            is_direct: false,
        }
    }
}

/// PostgreSQL's protocol, as TLS calls it.
const PROTOCOL: &[u8] = b"postgresql";

/// Makes TLS sessions for the PostgreSQL driver.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    roots: Option<Arc<verifier::Roots>>,
    verify_name: bool,
    is_direct: bool,
    progress: Progress,
    watch: CertificateWatch,
}

impl Connector {
    /// Makes the connector. With [`SslMode::Disable`] it is there and not used: one
    /// kind of connection is less to carry than two.
    ///
    /// Where there are roots, they turn verification on in every mode, as in libpq;
    /// [`SslMode::Prefer`] and [`SslMode::Allow`] have plain text to fall back to.
    ///
    /// # Errors
    ///
    /// Fails if the root certificates cannot be read or used.
    pub fn new(options: &Options) -> Result<Connector, RootsError> {
        let roots = options
            .roots
            .as_ref()
            .filter(|_| options.mode != SslMode::Disable);
        let roots = roots.map(load).transpose()?.map(Arc::new);
        Ok(Connector {
            config: Arc::new(client_config(options)),
            roots,
            verify_name: options.mode == SslMode::VerifyFull,
            is_direct: options.is_direct,
            progress: Progress::default(),
            watch: CertificateWatch::default(),
        })
    }

    /// Returns who sees the certificates that are shown to it and to what is cloned from
    /// it from now on.
    pub fn watch(&mut self) -> CertificateWatch {
        self.watch = CertificateWatch::default();
        self.watch.clone()
    }

    /// Makes one for connections that are not encrypted.
    pub fn unused() -> Connector {
        Connector::new(&Options::default()).expect("without roots nothing is missing")
    }

    /// Makes one for a single connection, whose progress can be asked for.
    pub fn for_one_connection(&self) -> (Connector, Progress) {
        let progress = Progress::default();
        let connector = Connector {
            progress: progress.clone(),
            ..self.clone()
        };
        (connector, progress)
    }
}

fn client_config(options: &Options) -> ClientConfig {
    let provider = Arc::new(CryptoProvider {
        key_provider: &NoKeys,
        ..ring::default_provider()
    });
    let (from, to) = options.versions;
    let versions = Version::ALL.into_iter();
    let versions = versions.filter(|(version, _)| (from..=to).contains(version));
    let versions: Vec<_> = versions.map(|(_, version)| version).collect();
    let nobody = Verifier {
        roots: None,
        host: None,
        watch: CertificateWatch::default(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("ring supports both versions, and one is left")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(nobody))
        .with_no_client_auth();
    // PostgreSQL gives no session tickets.
    config.resumption = Resumption::disabled();
    config.enable_sni = options.names_host;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config
}

const UNKNOWN_KIND: &str =
    "the server's certificate has a kind of key or signature that pgpair cannot verify";

/// Says what went wrong, for whoever may not see more.
pub fn detail(error: &TlsError) -> &'static str {
    use CertificateError as Is;
    let Error::InvalidCertificate(problem) = error else {
        return "TLS could not be agreed on";
    };
    match problem {
        Is::UnsupportedSignatureAlgorithmContext { .. }
        | Is::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => UNKNOWN_KIND,
        Is::Other(other) if other.0.is::<UnknownKind>() => UNKNOWN_KIND,
        Is::NotValidForName | Is::NotValidForNameContext { .. } => {
            "the server's certificate is for another name"
        }
        Is::UnknownIssuer => "no root certificate vouches for the server's",
        Is::Expired
        | Is::ExpiredContext { .. }
        | Is::NotValidYet
        | Is::NotValidYetContext { .. } => {
            "the server's certificate has expired, or is not good yet"
        }
        _ => "the server's certificate is not acceptable",
    }
}

/// We log in by password; without this, what signs by a client's key would be
/// in the binary too.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("client keys are not supported".to_owned()))
    }
}

fn load(roots: &Roots) -> Result<verifier::Roots, RootsError> {
    let mut store = verifier::Roots::default();
    match roots {
        Roots::File(path) => {
            for certificate in read_pem(path)? {
                store
                    .add(certificate)
                    .map_err(|cause| RootsError::Unusable(path.clone(), cause.into()))?;
            }
            if store.is_empty() {
                return Err(RootsError::Empty(path.clone()));
            }
        }
        Roots::System => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // Such stores hold ancient ones too; others vouch all the same.
                let _ = store.add(certificate);
            }
            if store.is_empty() {
                return Err(RootsError::NoSystemStore);
            }
        }
    }
    Ok(store)
}

/// More than all the authorities of the world take.
const MAX_ROOTS_BYTES: u64 = 16 * 1024 * 1024;

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let (_, bytes) = read::regular_file(path, MAX_ROOTS_BYTES)
        .map_err(|cause| RootsError::Unusable(path.to_owned(), cause.into()))?;
    // Editors of another system put it in front.
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|cause| RootsError::Unusable(path.to_owned(), cause.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(mode: SslMode, roots: &Path) -> Result<Connector, RootsError> {
        Connector::new(&Options {
            mode,
            roots: Some(Roots::File(roots.to_owned())),
            ..Options::default()
        })
    }

    #[test]
    fn a_missing_or_empty_file_of_roots_is_refused_with_its_name() {
        let error = connector(SslMode::VerifyFull, Path::new("/nonexistent/root.crt")).err();
        let said = error.expect("refused").to_string();
        assert!(said.contains("/nonexistent/root.crt"), "{said}");

        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let error = connector(SslMode::VerifyCa, file.path()).err();
        assert!(matches!(error, Some(RootsError::Empty(_))), "{error:?}");
    }

    #[test]
    fn roots_are_not_read_where_nothing_is_encrypted() {
        assert!(connector(SslMode::Disable, Path::new("/nonexistent/root.crt")).is_ok());
    }
}
