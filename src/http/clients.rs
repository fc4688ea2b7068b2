//! Every client that is connected, and who has to go when there is no more room.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::client::{Client, State};

/// So long nobody has to go: a request that was sent is here by then.
const GRACE: Duration = Duration::from_millis(20);

/// Names a connection. Its place comes again, the number does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    place: u32,
    number: u32,
}

impl Token {
    /// As epoll keeps it.
    pub fn to_u64(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.place)
    }

    /// From what epoll kept.
    #[allow(clippy::cast_possible_truncation)]
    pub fn from_u64(data: u64) -> Token {
        Token {
            place: data as u32,
            number: (data >> 32) as u32,
        }
    }
}

/// Who is connected.
#[derive(Default)]
pub struct Clients {
    places: Vec<Place>,
    free: Vec<u32>,
    held_bytes: usize,
}

#[derive(Default)]
struct Place {
    number: u32,
    client: Option<Client>,
    /// What was last counted of it.
    held_bytes: usize,
}

impl Clients {
    /// Takes one in.
    pub fn insert(&mut self, client: Client) -> Token {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("fewer than descriptors")
        });
        let this = &mut self.places[place as usize];
        this.client = Some(client);
        Token {
            place,
            number: this.number,
        }
    }

    /// Returns one that is still connected.
    pub fn get(&mut self, token: Token) -> Option<&mut Client> {
        let this = self.places.get_mut(token.place as usize)?;
        this.client.as_mut().filter(|_| this.number == token.number)
    }

    /// Closes a connection.
    pub fn remove(&mut self, token: Token) -> Option<Client> {
        self.get(token)?;
        let this = &mut self.places[token.place as usize];
        this.number = this.number.wrapping_add(1);
        self.held_bytes -= std::mem::take(&mut this.held_bytes);
        self.free.push(token.place);
        this.client.take()
    }

    /// Counts again what one has us hold. Returns what all have.
    pub fn count_held(&mut self, token: Token) -> usize {
        if let Some(now) = self.get(token).map(|client| client.held_bytes()) {
            let this = &mut self.places[token.place as usize];
            self.held_bytes = self.held_bytes - this.held_bytes + now;
            this.held_bytes = now;
        }
        self.held_bytes
    }

    /// Counts them.
    pub fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Goes through all of them.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &Client)> {
        self.places.iter().zip(0_u32..).filter_map(|(it, place)| {
            let number = it.number;
            Some((Token { place, number }, it.client.as_ref()?))
        })
    }

    /// Picks `count` who have to go: first of those who never had an answer or leave
    /// theirs unread, who has for longest; then who is idle for longest. Nobody goes
    /// who has only just come, or has only just been answered; and who waits for an
    /// answer goes only with `anybody`, after all others.
    pub fn first_to_go(&self, count: usize, anybody: bool) -> Vec<Token> {
        let now = Instant::now();
        let rank = |client: &Client| match client.state {
            State::Asked => 2,
            State::Reading if client.is_known => 1,
            _ => 0,
        };
        let age = |client: &Client| now.saturating_duration_since(client.since);
        let may_go = |(_, client): &(Token, &Client)| {
            age(client) >= GRACE && (anybody || client.state != State::Asked)
        };
        let mut all: Vec<(Token, (i32, Reverse<Duration>))> = self
            .iter()
            .filter(may_go)
            .map(|(token, client)| (token, (rank(client), Reverse(age(client)))))
            .collect();
        let count = count.min(all.len());
        if count < all.len() {
            all.select_nth_unstable_by_key(count, |(_, key)| *key);
        }
        all.truncate(count);
        all.into_iter().map(|(token, _)| token).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::access::{Listener, Standing};

    /// Takes in one that has been at this for so long, and has had an answer or not.
    fn take_in(clients: &mut Clients, state: State, known: bool, seconds: u64) -> Token {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).expect("it listens");
        let standing = Standing::of(&stream, Listener::Roles);
        let mut client = Client::new(stream, standing);
        client.state = state;
        client.is_known = known;
        client.since -= Duration::from_secs(seconds);
        clients.insert(client)
    }

    #[test]
    fn strangers_and_those_who_do_not_read_go_first_then_the_longest_idle() {
        let mut clients = Clients::default();
        let mut take_in = |state, known, seconds| take_in(&mut clients, state, known, seconds);
        let waits = take_in(State::Asked, true, 9);
        let idle = [2, 5].map(|seconds| take_in(State::Reading, true, seconds));
        let stranger = take_in(State::Reading, false, 1);
        let unread = take_in(State::Writing, true, 3);
        let gone = take_in(State::Lingering, true, 1);
        let _new = take_in(State::Reading, false, 0);
        let mut order = Vec::new();
        for count in 1..=7 {
            let picked = clients.first_to_go(count, true);
            order.extend(
                picked
                    .into_iter()
                    .filter(|it| !order.contains(it))
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(order[0], unread);
        assert!(order[1..3].contains(&stranger) && order[1..3].contains(&gone));
        assert_eq!(order[3..], [idle[1], idle[0], waits]);
        assert_eq!(clients.first_to_go(7, false).len(), 5);
    }

    #[test]
    fn a_place_that_comes_again_is_another_s() {
        let mut clients = Clients::default();
        let first = take_in(&mut clients, State::Reading, false, 0);
        assert!(clients.remove(first).is_some());
        let second = take_in(&mut clients, State::Reading, false, 0);
        assert_eq!(first.place, second.place);
        assert!(clients.get(first).is_none() && clients.remove(first).is_none());
        assert_eq!(Token::from_u64(second.to_u64()), second);
        assert_eq!(clients.count(), 1);
    }
}
