//! Variables of notifications.

use crate::config::Variable;

variables! {
    NOTIF_MAX_PEERS = Variable::integer("FLAGCX_P2P_NOTIF_MAX_PEERS", 64, 1, 1024)
        .unit("peers")
        .read_by("notify")
        .changes("Unauthenticated senders, those that have neither proven the key nor belong to a connection, that may have a notification socket open to one engine; further ones are refused, unless an idle one can be closed. Peers with a connection and senders with the key do not count among them.")
        .when("Original engines that send from other addresses than they connect from.")
        .example("2");
    NOTIF_QUEUE = Variable::integer("FLAGCX_P2P_NOTIF_QUEUE", 16_384, 1, 1 << 20)
        .unit("messages")
        .read_by("notify")
        .changes("Messages of each kind, of 512 bytes and of any size, that may wait to be fetched from one engine. When it is full, peers are read no further, so their sends wait.")
        .when("Higher when messages are fetched rarely; each takes half a KiB.")
        .example("128");
    NOTIF_MAX_BYTES = Variable::integer("FLAGCX_P2P_NOTIF_MAX_BYTES", 1 << 20, 512, 1 << 26)
        .unit("bytes")
        .read_by("notify")
        .changes("The largest message that is taken from a peer of this kind; those of any size that wait may have four times as many bytes together.")
        .when("Programs that send more in one message.")
        .example("4096");
}
