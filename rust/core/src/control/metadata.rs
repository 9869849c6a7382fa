//! The metadata string by which engines are found: `ip:port?gpu?notification port`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::host::{self, HostError};

/// The metadata of an engine, exchanged out of band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its control listener. IPv6 is written in brackets, with `%scope` if there is one.
    pub control: SocketAddr,
    /// Its GPU index.
    pub gpu_index: i32,
    /// Port of its notification receiver, 0 for none.
    pub notify_port: u16,
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}?{}?{}", self.control, self.gpu_index, self.notify_port)
    }
}

impl FromStr for Metadata {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let malformed = || HostError::Session(text.to_owned());
        let mut parts = text.split('?');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        let [Some(session), Some(gpu_index), Some(notify_port), None] = parts else {
            return Err(malformed());
        };
        let (host, port) = host::split_session(session)?;
        let mut control = host::parse_address(host).ok_or_else(malformed)?;
        control.set_port(port);
        Ok(Self {
            control,
            gpu_index: gpu_index.parse().map_err(|_| malformed())?,
            notify_port: notify_port.parse().map_err(|_| malformed())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_original_engine() {
        let metadata =
            Metadata { control: "192.0.2.2:53569".parse().unwrap(), gpu_index: 0, notify_port: 48037 };
        assert_eq!(metadata.to_string(), "192.0.2.2:53569?0?48037");
        let metadata = Metadata { control: "[fe80::1%3]:1".parse().unwrap(), gpu_index: -1, notify_port: 0 };
        assert_eq!(metadata.to_string(), "[fe80::1%3]:1?-1?0");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "192.0.2.2:1", "192.0.2.2:1?0", "192.0.2.2:1?0?0?0", "host:1?0?0", "192.0.2.2:1?x?0"]
        {
            assert!(text.parse::<Metadata>().is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn metadata_survives(v6: bool, octets: [u8; 16], port in 1u16.., gpu_index: i32, notify_port: u16) {
            let [a, b, c, d, ..] = octets;
            let control = if v6 { SocketAddr::from((octets, port)) } else { SocketAddr::from(([a, b, c, d], port)) };
            let metadata = Metadata { control, gpu_index, notify_port };
            proptest::prop_assert_eq!(metadata.to_string().parse(), Ok(metadata));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Metadata>();
        }
    }
}
