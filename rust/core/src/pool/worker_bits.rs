//! Bits of workers: a transfer has a set of those that have parts of it.

/// Workers of a pool, at most.
pub const WORKERS_PER_POOL: usize = 8;

/// The bit of the worker of copy streams, which the pool of an engine's first NIC has beside the others.
pub const COPY_WORKER: usize = 63;

/// The bit of a worker: `nic` numbers the NICs of its engine, 0 to 7, and `index` the workers of that NIC's pool. Those of the first NIC
/// have their indices as bits. The last bit is [`COPY_WORKER`]'s: see [`workers_used`].
pub const fn worker_bit(nic: usize, index: usize) -> usize {
    nic * WORKERS_PER_POOL + index
}

/// The NIC and the index of the worker that has this bit; `None` for [`COPY_WORKER`].
pub const fn worker_of_bit(bit: usize) -> Option<(usize, usize)> {
    if bit < COPY_WORKER { Some((bit / WORKERS_PER_POOL, bit % WORKERS_PER_POOL)) } else { None }
}

/// How many of the `workers` of a NIC's pool, the first ones, lanes may use: all, but only seven of the eighth NIC.
pub const fn workers_used(nic: usize, workers: usize) -> usize {
    let bits = if nic == COPY_WORKER / WORKERS_PER_POOL { WORKERS_PER_POOL - 1 } else { WORKERS_PER_POOL };
    if workers < bits { workers } else { bits }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_worker_that_lanes_use_has_a_bit_of_its_own() {
        let mut seen = 1_u64 << COPY_WORKER;
        for nic in 0..8 {
            for index in 0..workers_used(nic, 100) {
                let bit = worker_bit(nic, index);
                assert_eq!((worker_of_bit(bit), seen & 1 << bit), (Some((nic, index)), 0));
                seen |= 1 << bit;
            }
        }
        assert_eq!(
            (seen, worker_of_bit(COPY_WORKER), worker_bit(0, 5), workers_used(3, 4)),
            (u64::MAX, None, 5, 4)
        );
    }
}
