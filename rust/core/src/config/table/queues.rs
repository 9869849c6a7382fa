//! Variables of workers, queue pairs and waiting queues.

use crate::config::Variable;

variables! {
    QPS_PER_CONN = Variable::integer("FLAGCX_P2P_QPS_PER_CONN", 4, 1, 8)
        .unit("queue pairs")
        .read_by("connection")
        .changes("Queue pairs offered to each peer; the smaller offer of the two sides is used.")
        .when("More for one fast peer, fewer for very many peers.")
        .example("2");
    RAILS = Variable::integer("FLAGCX_P2P_RAILS", 8, 1, 8)
        .unit("rails")
        .read_by("connection")
        .changes(
            "Most rails of a connection: pairs of a NIC here and one of the peer's, each with queue pairs of its own. Memory is \
             registered with each NIC that a rail has needed. 1: the engine uses the one NIC that it has chosen.",
        )
        .when("1 to leave the other NICs to other programs, or to compare.")
        .example("1");
    WORKERS_PER_POOL = Variable::integer("FLAGCX_P2P_WORKERS_PER_POOL", 4, 1, 8)
        .unit("threads")
        .read_by("pool")
        .changes("Worker threads per NIC, each with a completion queue; at most as many as `FLAGCX_P2P_QPS_PER_CONN`. 1 is a single shared completion queue.")
        .when("Fewer when cores are scarce.")
        .example("1");
    SHARD_COUNT = Variable::integer("FLAGCX_P2P_SHARD_COUNT", 8, 1, 64)
        .unit("queues")
        .read_by("pool")
        .changes("Submission queues per NIC, dealt to its workers; at least as many as there are workers.")
        .when("More when very many threads submit at once.")
        .example("16");
    QUEUE_DEPTH = Variable::integer("FLAGCX_P2P_QUEUE_DEPTH", 4096, 1, 65_536)
        .unit("transfers")
        .read_by("pool")
        .changes("Transfers, or parts of one, that may wait in one submission queue while its worker is busy with others. When it is full, blocking calls wait and `try_` calls answer WouldBlock.")
        .when("Higher for bursts from many threads at once, lower to be refused sooner while a worker is blocked.")
        .example("64");
    CQ_DEPTH = Variable::integer("FLAGCX_P2P_CQ_DEPTH", 4096, 1, 1 << 20)
        .unit("entries")
        .read_by("pool")
        .changes("Completion queue entries per NIC, split over its workers. Requests in flight never exceed it.")
        .when("Higher for very many busy connections.")
        .example("1024");
    MAX_WR_PER_POST = Variable::integer("FLAGCX_P2P_MAX_WR_PER_POST", 256, 1, 1024)
        .unit("requests")
        .read_by("pool")
        .changes("Work requests handed to the NIC in one call, never more than 64, which fill the first-level cache; also, in full, the limit of the adaptor table's `igetBatch`.")
        .when("Lower for fairness between connections, higher for longer batches of the adaptor table.")
        .example("64");
    MAX_REQUESTS = Variable::integer("FLAGCX_P2P_MAX_REQUESTS", 256, 1, 65_536)
        .unit("requests")
        .read_by("pool")
        .changes("Four times this many work requests may be posted per NIC at any time.")
        .when("Higher on long or very fast links.")
        .example("512");
    BATCH_POLL_SIZE = Variable::integer("FLAGCX_P2P_BATCH_POLL_SIZE", 64, 1, 256)
        .unit("completions")
        .read_by("pool")
        .changes("Completions taken from a completion queue in one call.")
        .when("Rarely: see the tuning guide.")
        .example("16");
    SPIN_US = Variable::integer("FLAGCX_P2P_SPIN_US", 20, 0, 1_000_000)
        .unit("us")
        .read_by("pool")
        .changes(
            "How long a worker, or a caller that waits, polls before it sleeps. Without a NIC a caller goes on for up to 500 us \
             and the thread that serves TCP for up to 200 us, while their cores are idle; not at 0.",
        )
        .when("Higher for the last microsecond of latency on idle cores; 0 where cores are scarce.")
        .example("0");
}
