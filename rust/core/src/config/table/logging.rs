//! Variables of logging.

use crate::config::Variable;

variables! {
    DEBUG = Variable::text("FLAGCX_DEBUG", "warnings on stderr; inside FlagCX nothing", "VERSION, WARN, INFO, ABORT or TRACE")
        .read_by("the bridge's and the command line's log set-up")
        .changes("How much is logged.")
        .when("INFO to see which device, path and settings are in use.")
        .example("INFO");
    DEBUG_SUBSYS = Variable::text("FLAGCX_DEBUG_SUBSYS", "INIT,ENV", "`[^]name,...`")
        .read_by("the bridge's and the command line's log set-up")
        .changes("Which parts are logged at INFO and below; a leading `^` starts from all and removes.")
        .when("To look at one part only.")
        .example("ALL");
    DEBUG_FILE = Variable::text("FLAGCX_DEBUG_FILE", "stdout in FlagCX, else stderr", "path; `%h` host, `%p` process, `%%`")
        .read_by("the bridge's and the command line's log set-up")
        .changes("Where the log goes.")
        .when("Each process logs to a file of its own.")
        .example("/tmp/flagcx.%h.%p.log");
}
