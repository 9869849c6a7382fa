//! Variables of authentication.

use crate::config::Variable;

variables! {
    AUTH_KEY_FILE = Variable::text("FLAGCX_P2P_AUTH_KEY_FILE", "no authentication", "file of at least 16 bytes")
        .refuses()
        .read_by("control, notify, fabric::software")
        .changes("Both sides prove that they know this file's content before any key or address leaves the process.")
        .when("The network is shared with others.")
        .example("/etc/flagcx/p2p.key");
    AUTH_ALLOW_ORIGINAL = Variable::switch("FLAGCX_P2P_AUTH_ALLOW_ORIGINAL", false)
        .refuses()
        .read_by("control, notify")
        .changes("With a key set, peers that run the original engine, which cannot prove the key, are accepted too.")
        .when("During a migration only: every peer can claim to run the original engine.")
        .example("1");
    RUNTIME_CONTROL = Variable::switch("FLAGCX_P2P_RUNTIME_CONTROL", false)
        .refuses()
        .read_by("control")
        .changes("Clients of other hosts may read and change `FLAGCX_P2P_SLICE_SIZE` and `FLAGCX_P2P_FRAGMENT_LIMIT` of a running engine, not only those that come over loopback. With a key set no client may.")
        .when("Slices are tuned from another host, on a network where every host may slow transfers down.")
        .example("1");
    ALLOW = Variable::text("FLAGCX_P2P_ALLOW", "every address", "list of `address` or `address/prefix length`")
        .refuses()
        .read_by("control, notify, fabric::software")
        .changes("Connections from other addresses are closed unread. `::ffff:a.b.c.d/n` is the IPv4 network of `n - 96` bits; `::/0` covers no IPv4 address. Bits behind the prefix length do not count. An element that is empty or no network keeps the engine from opening.")
        .when("The peers' networks are known.")
        .example("10.0.0.0/8,2001:db8::/32");
}
