//! The answer to a client of the runtime control.

use std::net::IpAddr;

use super::dialogue::Dialogue;
use super::error::{HandshakeError, Reason, Step};
use super::{Limits, LocalSide};
use crate::control::wire::{FrameHeader, MAX_RUNTIME_REQUEST, SliceSettings, Tag, WireError};
use crate::observe::report;

/// Answers the request that `header` announces; always returns an error, because such a socket carries no handshake.
pub(super) async fn answer(
    dialogue: &Dialogue<'_>,
    header: FrameHeader,
    local: &LocalSide<'_>,
    limits: &Limits,
) -> HandshakeError {
    let (dialogue, client) = (dialogue.with_short_deadline(), dialogue.peer);
    let refusal = refusal(client.ip(), limits);
    if let Some(problem) = refusal.filter(|_| limits.requires_key()) {
        report!(warn, ClientRefused, peer = client, "runtime control by {client} refused: {problem}");
        return dialogue.fail(Step::RuntimeControl, Reason::Refused(problem));
    }
    let request = match receive_request(&dialogue, header).await {
        Ok(request) => request,
        Err(error) => return error,
    };
    let outcome = match refusal {
        Some(problem) => Err(problem.to_owned()),
        None => request.map(local.slices).map_err(|error| error.to_string()),
    };
    let text = match outcome {
        Ok(settings) => {
            tracing::info!("runtime control by {client}: {settings:?}");
            settings.encode_answer("")
        }
        Err(problem) => {
            report!(warn, ClientRefused, peer = client, "runtime control by {client} refused: {problem}");
            // The settings are not sent to a client that may not read them.
            SliceSettings::default().encode_answer(&problem)
        }
    };
    match dialogue.send_frame(Step::RuntimeControl, Tag::RuntimeControl, text.as_bytes()).await {
        Ok(()) => dialogue.fail(Step::RuntimeControl, Reason::RuntimeControl),
        Err(error) => error,
    }
}

/// The outer error is the socket's, the inner one the client's.
async fn receive_request(
    dialogue: &Dialogue<'_>,
    header: FrameHeader,
) -> Result<Result<SliceSettings, WireError>, HandshakeError> {
    // A longer request is not read.
    if let Err(error) = header.expect(Tag::RuntimeControl, MAX_RUNTIME_REQUEST) {
        return Ok(Err(error));
    }
    let (step, tag) = (Step::RuntimeControl, Tag::RuntimeControl);
    let bytes = dialogue.receive_payload(step, header, tag, MAX_RUNTIME_REQUEST).await?;
    Ok(SliceSettings::parse_request(&bytes))
}

/// Why a client may not use the runtime control; `None` if it may.
fn refusal(client: IpAddr, limits: &Limits) -> Option<&'static str> {
    if limits.auth.is_some() {
        return Some("a key is set (FLAGCX_P2P_AUTH_KEY_FILE), and a request carries no proof of it");
    }
    if client.to_canonical().is_loopback() || limits.runtime_control {
        return None;
    }
    Some(
        "only clients of this host may, through its loopback address; FLAGCX_P2P_RUNTIME_CONTROL=1 permits others",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthKey;
    use crate::config::Config;

    #[test]
    fn clients_that_may_use_runtime_control() {
        let with = |key: bool, everywhere: bool, allow_original: bool| Limits {
            auth: key.then(|| AuthKey::new(&[7; 32])),
            runtime_control: everywhere,
            allow_original,
            ..Limits::from_config(&Config::from_source(&|_| None), None).unwrap()
        };
        let far = ["192.0.2.1", "10.1.2.3", "::ffff:192.0.2.1", "fe80::1", "0.0.0.0", "::"];
        for (host, here) in
            [("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("::ffff:127.0.0.1", true)]
                .into_iter()
                .chain(far.map(|host| (host, false)))
        {
            let client = host.parse().unwrap();
            assert_eq!(refusal(client, &with(false, false, false)).is_none(), here, "{host}");
            assert_eq!(refusal(client, &with(false, true, false)), None, "{host}");
            for (everywhere, allow_original) in [(false, false), (true, false), (false, true), (true, true)] {
                let reason = refusal(client, &with(true, everywhere, allow_original)).unwrap();
                assert!(reason.contains("FLAGCX_P2P_AUTH_KEY_FILE"), "{reason}");
            }
        }
    }
}
