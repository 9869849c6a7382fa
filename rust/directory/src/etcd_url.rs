//! URLs of etcd.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use flagcx_p2p::internals::config;
use flagcx_p2p::internals::control::split_session;
use percent_encoding::percent_decode_str;

use crate::etcd::{Secret, Settings, User};
use crate::url::{PASSWORD, PASSWORD_FILE};
use crate::{Error, Name};

/// The settings of a URL, of which `rest` is what follows `etcd://`. Reads the password where it is.
pub(crate) fn parse(rest: &str, tls: bool) -> Result<Settings, Error> {
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let scheme = if tls { "etcds" } else { "etcd" };
    // What follows an @ that was forgotten would be a password: no part of the URL is shown before it is known to be none.
    let hidden = |problem: &str| Error::Url { url: format!("{scheme}://..."), problem: problem.to_owned() };
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let (hosts, prefix) = place.split_once('/').unwrap_or((place, ""));
    let endpoints: Vec<_> = hosts.split(',').map(endpoint).collect::<Option<_>>().ok_or_else(|| {
        hidden("its servers are not written as HOST, HOST:PORT or [IPv6 ADDRESS]:PORT, separated by commas")
    })?;
    if endpoints.len() > MOST_ENDPOINTS {
        return Err(hidden("it has more than 16 servers"));
    }
    let shown = format!("{scheme}://{place}");
    let error = |problem: String| Error::Url { url: shown.clone(), problem };

    let prefix = prefix.trim_end_matches('/');
    let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { prefix };
    Name::new(prefix).map_err(|_| error("its prefix is not written as a name".to_owned()))?;
    let mut settings = Settings {
        endpoints,
        tls,
        ca: None,
        identity: None,
        user: None,
        prefix: prefix.to_owned(),
        lease: DEFAULT_LEASE,
    };
    options(query, &mut settings).map_err(error)?;
    if let Some(user) = user {
        settings.user = Some(user_of(user, &hidden)?);
    }
    Ok(settings)
}

/// `host:port` with the default port.
fn endpoint(text: &str) -> Option<String> {
    let is_bare = !text.contains(':') || text.ends_with(']');
    let text = if is_bare { format!("{text}:{DEFAULT_PORT}") } else { text.to_owned() };
    let (host, _) = split_session(&text).ok()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    host.bytes().all(fits).then_some(text)
}

fn options(query: &str, settings: &mut Settings) -> Result<(), String> {
    let (mut certificate, mut key) = (None, None);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let file = || {
            let path = percent_decode_str(value).decode_utf8().map_err(|_| format!("{name} is not UTF-8"))?;
            match (path.is_empty(), settings.tls) {
                (true, _) => Err(format!("{name} names no file")),
                (_, false) => Err(format!("{name} is for etcds://")),
                _ => Ok(PathBuf::from(path.into_owned())),
            }
        };
        match name {
            "lease" => settings.lease = lease(value)?,
            "ca" => settings.ca = Some(file()?),
            "cert" => certificate = Some(file()?),
            "key" => key = Some(file()?),
            _ => return Err(format!("option {name:?} is unknown; there are lease, ca, cert and key")),
        }
    }
    settings.identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("cert and key belong together".to_owned()),
    };
    Ok(())
}

fn lease(value: &str) -> Result<Duration, String> {
    let seconds = value.parse().ok().filter(|seconds| LEASES.contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        format!("lease={value:?} is not a number of seconds from {} to {}", LEASES.start(), LEASES.end())
    })
}

fn user_of(text: &str, hidden: &dyn Fn(&str) -> Error) -> Result<User, Error> {
    if text.contains(['/', '?']) {
        return Err(hidden("user and password have / or ?; write these as %2F and %3F"));
    }
    let (name, password) = match text.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (text, None),
    };
    let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(hidden("user and password are not UTF-8")),
    };
    let name = decode(name)?;
    if name.is_empty() {
        return Err(hidden("it has a password and no user"));
    }
    let password = match password {
        Some(password) => decode(password)?,
        None => password_of_the_environment(hidden)?,
    };
    Ok(User { name, password: Secret::new(password) })
}

fn password_of_the_environment(hidden: &dyn Fn(&str) -> Error) -> Result<String, Error> {
    if let Some(password) = env::var_os(PASSWORD) {
        return password.into_string().map_err(|_| hidden("the password of the environment is not UTF-8"));
    }
    // Below the environment are the configuration files.
    let files = config::global();
    if let Some(password) = &files.directory_password {
        return Ok(password.reveal().to_owned());
    }
    let path =
        env::var_os(PASSWORD_FILE).map(PathBuf::from).or_else(|| files.directory_password_file.clone());
    let Some(path) = path else {
        return Err(hidden(
            "it has a user and no password: add it, or set FLAGCX_P2P_DIRECTORY_PASSWORD or FLAGCX_P2P_DIRECTORY_PASSWORD_FILE",
        ));
    };
    let text = fs::read_to_string(&path).map_err(|error| Error::File {
        operation: "read the password of the directory",
        path: path.display().to_string(),
        reason: error.to_string(),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

const DEFAULT_PORT: u16 = 2379;
const DEFAULT_PREFIX: &str = "flagcx-p2p";
const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// Seconds. etcd itself makes no lease shorter than about two elections of a leader.
const LEASES: std::ops::RangeInclusive<u64> = 2..=3600;

/// Servers of one etcd.
const MOST_ENDPOINTS: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good(rest: &str) -> Settings {
        parse(rest, false).unwrap()
    }

    #[test]
    fn every_part_of_a_url_is_read() {
        let settings = good("h");
        assert_eq!(settings.endpoints, ["h:2379"]);
        assert_eq!((settings.prefix.as_str(), settings.lease.as_secs()), ("flagcx-p2p", 10));
        assert!(settings.user.is_none());
        let settings = good("u:p%40%2F:x@a,b:1,[::1],[::1]:2/site/one/?lease=30");
        assert_eq!(settings.endpoints, ["a:2379", "b:1", "[::1]:2379", "[::1]:2"]);
        assert_eq!((settings.prefix.as_str(), settings.lease.as_secs()), ("site/one", 30));
        let user = settings.user.unwrap();
        assert_eq!((user.name.as_str(), user.password), ("u", Secret::new("p@/:x".to_owned())));
        let settings = parse("h/p?ca=%2Fetc/ca.pem&cert=c&key=k", true).unwrap();
        assert_eq!(settings.ca.unwrap().to_str(), Some("/etc/ca.pem"));
        assert!(settings.identity.is_some());
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is_shown() {
        for bad in [
            "",
            ",",
            "h:0",
            "h:x",
            "h h",
            "h/a b",
            "h/%2f",
            "h?lease=1",
            "h?lease=4000",
            "h?lease",
            "h?x=1",
            "h?ca=f",
            "root:hunter2",
            "root:hunter2,h",
            "root:hun/ter2@h",
            "root:hun?ter2@h",
            ":hunter2@h",
            "root:hunter2@",
            "root:hunter2@h:x",
            "root:hunter2@h/a b",
            "root:hunter2@h?lease=x",
        ] {
            let error = parse(bad, false).unwrap_err().to_string();
            assert!(error.contains("etcd://") && !error.contains("hun"), "{bad}: {error}");
        }
        assert!(parse("h?cert=c", true).unwrap_err().to_string().contains("belong together"));
        let settings = good("root:hunter2@h");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_url_panics(text: String, tls: bool) {
            let _ = parse(&text, tls);
        }

        #[test]
        fn no_url_shows_its_password(place in "[a-z:,/?=@ ]{0,20}") {
            if let Err(error) = parse(&format!("u:HUNTER2@{place}"), false) {
                prop_assert!(!error.to_string().contains("HUNTER2"), "{}", error);
            }
        }
    }
}
