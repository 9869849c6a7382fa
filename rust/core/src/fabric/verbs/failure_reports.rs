//! What a failed request is called, which is not the same with all drivers.

use super::sys::ibv_device_attr;

/// What the completion of a failure says, by the driver of its device.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailureReports {
    /// It names the request that failed.
    pub(super) name_the_request: bool,
    /// A request that finds no way to the peer ends as a local queue pair operation error: see
    /// [`WorkQueue::path_fails_as_local`](crate::fabric::WorkQueue::path_fails_as_local).
    pub(super) path_as_local: bool,
}

impl FailureReports {
    pub(super) fn of(limits: &ibv_device_attr) -> Self {
        Self { name_the_request: is_mlx5(limits), path_as_local: is_soft_roce(limits) }
    }
}

/// Whether this is the kernel's soft-RoCE. It looks for a route with each packet, and there is none once its link is down.
fn is_soft_roce(limits: &ibv_device_attr) -> bool {
    /// No vendor has this number.
    const VENDOR: u32 = 0xff_ffff;
    limits.vendor_id == VENDOR
}

/// Whether this is the driver that names, in the completion of a failure, the request that failed. Others, such as bnxt_re and irdma,
/// name the oldest that is outstanding.
pub(super) fn is_mlx5(limits: &ibv_device_attr) -> bool {
    /// The vendor's number in the attributes that the driver fills in.
    const VENDOR: u32 = 0x02c9;
    limits.vendor_id == VENDOR && is_mlx5_part(limits.vendor_part_id)
}

/// Connect-IB and every ConnectX since the fourth, or one of them inside a BlueField. Devices of mlx4 have the numbers before the first
/// range, the oldest of them those between the two.
fn is_mlx5_part(part: u32) -> bool {
    matches!(part, 0x1011..=0x1fff | 0xa2d2..=0xa2ff)
}

#[cfg(test)]
mod tests {
    use super::is_mlx5_part;

    #[test]
    fn parts_of_mlx4_are_not_of_mlx5() {
        // Connect-IB, ConnectX-4, 7, 8; BlueField, 2, 3.
        for part in [0x1011, 0x1013, 0x1021, 0x1023, 0xa2d2, 0xa2d6, 0xa2dc] {
            assert!(is_mlx5_part(part), "{part:#x}");
        }
        // ConnectX-3, the last of mlx4, ConnectX and ConnectX-2; what came before.
        for part in [0x1003, 0x1010, 0x6340, 0x673c, 0x676e, 0x5a44, 0x6274] {
            assert!(!is_mlx5_part(part), "{part:#x}");
        }
    }
}
