//! libpq's `sslmode` on rustls. The only file that names rustls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, KeyProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Makes TLS sessions for the PostgreSQL driver.
pub use tokio_postgres_rustls::MakeRustlsConnect as Connector;

/// What goes wrong in a TLS handshake.
pub use rustls::Error as TlsError;

/// How a connection is protected, with libpq's meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS where the server offers it, unverified; plain text otherwise.
    #[default]
    Prefer,
    /// Always TLS, unverified unless root certificates are given.
    Require,
    /// TLS with a certificate that the root certificates vouch for.
    VerifyCa,
    /// As `verify-ca`, and the certificate is for the host's name.
    VerifyFull,
}

impl SslMode {
    /// Every mode, from the weakest to the strongest.
    pub const ALL: [SslMode; 5] = [
        SslMode::Disable,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ];

    /// Returns libpq's word for this mode.
    pub const fn word(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
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

/// Makes the connector for a mode and its roots. With [`SslMode::Disable`] it is
/// there and not used: one kind of connection is less to carry than two.
///
/// `roots` are required for the two verifying modes. With [`SslMode::Require`]
/// they turn verification of the chain on, as in libpq.
///
/// # Errors
///
/// Fails if the root certificates cannot be read or used.
pub fn connector(mode: SslMode, roots: Option<&Roots>) -> Result<Connector, RootsError> {
    let provider = Arc::new(CryptoProvider {
        key_provider: &NoKeys,
        ..ring::default_provider()
    });
    let (roots, verify_name) = match (mode, roots) {
        (SslMode::Disable | SslMode::Prefer, _) => (None, false),
        (SslMode::Require | SslMode::VerifyCa, roots) => (roots, false),
        (SslMode::VerifyFull, roots) => (roots, true),
    };
    let chain = match roots {
        Some(roots) => {
            let store = Arc::new(load(roots)?);
            let verifier =
                WebPkiServerVerifier::builder_with_provider(store, Arc::clone(&provider))
                    .build()
                    .map_err(|_| RootsError::NoSystemStore)?;
            Some(verifier)
        }
        None => None,
    };
    let verifier = Verifier {
        chain,
        verify_name,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // PostgreSQL gives no session tickets.
    config.resumption = Resumption::disabled();
    Ok(Connector::new(config))
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

fn load(roots: &Roots) -> Result<RootCertStore, RootsError> {
    let mut store = RootCertStore::empty();
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
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(RootsError::NoSystemStore);
            }
        }
    }
    Ok(store)
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|cause| RootsError::Unusable(path.to_owned(), cause.into()))
}

/// Verifies as much of a server's certificate as the mode asks for. The
/// handshake's signatures are always verified.
#[derive(Debug)]
struct Verifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    verify_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is checked last, after the chain has been accepted.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.verify_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_file_of_roots_is_refused_with_its_name() {
        let missing = Roots::File(PathBuf::from("/nonexistent/root.crt"));
        let error = connector(SslMode::VerifyFull, Some(&missing)).err();
        let said = error.expect("refused").to_string();
        assert!(said.contains("/nonexistent/root.crt"), "{said}");

        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let empty = Roots::File(file.path().to_owned());
        let error = connector(SslMode::VerifyCa, Some(&empty)).err();
        assert!(matches!(error, Some(RootsError::Empty(_))), "{error:?}");
    }

    #[test]
    fn roots_are_not_read_where_nothing_is_verified() {
        let missing = Roots::File(PathBuf::from("/nonexistent/root.crt"));
        for mode in [SslMode::Disable, SslMode::Prefer] {
            assert!(connector(mode, Some(&missing)).is_ok(), "{mode:?}");
        }
    }
}
