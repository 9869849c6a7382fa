//! Variables that choose what moves the bytes.

use crate::config::Variable;

variables! {
    FABRIC = Variable::word("FLAGCX_P2P_FABRIC", "auto", &["auto", "verbs", "software"])
        .refuses()
        .read_by("fabric")
        .changes("Which provider runs. `auto`: verbs when an active RDMA port exists, else software, with one warning.")
        .when("`verbs` in production, so that a host without its NIC refuses to connect instead of being slow; `software` for tests.")
        .example("software");
    PATH = Variable::word("FLAGCX_P2P_PATH", "auto", &["auto", "in-process", "cross-memory", "shared", "tcp"])
        .refuses()
        .read_by("fabric::software")
        .changes("The path that software transfers take. A forced path that does not work fails to connect.")
        .when("Tests and measurements of one path.")
        .example("tcp");
    SOFTWARE_DEVICES = Variable::integer("FLAGCX_P2P_SOFTWARE_DEVICES", 1, 1, 32)
        .unit("devices")
        .read_by("fabric::software")
        .changes("How many software devices are listed (`sw0`, `sw1`, ...).")
        .when("Tests of programs that expect several NICs.")
        .example("2");
    FAULTS = Variable::text("FLAGCX_P2P_FAULTS", "no faults", "fault plan")
        .refuses()
        .read_by("fabric::software")
        .changes("Faults that the software fabric injects, seeded and repeatable.")
        .when("Tests only.")
        .example("seed=1,fail=100");
    TRANSPORT = Variable::word("FLAGCX_P2P_TRANSPORT", "ibrc", &["ibrc", "accl"])
        .refuses()
        .read_by("the C++ facade")
        .changes("`accl` hands every call to FlagCX's ACCL transport, in builds that have it.")
        .when("On clusters that use ACCL.")
        .example("accl");
}
