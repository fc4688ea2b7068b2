//! A name server that knows no name: what Docker's own does not know is asked
//! here, and nowhere outside.

use std::net::{IpAddr, UdpSocket};
use std::sync::Once;
use std::thread;

/// Where a question's flags are; the answer's: "response", "no such name".
const FLAGS: std::ops::Range<usize> = 2..4;
const NO_SUCH_NAME: [u8; 2] = [0x81, 0x83];

/// Serves at `address`, from the first call to the end of the tests.
pub fn serve_unknown(address: IpAddr) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let socket = UdpSocket::bind((address, 53)).expect("root may bind port 53");
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((count, client)) = socket.recv_from(&mut bytes) {
                if count >= FLAGS.end {
                    bytes[FLAGS].copy_from_slice(&NO_SUCH_NAME);
                    // Who does not wait any more needs no answer.
                    let _ = socket.send_to(&bytes[..count], client);
                }
            }
        });
    });
}
