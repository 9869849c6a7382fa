//! Variables of connections over several NICs.

use crate::config::Variable;

variables! {
    RAIL_MAP = Variable::text("FLAGCX_P2P_RAIL_MAP", "by network and name", "`own:peer,...`")
        .read_by("connection")
        .changes(
            "Which NICs of this host form rails with which of the peer, for connections that this side makes; no others do. Unset: those \
             of one network, then in the order of names, and others in the place of those that do not reach each other. The NICs over which a connection is made stay its first rail. A map of which no \
             pair is there is a warning, and counts as unset; pairs beyond eight rails are a warning too.",
        )
        .when("NICs are to go together in pairs that neither addresses nor names show.")
        .example("mlx5_0:mlx5_0,mlx5_1:mlx5_3");
    RAIL_SILENCE_MS = Variable::integer("FLAGCX_P2P_RAIL_SILENCE_MS", 2, 1, 60_000)
        .unit("ms")
        .read_by("connection")
        .changes(
            "A rail that has ended nothing for as long, and for `FLAGCX_P2P_RAIL_SILENCE_GAPS` of its usual gaps between completions, is asked \
             whether it works, if another rail goes on. Counters are looked at four times as often.",
        )
        .when("Higher if rails are asked that only wait for others, which metrics show.")
        .example("10");
    RAIL_SILENCE_GAPS = Variable::integer("FLAGCX_P2P_RAIL_SILENCE_GAPS", 8, 0, 1_000_000)
        .read_by("connection")
        .changes("So many of its usual gaps between completions must have passed as well. 0: `FLAGCX_P2P_RAIL_SILENCE_MS` alone counts.")
        .when("Higher where completions come in bursts, lower where requests are long and silence is found late.")
        .example("4");
    RAIL_ANSWER_MS = Variable::integer("FLAGCX_P2P_RAIL_ANSWER_MS", 3, 1, 60_000)
        .unit("ms")
        .read_by("connection")
        .changes("A rail that is asked and does not answer for as long is left: its parts move to others.")
        .when("Higher on long or very busy networks.")
        .example("20");
    RAIL_PAUSE_MS = Variable::integer("FLAGCX_P2P_RAIL_PAUSE_MS", 4, 1, 60_000)
        .unit("ms")
        .read_by("connection")
        .changes(
            "A rail that was left is tried again after as long, then after twice as long each time: up to twice this if it does not answer, \
             up to `FLAGCX_P2P_RAIL_LONGEST_PAUSE_MS` if it answers and fails.",
        )
        .when("Higher where NICs come back only to fail again.")
        .example("100");
    RAIL_LONGEST_PAUSE_MS = Variable::integer("FLAGCX_P2P_RAIL_LONGEST_PAUSE_MS", 1_000, 1, 3_600_000)
        .unit("ms")
        .read_by("connection")
        .changes("The longest pause of a rail that answers and fails. At least `FLAGCX_P2P_RAIL_PAUSE_MS`.")
        .when("Higher where a NIC that flaps costs more than it carries.")
        .example("60000");
    RAIL_FAILURES = Variable::integer("FLAGCX_P2P_RAIL_FAILURES", 2, 1, 1_000_000)
        .read_by("connection")
        .changes("A rail of which so many lanes fail within `FLAGCX_P2P_RAIL_FAILURE_WINDOW_MS` is left, as one that does not answer is.")
        .when("Higher where lanes fail one by one, and their rail works.")
        .example("4");
    RAIL_FAILURE_WINDOW_MS = Variable::integer("FLAGCX_P2P_RAIL_FAILURE_WINDOW_MS", 100, 1, 60_000)
        .unit("ms")
        .read_by("connection")
        .changes(
            "See `FLAGCX_P2P_RAIL_FAILURES`. Also the least time for which a rail must have worked before its pauses are short again.",
        )
        .when("Higher where the failures of one path come far apart.")
        .example("1000");
    RAIL_MIN_BYTES = Variable::integer("FLAGCX_P2P_RAIL_MIN_BYTES", 512 << 10, 4096, 1 << 40)
        .unit("bytes")
        .read_by("connection")
        .changes("A transfer of fewer bytes goes over one rail.")
        .when("Higher where a second NIC costs small transfers more than it brings.")
        .example("4194304");
}
