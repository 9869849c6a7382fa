//! A gateway that answers what a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::client::Client;
use super::keys::Keys;
use super::settings::{Settings, User};
use super::store::Store;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) token: Option<String>,
    pub(super) body: String,
}

/// What is answered.
pub(super) enum Answer {
    /// A status with a body.
    Text(u16, String),
    /// Bytes as they are, and the end.
    Raw(Vec<u8>),
    /// A status, and a byte of a body every so often, for ever.
    Drip(u16, Duration),
    /// Nothing, for a while.
    Silence(Duration),
    /// The end of the connection.
    Close,
}

/// A server; the thread ends with the process.
pub(super) struct Played {
    pub(super) address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Played {
    pub(super) fn new(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                thread::spawn(move || {
                    let Some(request) = receive(&socket) else { return };
                    all.lock().unwrap().push(request.clone());
                    send(socket, answer(&request));
                });
            }
        });
        Self { address, seen }
    }

    /// The requests so far.
    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

pub(super) fn text(text: &str) -> Answer {
    Answer::Text(200, text.to_owned())
}

pub(super) fn settings(endpoints: &[&str], user: Option<(&str, &str)>) -> Settings {
    Settings {
        endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
        tls: false,
        ca: None,
        identity: None,
        user: user.map(|(name, password)| User {
            name: name.to_owned(),
            password: super::Secret::new(password.to_owned()),
        }),
        prefix: "p".to_owned(),
        lease: Duration::from_secs(2),
    }
}

pub(super) fn store(endpoints: &[&str], user: Option<(&str, &str)>) -> Store {
    Store::new(Client::new(settings(endpoints, user)).unwrap(), Keys::new("p"))
}

fn receive(socket: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut token) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().ok()?
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                token = Some(value.to_owned())
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, token, body: String::from_utf8(body).ok()? })
}

fn send(mut socket: TcpStream, answer: Answer) {
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    let _ = match answer {
        Answer::Text(status, body) => socket.write_all((head(status, body.len()) + &body).as_bytes()),
        Answer::Raw(bytes) => socket.write_all(&bytes),
        Answer::Drip(status, pause) => {
            let mut sent = socket.write_all(head(status, 1 << 30).as_bytes());
            while sent.is_ok() {
                thread::sleep(pause);
                sent = socket.write_all(b" ");
            }
            sent
        }
        Answer::Silence(time) => {
            thread::sleep(time);
            Ok(())
        }
        Answer::Close => Ok(()),
    };
}
