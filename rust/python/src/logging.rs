//! The log of the engine: to stderr or `FLAGCX_DEBUG_FILE`, as `FLAGCX_DEBUG` and `FLAGCX_DEBUG_SUBSYS` say.

/// Starts it at the first engine.
pub(crate) fn start() {
    flagcx_p2p_cli::start_logging();
}
