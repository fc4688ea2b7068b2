//! Certificates, as a server shows them.

use pgpair::pg::tls::certificate::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

/// The key is the one that webpki finds; whatever is shown does no harm.
pub fn certificate(bytes: &[u8]) {
    let ours = Certificate::parse(bytes);
    if let Some(ours) = &ours {
        for host in ["db.example.com", "127.0.0.1", "::1", ""] {
            ours.is_for(host);
        }
        ours.digest();
        ours.key.modulus_bytes();
        ours.is_good_at(0);
        ours.is_for_servers();
        ours.may_issue();
        ours.demands_more();
    }
    let der = CertificateDer::from(bytes);
    // webpki looks at some parts later, or not at all.
    if let (Ok(theirs), Some(ours)) = (ParsedCertificate::try_from(&der), ours) {
        let key = theirs.subject_public_key_info();
        assert!(key.ends_with(ours.key.bits), "{bytes:?}");
    }
}
