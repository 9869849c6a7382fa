//! Why a provider could not do something.

/// Why a provider could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FabricError {
    /// A system or library call failed.
    #[error("{operation} on {device} failed: {source_text} (errno {errno}){hint}")]
    Call {
        /// What was attempted, in the library's own words (`ibv_reg_mr`).
        operation: &'static str,
        /// Device, or peer, that it was attempted with.
        device: String,
        /// errno.
        errno: i32,
        /// Its text.
        source_text: String,
        /// What to try, empty or starting with `; `.
        hint: String,
    },
    /// What was asked cannot be had; the text says what was looked for, what was found and what to set.
    #[error("{0}")]
    Unsupported(String),
    /// The peer cannot be reached this way, or says something else than expected.
    #[error("peer {peer}: {reason}")]
    Peer {
        /// Its address.
        peer: String,
        /// What went wrong.
        reason: String,
    },
    /// The deadline passed.
    #[error("{operation}: not finished within its deadline{detail}")]
    TimedOut {
        /// What was attempted.
        operation: &'static str,
        /// More, empty or starting with `: `.
        detail: String,
    },
    /// Accesses to memory go on after its registration has ended, and did not end in time.
    #[error(
        "memory {address:#x}+{length} is still in use by {holders}: it must stay mapped and not be used for anything else"
    )]
    StillInUse {
        /// First byte.
        address: u64,
        /// Bytes.
        length: u64,
        /// This process, or other ones with their pids and whether they are stopped.
        holders: String,
    },
    /// The library is not there or lacks a symbol.
    #[error("cannot load {library}: {reason}")]
    Library {
        /// File looked for.
        library: String,
        /// Why not.
        reason: String,
    },
}

impl FabricError {
    /// A failed call, with errno's text filled in.
    #[doc(hidden)]
    pub fn call(operation: &'static str, device: impl Into<String>, errno: i32) -> Self {
        Self::Call {
            operation,
            device: device.into(),
            errno,
            source_text: errno_text(errno),
            hint: String::new(),
        }
    }

    /// This error with a hint on what to try.
    #[doc(hidden)]
    pub fn with_hint(mut self, text: &str) -> Self {
        if let Self::Call { hint, .. } = &mut self {
            *hint = format!("; {text}");
        }
        self
    }
}

/// What an errno means, without its number, which is told apart.
fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
