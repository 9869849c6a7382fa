//! Variables of deadlines.

use crate::config::Variable;

/// A day: longer deadlines have no use, and sums of deadlines stay far from overflow.
const DAY_MS: i64 = 86_400_000;

variables! {
    XFER_TIMEOUT_MS = Variable::integer("FLAGCX_P2P_XFER_TIMEOUT_MS", 30_000, 0, DAY_MS)
        .unit("ms")
        .read_by("transfer")
        .changes("How long a transfer may take before it ends as timed out; 0 for no limit.")
        .when("Higher for very large transfers over slow paths; lower to fail fast.")
        .example("5000");
    FAILED_HOLD_MS = Variable::integer("FLAGCX_P2P_FAILED_HOLD_MS", 35_000, 0, DAY_MS)
        .unit("ms")
        .read_by("transfer")
        .changes("How long flagcxP2pEngineXferStatus keeps answering false for a transfer that failed or timed out, counted from its first such answer, unless the caller asks how it ended; after that it answers true, and the next notification of that thread is refused. 0: true at once.")
        .when("0 where every transfer is followed by a notification (NIXL); above the caller's own limit where it takes true for success (Mooncake: 30 s).")
        .example("0");
    CONNECT_TIMEOUT_MS = Variable::integer("FLAGCX_P2P_CONNECT_TIMEOUT_MS", 10_000, 1, DAY_MS)
        .unit("ms")
        .read_by("control")
        .changes("How long a connect keeps trying while the peer's port refuses or does not answer: one limit for the look-up of a name and for all its addresses together.")
        .when("Higher when peers start far apart in time, or where name servers are slow.")
        .example("2000");
    HANDSHAKE_TIMEOUT_MS = Variable::integer("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", 10_000, 1, DAY_MS)
        .unit("ms")
        .read_by("control")
        .changes("How long a handshake may take once the TCP connection exists. A connect ends within this plus the connect time-out, however many addresses there are. Half-open clients are dropped after it.")
        .when("Higher on very busy hosts.")
        .example("3000");
    KEEPALIVE_MS = Variable::integer("FLAGCX_P2P_KEEPALIVE_MS", 10_000, 0, DAY_MS)
        .unit("ms")
        .read_by("connection, control, notify")
        .changes("How soon the loss of a peer's host is detected. A peer of this engine on another host gets a ping after each ninth of this time (50 ms at least) without a message from it, and counts as lost after a third without one; so does a stopped process. Other peers are detected within about this time, by the kernel's probes. 0 turns both off.")
        .when("Lower to detect the loss of a host sooner; higher where processes or virtual machines are stopped for seconds.")
        .example("2000");
    CONTROL_REDIAL = Variable::integer("FLAGCX_P2P_CONTROL_REDIAL", 0, 0, DAY_MS)
        .unit("ms")
        .read_by("connection, control, notify")
        .changes(
            "For how long the control channel of a connection is dialled again, from all addresses of this host to all of the peer's, after it has failed. \
             Meanwhile transfers go on over the lanes that work. Both ends need it; each waits as long as its own value says. Engines \
             with it listen for channels, and for notifications, on all addresses of the host, of one family, unless `FLAGCX_P2P_BIND` is set. 0: a connection ends with its channel.",
        )
        .when("Connections have rails, or other ways, that outlive the NIC of the control channel. Longer than a third of `FLAGCX_P2P_KEEPALIVE_MS`, which is what the other end may take to notice.")
        .example("15000");
}
