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
        // The bouncer ends with the process only.
        let _ = self.0.send(Order { peer, farewell });
    }
}

/// Where the bouncer finds its orders.
#[derive(Debug)]
pub struct OrderQueue(pub(super) Receiver<Order>);
