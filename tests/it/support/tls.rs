//! A certificate authority for tests.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::Postgres;

/// A server's certificate and key, in PEM.
pub struct Certificate {
    pub pem: String,
    pub key_pem: String,
}

/// An authority with its certificate in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut about = CertificateParams::default();
        about.distinguished_name.push(DnType::CommonName, name);
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = about.self_signed(&key).expect("signs itself");
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("ca.crt"), certificate.pem()).expect("writes");
        Authority {
            issuer: Issuer::new(about, key),
            directory,
        }
    }

    /// Returns the file for `sslrootcert`.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// Issues a certificate for a host name or an address.
    pub fn certificate_for(&self, host: &str) -> Certificate {
        self.certificate(CertificateParams::new(vec![host.to_owned()]).expect("a host name"))
    }

    /// Issues a certificate for a host name that was good for one day.
    pub fn expired_certificate_for(&self, host: &str) -> Certificate {
        self.certificate_until(host, 2020)
    }

    /// Issues a certificate for a host name that is good from 2020 to the second day of
    /// this year.
    pub fn certificate_until(&self, host: &str, year: i32) -> Certificate {
        let mut about = CertificateParams::new(vec![host.to_owned()]).expect("a host name");
        about.not_before = date_time_ymd(2020, 1, 1);
        about.not_after = date_time_ymd(year, 1, 2);
        self.certificate(about)
    }

    fn certificate(&self, about: CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let signed = about.signed_by(&key, &self.issuer).expect("signs");
        Certificate {
            pem: signed.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// What a shell script made.
pub struct Made {
    pub server: Certificate,
    /// For `sslrootcert`.
    pub roots: String,
}

/// Runs a script in a server's container, where there is OpenSSL; it leaves
/// `server.crt`, `server.key` and `root.crt`.
pub fn made_by_openssl(server: &Postgres, script: &str) -> Made {
    let folder = "cd \"$(mktemp -d)\"; exec 3>&1 >&2";
    let tell = "for name in server.crt server.key root.crt; do cat $name; echo; echo ==; done >&3";
    let said = server
        .container()
        .sh("postgres", &format!("{folder}\n{script}\n{tell}"), b"");
    let parts: Vec<&str> = said.split("\n==").collect();
    let &[pem, key_pem, roots, _] = &parts[..] else {
        panic!("three files are made: {said}");
    };
    Made {
        server: Certificate {
            pem: format!("{pem}\n"),
            key_pem: key_pem.to_owned(),
        },
        roots: roots.to_owned(),
    }
}
