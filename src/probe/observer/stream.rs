//! The byte stream under the driver: agrees on TLS, and bounds what a server may
//! send. The driver itself buffers whatever comes.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::pg::tls::Connector;

/// One way to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Without TLS.
    Plain,
    /// TLS, or on the same connection plain text where the server has no TLS.
    TlsIfOffered,
    /// TLS, which the server is asked for.
    Tls,
    /// TLS without asking.
    TlsAtOnce,
}

/// Longest reply to one query, and longest greeting. Replication facts with 100
/// senders and 100 slots take 50 kB. Rows cost the driver up to 25 times their
/// bytes: this costs at most 3 MiB.
const MAX_REPLY: usize = 128 * 1024;

/// What a connection may bring in all, over and above replies: parameters and
/// notifications, which the driver keeps.
const MAX_ASIDE: usize = 64 * 1024;

/// `SSLRequest` of the protocol.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

type BoxError = Box<dyn Error + Send + Sync>;
type Inner = <Connector as MakeTlsConnect<Socket>>::TlsConnect;
type Encrypted = <Connector as MakeTlsConnect<Socket>>::Stream;

/// The server sends more than any answer has.
#[derive(Debug)]
pub struct TooMuch;

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server sends more than an answer can have")
    }
}

impl Error for TooMuch {}

/// Says how much may still be read from a connection.
#[derive(Clone, Debug)]
pub struct Meter {
    left: Arc<AtomicUsize>,
}

impl Meter {
    /// Makes a meter that lets a greeting through.
    pub fn of_greeting() -> Meter {
        Meter {
            left: Arc::new(AtomicUsize::new(MAX_REPLY)),
        }
    }

    /// Lets one more reply through.
    pub fn expect_reply(&self) {
        self.left.store(MAX_REPLY, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> Result<(), TooMuch> {
        let left = self.left.load(Ordering::Relaxed);
        let left = left.checked_sub(bytes).ok_or(TooMuch)?;
        self.left.store(left, Ordering::Relaxed);
        Ok(())
    }
}

/// Makes bounded streams, encrypted or not. The driver is to be told that TLS is
/// required and begins at once: so it leaves all of it to us.
pub struct Bounded {
    tls: Connector,
    way: Way,
    meter: Meter,
}

impl Bounded {
    /// Makes the connector for one connection, read by `meter`.
    pub(super) fn new(tls: Connector, way: Way, meter: Meter) -> Bounded {
        Bounded { tls, way, meter }
    }
}

impl MakeTlsConnect<Socket> for Bounded {
    type Stream = Stream;
    type TlsConnect = Agreement;
    type Error = BoxError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Agreement, BoxError> {
        Ok(Agreement {
            // A name that no certificate can have matters with TLS only.
            inner: MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, domain)
                .map_err(Into::into),
            way: self.way,
            meter: self.meter.clone(),
        })
    }
}

/// Agrees with one server on TLS.
pub struct Agreement {
    inner: Result<Inner, BoxError>,
    way: Way,
    meter: Meter,
}

impl TlsConnect<Socket> for Agreement {
    type Stream = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let meter = self.meter.clone();
            let layer = self.agree(socket).await?;
            Ok(Stream {
                layer,
                meter,
                frames: Frames::default(),
            })
        })
    }
}

impl Agreement {
    async fn agree(self, mut socket: Socket) -> Result<Layer, BoxError> {
        match self.way {
            Way::Plain => return Ok(Layer::Plain(socket)),
            Way::TlsAtOnce => return encrypted(self.inner, socket).await,
            Way::TlsIfOffered | Way::Tls => {}
        }
        socket.write_all(&SSL_REQUEST).await?;
        // Exactly one byte: what a stranger sends after it in plain text must not
        // be taken for what comes encrypted.
        let mut answer = [0];
        socket.read_exact(&mut answer).await?;
        match answer {
            [b'S'] => encrypted(self.inner, socket).await,
            _ if self.way == Way::TlsIfOffered => Ok(Layer::Plain(socket)),
            _ => Err("the server does not offer TLS".into()),
        }
    }
}

async fn encrypted(inner: Result<Inner, BoxError>, socket: Socket) -> Result<Layer, BoxError> {
    let stream = inner?.connect(socket).await?;
    Ok(Layer::Encrypted(Box::new(stream)))
}

enum Layer {
    Plain(Socket),
    Encrypted(Box<Encrypted>),
}

/// A stream that ends with an error when too much has come.
pub struct Stream {
    layer: Layer,
    meter: Meter,
    frames: Frames,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(match &mut this.layer {
            Layer::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Layer::Encrypted(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        })?;
        let new = &buf.filled()[before..];
        let taken = this.meter.take(new.len());
        let read = taken.and_then(|()| this.frames.follow(new));
        Poll::Ready(read.map_err(io::Error::other))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().layer {
            Layer::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Layer::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().layer {
            Layer::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Layer::Encrypted(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().layer {
            Layer::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Layer::Encrypted(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.layer {
            Layer::Plain(_) => ChannelBinding::none(),
            Layer::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

/// Follows the messages as they come: a tag, four bytes of length, the rest.
#[derive(Default)]
struct Frames {
    head: [u8; 5],
    /// Bytes of the head that have come.
    have: usize,
    /// Bytes of the message that have not.
    left: usize,
    /// Bytes of messages that answer nothing.
    aside: usize,
}

impl Frames {
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), TooMuch> {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if self.have == self.head.len() {
                self.have = 0;
                self.begin()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), TooMuch> {
        let [tag, length @ ..] = self.head;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_REPLY {
            return Err(TooMuch);
        }
        // The length counts itself; the driver refuses a smaller one.
        self.left = length.saturating_sub(4);
        if matches!(tag, b'A' | b'S') {
            self.aside += length + 1;
        }
        if self.aside > MAX_ASIDE {
            return Err(TooMuch);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: usize) -> Vec<u8> {
        let length = u32::try_from(body + 4).expect("small");
        [&[tag][..], &length.to_be_bytes(), &vec![7; body]].concat()
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let all = [message(b'D', 0), message(b'S', 30), message(b'D', 9)].concat();
        for size in 1..all.len() {
            let mut frames = Frames::default();
            for piece in all.chunks(size) {
                frames.follow(piece).expect("little");
            }
            assert_eq!((frames.aside, frames.left, frames.have), (35, 0, 0));
        }
    }

    #[test]
    fn what_is_kept_by_the_driver_is_bounded_over_the_whole_connection() {
        for (tag, bounded) in [(b'S', true), (b'A', true), (b'D', false), (b'N', false)] {
            let mut frames = Frames::default();
            let message = message(tag, 1000);
            let outcome = (0..1000).try_for_each(|_| frames.follow(&message));
            assert_eq!(outcome.is_err(), bounded, "{}", char::from(tag));
        }
    }

    #[test]
    fn message_longer_than_any_reply_is_refused_by_its_head() {
        let mut frames = Frames::default();
        assert!(frames.follow(&[b'D', 0x7f, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn each_reply_has_the_whole_bound() {
        let meter = Meter::of_greeting();
        for _ in 0..3 {
            assert!(meter.take(MAX_REPLY).is_ok());
            assert!(meter.take(1).is_err());
            meter.expect_reply();
        }
    }
}
