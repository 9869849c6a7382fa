//! Variables of cutting transfers into work requests.

use crate::config::Variable;

variables! {
    SLICE_SIZE = Variable::integer("FLAGCX_P2P_SLICE_SIZE", 1 << 30, 0, 1 << 30)
        .unit("bytes")
        .read_by("transfer")
        .changes("Largest piece that goes into one work request; 0 cuts only at what the device can carry.")
        .when("Smaller, to spread single large transfers evenly over the lanes.")
        .example("65536");
    FRAGMENT_LIMIT = Variable::integer("FLAGCX_P2P_FRAGMENT_LIMIT", 4096, 0, 1 << 30)
        .unit("bytes")
        .read_by("transfer")
        .changes("A last piece no larger than this is merged into the one before it. At most the slice size.")
        .when("Rarely.")
        .example("1024");
    MAX_SGE = Variable::integer("FLAGCX_P2P_MAX_SGE", 4, 1, 32)
        .unit("entries")
        .read_by("pool")
        .changes("Scatter/gather entries per work request: short pieces (up to 32 KiB) that are neighbours in remote memory share one request.")
        .when("Higher for many small scattered local pieces; 1 turns gathering off.")
        .example("16");
    MAX_INLINE = Variable::integer("FLAGCX_P2P_MAX_INLINE", 64, 0, 1024)
        .unit("bytes")
        .read_by("pool")
        .changes("WRITEs of host memory up to this size are copied into the work request.")
        .when("Higher for small writes, if the NIC allows; 0 turns it off.")
        .example("128");
    IB_USE_INLINE = Variable::switch("FLAGCX_IB_USE_INLINE", true)
        .read_by("pool")
        .changes("Off: as `FLAGCX_P2P_MAX_INLINE=0`, unless that is set itself.")
        .when("As `FLAGCX_P2P_MAX_INLINE`.")
        .example("0");
}
