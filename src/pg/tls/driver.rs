//! TLS for the PostgreSQL driver: its traits, on rustls.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use ring::digest;
use rustls::ClientConfig;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as RustlsStream;

use super::certificate::{Certificate, Digest};
use super::verifier::{Verifier, is_checkable};
use super::{Connector, PROTOCOL};

/// How far a connection has come with TLS.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU8>);

const BEGUN: u8 = 1;
const DONE: u8 = 2;

impl Progress {
    /// Says whether the handshake began and did not end well.
    pub fn is_stuck(&self) -> bool {
        self.0.load(Ordering::Relaxed) == BEGUN
    }

    /// Says whether the connection is encrypted.
    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DONE
    }
}

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type TlsConnect = Handshake;
    type Error = std::convert::Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Self::Error> {
        let mut config = ClientConfig::clone(&self.config);
        let verifier = Verifier {
            roots: self.roots.clone(),
            host: self.verify_name.then(|| host.to_owned()),
            watch: self.watch.clone(),
        };
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(verifier));
        // Where a host's name is none of DNS, as an address's, none is told.
        let unnamed = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        Ok(Handshake {
            name: ServerName::try_from(host.to_owned()).unwrap_or(unnamed),
            connector: Arc::new(config).into(),
            must_agree: self.is_direct,
            progress: self.progress.clone(),
        })
    }
}

/// A handshake that is to begin.
pub struct Handshake {
    name: ServerName<'static>,
    connector: TlsConnector,
    /// The server must say that it speaks PostgreSQL's protocol.
    must_agree: bool,
    progress: Progress,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        self.progress.0.store(BEGUN, Ordering::Relaxed);
        Box::pin(async move {
            let stream = self.connector.connect(self.name, stream).await?;
            if self.must_agree && stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
                let cause = rustls::Error::NoApplicationProtocol;
                return Err(io::Error::new(io::ErrorKind::InvalidData, cause));
            }
            self.progress.0.store(DONE, Ordering::Relaxed);
            Ok(Stream(stream))
        })
    }
}

/// A connection that is encrypted.
pub struct Stream<S>(RustlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let shown = self.0.get_ref().1.peer_certificates();
        let bound = shown.and_then(|it| it.first()).and_then(|it| binding(it));
        bound.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// `tls-server-end-point` of RFC 5929: the digest of the certificate, by the
/// function by which it is signed.
fn binding(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::parse(certificate).filter(|it| is_checkable(&it.key))?;
    let algorithm = match parsed.digest()? {
        Digest::Sha256 => &digest::SHA256,
        Digest::Sha384 => &digest::SHA384,
        Digest::Sha512 => &digest::SHA512,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, bytes)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
