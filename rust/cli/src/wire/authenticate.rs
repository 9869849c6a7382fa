//! Authentication of the control stream: with `FLAGCX_P2P_AUTH_KEY_FILE` set, both sides prove that they know the key
//! before any name, address or memory key is sent. It is the exchange of [`flagcx_p2p::internals::auth`]: the client proves
//! first, and one that does not know the key gets a random number and nothing else.

use std::time::Instant;

use flagcx_p2p::internals::auth::{AuthError, AuthKey, Initiator, Nonce, Nonces, Purpose, Responder, random};

use super::Frame;
use super::control::{Control, ControlError};

/// Makes these proofs invalid for the engine's own exchanges, and the other way round.
const PURPOSE: Purpose = Purpose::new("command line tool");

/// The server's side, after `Open` has come with the client's nonce. The client's proof must come before `deadline`.
pub(crate) fn respond(
    key: &AuthKey,
    control: &Control,
    client: Nonce,
    deadline: Instant,
) -> Result<(), ControlError> {
    let server = nonce()?;
    control.send(&Frame::Challenge { nonce: server })?;
    let proof = match control.receive_by(deadline)?.ok_or(ControlError::NotOpened)? {
        Frame::Proof { proof } => proof,
        other => return Err(ControlError::Protocol(format!("expected a proof, not {other:?}"))),
    };
    let nonces = Nonces { initiator: client, responder: server };
    let (_session, proof) = Responder::new(key, PURPOSE, nonces).verify(&proof)?;
    control.send(&Frame::Proof { proof })
}

/// The client's side: takes the server's answer to `Open`, and returns its next frame once both sides have proven the key.
pub(crate) fn initiate(
    key: Option<&AuthKey>,
    control: &Control,
    client: Nonce,
) -> Result<Frame, ControlError> {
    match (control.receive()?, key) {
        (Frame::Challenge { nonce: server }, Some(key)) => {
            prove(key, control, Nonces { initiator: client, responder: server })?;
            control.receive()
        }
        (Frame::Challenge { .. }, None) => Err(AuthError::KeyRequired.into()),
        (_, Some(_)) => Err(AuthError::KeyMissing.into()),
        (frame, None) => Ok(frame),
    }
}

fn prove(key: &AuthKey, control: &Control, nonces: Nonces) -> Result<(), ControlError> {
    let (initiator, proof) = Initiator::prove(key, PURPOSE, nonces);
    let sent = control.send(&Frame::Proof { proof });
    let answer = sent.and_then(|()| control.receive()).map_err(|error| match error {
        ControlError::Closed => AuthError::Refused.into(),
        error => error,
    })?;
    let Frame::Proof { proof } = answer else {
        return Err(ControlError::Protocol(format!("expected a proof, not {answer:?}")));
    };
    initiator.verify(&proof)?;
    Ok(())
}

/// A fresh random number.
pub(crate) fn nonce() -> Result<Nonce, ControlError> {
    random().map_err(|error| ControlError::Io(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use super::super::codec;
    use super::*;

    fn key(text: &str) -> AuthKey {
        AuthKey::new(text.as_bytes())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn pair() -> (TcpStream, Control) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, Control::new(listener.accept().unwrap().0).unwrap())
    }

    /// The results of a client with the first key, and of the server with the second.
    fn exchange(
        client_key: Option<&'static str>,
        server_key: &str,
    ) -> (Result<Frame, ControlError>, Result<(), ControlError>) {
        let (client, server) = pair();
        let client = thread::spawn(move || {
            initiate(client_key.map(key).as_ref(), &Control::new(client).unwrap(), [1; 16])
        });
        let admitted = respond(&key(server_key), &server, [1; 16], soon());
        if admitted.is_ok() {
            server.send(&Frame::Credit { sequence: 7 }).unwrap();
            server.finish();
        } else {
            drop(server);
        }
        (client.join().unwrap(), admitted)
    }

    #[test]
    fn both_sides_must_know_the_same_key() {
        let (frame, admitted) = exchange(Some("one"), "one");
        assert_eq!(frame.unwrap(), Frame::Credit { sequence: 7 });
        admitted.unwrap();
        let (frame, admitted) = exchange(Some("other"), "one");
        assert!(matches!(frame, Err(ControlError::Auth(AuthError::Refused))), "{frame:?}");
        assert!(matches!(admitted, Err(ControlError::Auth(AuthError::WrongKey))), "{admitted:?}");
        let (frame, admitted) = exchange(None, "one");
        assert!(matches!(frame, Err(ControlError::Auth(AuthError::KeyRequired))), "{frame:?}");
        admitted.unwrap_err();
    }

    #[test]
    fn a_client_without_the_key_gets_a_random_number_and_nothing_else() {
        let (_, another_purpose) = Initiator::prove(
            &key("one"),
            Purpose::CONTROL,
            Nonces { initiator: [1; 16], responder: [2; 16] },
        );
        for proof in [[0; 32], another_purpose] {
            let (mut client, server) = pair();
            let admitting = thread::spawn(move || respond(&key("one"), &server, [1; 16], soon()));
            let mut received = codec::encode(&Frame::Challenge { nonce: [0; 16] }).unwrap();
            client.read_exact(&mut received).unwrap();
            let challenge = codec::decode_payload(&received[codec::HEADER..]);
            assert!(matches!(challenge, Ok(Frame::Challenge { .. })), "{challenge:?}");
            client.write_all(&codec::encode(&Frame::Proof { proof }).unwrap()).unwrap();
            assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
            assert!(matches!(admitting.join().unwrap(), Err(ControlError::Auth(AuthError::WrongKey))));
        }
    }
}
