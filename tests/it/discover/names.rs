//! A DNS server, over UDP and TCP, which answers as it is told.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
pub enum Say {
    /// These addresses, of the kind that is asked for; none of that kind is an empty answer.
    Addresses(Vec<IpAddr>),
    /// It is another name.
    Alias(&'static str),
    NoSuchName,
    /// SERVFAIL, REFUSED, …
    Code(u8),
    /// Nothing.
    Silence,
    /// Over UDP only that it does not fit.
    Truncated(Vec<IpAddr>),
}

/// Names it was not told of do not exist.
#[derive(Clone)]
pub struct Names {
    pub addr: SocketAddr,
    told: Arc<Mutex<HashMap<(String, u16), Say>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

const A: u16 = 1;
const AAAA: u16 = 28;

pub fn addresses(texts: &[&str]) -> Say {
    Say::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

impl Names {
    pub fn start() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let names = Self {
            addr: tcp.local_addr().unwrap(),
            told: Arc::default(),
            asked: Arc::default(),
        };
        let udp = UdpSocket::bind(names.addr).unwrap();
        let this = names.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            loop {
                let (length, from) = udp.recv_from(&mut packet).unwrap();
                if let Some(answer) = this.answer(&packet[..length], true) {
                    udp.send_to(&answer, from).unwrap();
                }
            }
        });
        let this = names.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let (this, mut stream) = (this.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut packet = vec![0; u16::from_be_bytes(length).into()];
                        stream.read_exact(&mut packet).unwrap();
                        if let Some(answer) = this.answer(&packet, false) {
                            let mut framed =
                                u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
                            framed.extend(answer);
                            stream.write_all(&framed).unwrap();
                        }
                    }
                });
            }
        });
        names
    }

    /// About both kinds of addresses.
    pub fn tell(&self, name: &str, say: &Say) {
        self.tell_v4(name, say);
        self.tell_v6(name, say);
    }

    pub fn tell_v4(&self, name: &str, say: &Say) {
        self.told
            .lock()
            .unwrap()
            .insert((name.to_owned(), A), say.clone());
    }

    pub fn tell_v6(&self, name: &str, say: &Say) {
        self.told
            .lock()
            .unwrap()
            .insert((name.to_owned(), AAAA), say.clone());
    }

    /// `name/kind/transport`, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn answer(&self, query: &[u8], udp: bool) -> Option<Vec<u8>> {
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] > 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(
                String::from_utf8(query[at + 1..end].to_vec())
                    .unwrap()
                    .to_lowercase(),
            );
            at = end;
        }
        let name = labels.join(".");
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let question = &query[12..at + 5];
        let shown = if kind == A { "A" } else { "AAAA" };
        let transport = if udp { "udp" } else { "tcp" };
        self.asked
            .lock()
            .unwrap()
            .push(format!("{name}/{shown}/{transport}"));

        let said = self.told.lock().unwrap().get(&(name, kind)).cloned();
        let (mut code, mut truncated, mut records) = (0, false, Vec::new());
        let mut say = |addresses: Vec<IpAddr>| {
            for address in addresses {
                let (of, data) = match address {
                    IpAddr::V4(v4) => (A, v4.octets().to_vec()),
                    IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
                };
                if of == kind {
                    records.push((of, data));
                }
            }
        };
        match said.unwrap_or(Say::NoSuchName) {
            Say::Addresses(addresses) => say(addresses),
            Say::Truncated(_) if udp => truncated = true,
            Say::Truncated(addresses) => say(addresses),
            Say::Alias(target) => {
                let mut data = Vec::new();
                for label in target.split('.') {
                    data.push(u8::try_from(label.len()).unwrap());
                    data.extend(label.bytes());
                }
                data.push(0);
                records.push((5, data));
            }
            Say::NoSuchName => code = 3,
            Say::Code(other) => code = other,
            Say::Silence => return None,
        }

        let mut answer = query[..2].to_vec();
        // An answer, recursion desired and available.
        answer.extend([0x81 | if truncated { 2 } else { 0 }, 0x80 | code]);
        answer.extend([0, 1]);
        answer.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
        answer.extend([0, 0, 0, 0]);
        answer.extend(question);
        for (of, data) in records {
            // The name in the question; class IN; a TTL that nobody should keep to.
            answer.extend([0xc0, 12]);
            answer.extend(of.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0x0e, 0x10]);
            answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}
