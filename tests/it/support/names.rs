//! A name server: what Docker's own does not know is asked here, and nowhere
//! outside. It knows names such as `refused.198-18-0-2.pgpair.test`, which have that
//! address of IPv4, and what it says about IPv6 is in the first label.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Once;
use std::thread;

/// Where the question begins.
const HEAD_BYTES: usize = 12;

/// Kinds of questions.
const A: u16 = 1;
const AAAA: u16 = 28;

/// Codes of answers.
const FINE: u8 = 0;
const NO_SUCH_NAME: u8 = 3;

/// What may be said about IPv6: the label, and the code; with none, nothing.
pub const ABOUT_IPV6: [(&str, Option<u8>); 5] = [
    ("empty", Some(FINE)),
    ("servfail", Some(2)),
    ("nxdomain", Some(NO_SUCH_NAME)),
    ("refused", Some(5)),
    ("silent", None),
];

/// Returns the name of a host with this address, about whose IPv6 that is said.
pub fn name_of(label: &str, address: IpAddr) -> String {
    let address = address.to_string().replace('.', "-");
    format!("{label}.{address}.pgpair.test")
}

/// Serves at `address`, from the first call to the end of the tests.
pub fn serve(address: IpAddr) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let socket = UdpSocket::bind((address, 53)).expect("root may bind port 53");
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((count, client)) = socket.recv_from(&mut bytes) {
                if let Some(answer) = answer(&bytes[..count]) {
                    // Who does not wait any more needs no answer.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
    });
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let (labels, kind, end) = read(question)?;
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let [label, address, "pgpair", "test"] = labels[..] else {
        return Some(reply(&question[..end], NO_SUCH_NAME, None));
    };
    match kind {
        A => {
            let address = address.replace('-', ".").parse().ok()?;
            Some(reply(&question[..end], FINE, Some(address)))
        }
        AAAA => {
            let known = ABOUT_IPV6.iter().find(|(known, _)| *known == label)?;
            known.1.map(|code| reply(&question[..end], code, None))
        }
        _ => Some(reply(&question[..end], FINE, None)),
    }
}

/// Reads the labels of the name, the kind of question, and where it ends.
fn read(question: &[u8]) -> Option<(Vec<String>, u16, usize)> {
    let (mut at, mut labels) = (HEAD_BYTES, Vec::new());
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
    let kind = question.get(at..at + 2)?;
    question.get(at + 3)?;
    Some((labels, u16::from_be_bytes([kind[0], kind[1]]), at + 4))
}

/// The head and the question again, then perhaps an address that is good for now.
fn reply(question: &[u8], code: u8, address: Option<Ipv4Addr>) -> Vec<u8> {
    let mut bytes = question.to_vec();
    let answers = u8::from(address.is_some());
    bytes[2..HEAD_BYTES].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    if let Some(address) = address {
        // The name that stands at 12; A, of the Internet, for 0 seconds, 4 bytes.
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        bytes.extend(address.octets());
    }
    bytes
}
