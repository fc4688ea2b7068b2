//! What the bouncer is told to do.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender};

/// Hands the bouncer connections to close.
#[derive(Clone, Debug)]
pub struct Orders(Sender<Order>);

#[derive(Debug)]
pub(super) struct Order {
    pub peer: SocketAddr,
    pub farewell: Vec<u8>,
    /// What may still come from the peer is read, by whoever holds the socket.
    pub listen_on: bool,
    /// Dropped when the order is carried out.
    _done: Option<Sender<()>>,
}

impl Orders {
    /// Makes the two ends: who orders, and where the bouncer listens.
    pub fn channel() -> (Orders, OrderQueue) {
        let (sender, receiver) = std::sync::mpsc::channel();
        (Orders(sender), OrderQueue(receiver))
    }

    /// Ends the connection from `peer`.
    pub fn cut(&self, peer: SocketAddr) {
        self.cut_with(peer, Vec::new());
    }

    /// Ends the connection from `peer` after `farewell`, which goes past
    /// tiny_http, straight into the socket.
    pub fn cut_with(&self, peer: SocketAddr, farewell: Vec<u8>) {
        self.give(peer, farewell, false, None);
    }

    /// Says the last word to `peer` and returns when it is said. What the peer
    /// still sends can be read until [`Orders::cut`].
    pub fn say_last(&self, peer: SocketAddr, farewell: Vec<u8>) {
        let (done, is_done) = std::sync::mpsc::channel();
        self.give(peer, farewell, true, Some(done));
        // Nothing is ever sent: it ends when the order is dropped.
        let _ = is_done.recv();
    }

    fn give(&self, peer: SocketAddr, farewell: Vec<u8>, listen_on: bool, done: Option<Sender<()>>) {
        // The bouncer ends with the process only.
        let _ = self.0.send(Order {
            peer,
            farewell,
            listen_on,
            _done: done,
        });
    }
}

/// Where the bouncer finds its orders.
#[derive(Debug)]
pub struct OrderQueue(pub(super) Receiver<Order>);
