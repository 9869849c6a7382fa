//! Attributes of a device that only sysfs has. Each may be missing: in containers, or under a stand-in library.

use std::path::{Path, PathBuf};

use crate::fabric::{LINK_ETHERNET, LINK_INFINIBAND};
use crate::topology;

/// `/sys/class/infiniband/<device>`, and the device's defaults for connections in `/sys/kernel/config/rdma_cm/<device>`.
#[derive(Clone, Debug)]
pub(super) struct DeviceFiles {
    folder: PathBuf,
    connection_defaults: PathBuf,
}

/// The network interface of a GID, as the kernel's files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GidInterface {
    /// Its name.
    Named(String),
    /// The GID has no interface any more.
    Gone,
    /// There is no file.
    Unknown,
}

impl DeviceFiles {
    /// The files of `device` under `root` (`/sys` on a real machine).
    pub(super) fn new(root: &Path, device: &str) -> Self {
        Self {
            folder: root.join("class/infiniband").join(device),
            connection_defaults: root.join("kernel/config/rdma_cm").join(device),
        }
    }

    /// The device's own folder in the PCI (or virtual) tree, links resolved.
    pub(super) fn device_path(&self) -> Option<String> {
        let path = std::fs::canonicalize(self.folder.join("device")).ok()?;
        path.to_str().map(str::to_owned)
    }

    /// RoCE version of a GID, 1 or 2.
    pub(super) fn roce_version(&self, port: u8, index: u8) -> Option<u8> {
        topology::roce_version(&self.read_gid_attribute(port, "types", index).ok()?)
    }

    /// Network interface of a GID.
    pub(super) fn netdev(&self, port: u8, index: u8) -> GidInterface {
        match self.read_gid_attribute(port, "ndevs", index) {
            Ok(text) => topology::gid_interface(&text)
                .map_or(GidInterface::Unknown, |name| GidInterface::Named(name.to_owned())),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => GidInterface::Gone,
            Err(_) => GidInterface::Unknown,
        }
    }

    /// Whether the port is of InfiniBand or of Ethernet, as link layer byte.
    pub(super) fn link_layer(&self, port: u8) -> Option<u8> {
        match std::fs::read_to_string(self.folder.join(format!("ports/{port}/link_layer"))).ok()?.trim() {
            "InfiniBand" => Some(LINK_INFINIBAND),
            "Ethernet" => Some(LINK_ETHERNET),
            _ => None,
        }
    }

    /// The traffic class that the operator gave the port: that of all its connections, else that of connections made by
    /// the kernel's connection manager.
    pub(super) fn traffic_class(&self, port: u8) -> Option<u8> {
        let of_all = self.folder.join(format!("tc/{port}/traffic_class"));
        let of_managed = self.connection_defaults.join(format!("ports/{port}/default_roce_tos"));
        [of_all, of_managed].iter().find_map(|file| traffic_class(&std::fs::read_to_string(file).ok()?))
    }

    fn read_gid_attribute(&self, port: u8, kind: &str, index: u8) -> std::io::Result<String> {
        std::fs::read_to_string(self.folder.join(format!("ports/{port}/gid_attrs/{kind}/{index}")))
    }
}

/// The number of a line `Global tclass=106`, or of a text that is a number.
fn traffic_class(text: &str) -> Option<u8> {
    text.lines().find_map(|line| line.trim().trim_start_matches("Global tclass=").parse().ok())
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
        let eth0 = GidInterface::Named("eth0".to_owned());
        assert_eq!([0, 1].map(|index| files.netdev(1, index)), [GidInterface::Unknown, eth0]);
    }

    #[test]
    fn a_device_without_files_is_fine() {
        let files = DeviceFiles::new(Path::new("/nonexistent"), "nv0");
        assert_eq!((files.device_path(), files.roce_version(1, 0)), (None, None));
        assert_eq!((files.netdev(1, 0), files.link_layer(1)), (GidInterface::Unknown, None));
        assert_eq!(files.traffic_class(1), None);
    }
    #[test]
    fn traffic_class_of_all_connections_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let files = DeviceFiles::new(root.path(), "mlx5_0");
        write("kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos", "96\n");
        assert_eq!(files.traffic_class(1), Some(96));
        for (text, class) in [
            ("", 96),
            ("Global tclass=106\n", 106),
            ("Global tclass=8\nsrc_ip=10.0.0.1/32 tclass=16\n", 8),
            ("src_ip=10.0.0.1/32 tclass=16\n", 96),
            ("Global tclass=256\n", 96),
        ] {
            write("class/infiniband/mlx5_0/tc/1/traffic_class", text);
            assert_eq!(files.traffic_class(1), Some(class), "{text}");
        }
        assert_eq!(files.traffic_class(2), None, "another port");
    }
}
