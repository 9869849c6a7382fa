//! A forwarder of TCP connections that can be cut, and that notes what it carries.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Leads to `target` from an address of its own.
pub struct Cable {
    pub address: String,
    is_cut: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
    carried: Arc<Mutex<Carried>>,
}

/// What went through a cable.
#[derive(Clone, Default)]
pub struct Carried {
    /// To the target, all of it.
    pub sent: Vec<u8>,
    /// Bytes from it.
    pub received: usize,
}

impl Cable {
    pub fn new(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (is_cut, sockets) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let carried = Arc::new(Mutex::new(Carried::default()));
        let counts = Arc::clone(&carried);
        let (cut, all, target) = (Arc::clone(&is_cut), Arc::clone(&sockets), target.to_owned());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // A cut one closes what it accepts.
                let far = TcpStream::connect(&target).ok().filter(|_| !cut.load(Ordering::SeqCst));
                let Some(far) = far else { continue };
                for socket in [&near, &far] {
                    socket.set_nodelay(true).unwrap();
                }
                for (is_sent, from, to) in [
                    (true, near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (false, far.try_clone().unwrap(), near.try_clone().unwrap()),
                ] {
                    let counts = Arc::clone(&counts);
                    thread::spawn(move || carry(from, to, is_sent, &counts));
                }
                all.lock().unwrap().extend([near, far]);
            }
        });
        Self { address, is_cut, sockets, carried }
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for socket in self.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }

    /// What it has carried since the last call.
    pub fn take(&self) -> Carried {
        std::mem::take(&mut *self.carried.lock().unwrap())
    }
}

impl Carried {
    /// How often `text` was sent.
    pub fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.sent).matches(text).count()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_sent: bool, counts: &Mutex<Carried>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
        let mut counts = counts.lock().unwrap();
        if is_sent {
            counts.sent.extend_from_slice(&bytes[..count]);
        } else {
            counts.received += count;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
