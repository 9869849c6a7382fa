//! Attributes of a device that only sysfs has. Each may be missing: in containers, or under a stand-in library.

use std::path::{Path, PathBuf};

use crate::topology;

/// `/sys/class/infiniband/<device>`.
#[derive(Clone, Debug)]
pub(super) struct DeviceFiles {
    folder: PathBuf,
}

impl DeviceFiles {
    /// The files of `device` under `root` (`/sys` on a real machine).
    pub(super) fn new(root: &Path, device: &str) -> Self {
        Self { folder: root.join("class/infiniband").join(device) }
    }

    /// The device's own folder in the PCI (or virtual) tree, links resolved.
    pub(super) fn device_path(&self) -> Option<String> {
        let path = std::fs::canonicalize(self.folder.join("device")).ok()?;
        path.to_str().map(str::to_owned)
    }

    /// RoCE version of a GID, 1 or 2.
    pub(super) fn roce_version(&self, port: u8, index: u8) -> Option<u8> {
        topology::roce_version(&self.gid_attribute(port, "types", index)?)
    }

    /// Network interface of a GID.
    pub(super) fn netdev(&self, port: u8, index: u8) -> Option<String> {
        topology::gid_interface(&self.gid_attribute(port, "ndevs", index)?).map(str::to_owned)
    }

    fn gid_attribute(&self, port: u8, kind: &str, index: u8) -> Option<String> {
        let file = self.folder.join(format!("ports/{port}/gid_attrs/{kind}/{index}"));
        std::fs::read_to_string(file).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reads_types_and_interfaces_of_gids() {
        let root = tempfile::tempdir().unwrap();
        let attributes = root.path().join("class/infiniband/mlx5_0/ports/1/gid_attrs");
        for (kind, index, text) in [
            ("types", 0, "IB/RoCE v1\n"),
            ("types", 1, "RoCE v2\n"),
            ("types", 2, "odd\n"),
            ("ndevs", 1, "eth0\n"),
        ] {
            fs::create_dir_all(attributes.join(kind)).unwrap();
            fs::write(attributes.join(kind).join(index.to_string()), text).unwrap();
        }
        let files = DeviceFiles::new(root.path(), "mlx5_0");
        assert_eq!([0, 1, 2, 3].map(|index| files.roce_version(1, index)), [Some(1), Some(2), None, None]);
        assert_eq!([0, 1].map(|index| files.netdev(1, index)), [None, Some("eth0".to_owned())]);
    }

    #[test]
    fn a_device_without_files_is_fine() {
        let files = DeviceFiles::new(Path::new("/nonexistent"), "nv0");
        assert_eq!((files.device_path(), files.roce_version(1, 0), files.netdev(1, 0)), (None, None, None));
    }
}
