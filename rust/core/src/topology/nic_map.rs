//! The operator's own choice of a NIC for a GPU: `0=mlx5_0,1=mlx5_1:2`.

use std::fmt;

use super::Nic;

/// A NIC for some GPUs. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicMap(Vec<NicOfGpu>);

/// An entry of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicOfGpu {
    /// The GPU's number.
    pub gpu: i32,
    /// The NIC's name.
    pub name: String,
    /// Its port; `None` for any.
    pub port: Option<u8>,
}

impl NicMap {
    /// Reads `GPU=name[:port],...`. A GPU may be named once.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries: Vec<NicOfGpu> = Vec::new();
        for (index, element) in text.split(',').map(str::trim).enumerate() {
            let entry = NicOfGpu::parse(element).ok_or_else(|| {
                format!(
                    "element {} ({element:?}) is not GPU=name or GPU=name:port, such as 0=mlx5_0",
                    index + 1
                )
            })?;
            if let Some(first) = entries.iter().find(|other| other.gpu == entry.gpu) {
                return Err(format!("GPU {} has two NICs, {} and {}", entry.gpu, first.nic(), entry.nic()));
            }
            entries.push(entry);
        }
        Ok(Self(entries))
    }

    /// The map with these entries; of several for one GPU the first counts.
    pub fn of(entries: Vec<NicOfGpu>) -> Self {
        Self(entries)
    }

    /// This one, and the entries of `other` for further GPUs.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The entry of a GPU.
    pub fn of_gpu(&self, gpu: i32) -> Option<&NicOfGpu> {
        self.0.iter().find(|entry| entry.gpu == gpu)
    }

    /// The first entry that names none of `nics`.
    pub fn absent(&self, nics: &[Nic]) -> Option<&NicOfGpu> {
        self.0.iter().find(|entry| !nics.iter().any(|nic| entry.names(nic)))
    }
}

impl NicOfGpu {
    fn parse(element: &str) -> Option<Self> {
        let (gpu, nic) = element.split_once('=')?;
        let (name, port) = nic.split_once(':').map_or((nic, None), |(name, port)| (name, Some(port)));
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
        let digits = !gpu.is_empty() && gpu.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
            None => None,
        };
        (digits && !name.is_empty() && name.bytes().all(known))
            .then(|| Some(Self { gpu: gpu.parse().ok()?, name: name.to_owned(), port }))
            .flatten()
    }

    /// Whether this is the NIC.
    pub fn names(&self, nic: &Nic) -> bool {
        self.name == nic.name && self.port.is_none_or(|port| port == nic.port)
    }

    /// The NIC as it is written.
    pub fn nic(&self) -> String {
        self.port.map_or_else(|| self.name.clone(), |port| format!("{}:{port}", self.name))
    }
}

impl fmt::Display for NicOfGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.gpu, self.nic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_with_and_without_a_port() {
        let map = NicMap::parse("0=mlx5_0, 7=mlx5_bond_0:2").unwrap();
        assert_eq!(map.of_gpu(0).unwrap().to_string(), "0=mlx5_0");
        assert_eq!(map.of_gpu(7).unwrap().to_string(), "7=mlx5_bond_0:2");
        assert_eq!(map.of_gpu(1), None);
    }

    #[test]
    fn what_is_no_map_is_refused_by_the_element() {
        for bad in
            ["", ",", "0", "0=", "=a", "-1=a", "+1=a", "0=a:0", "0=a:256", "0=a b", "0=a,", "99999999999=a"]
        {
            assert!(NicMap::parse(bad).unwrap_err().starts_with("element "), "{bad}");
        }
        assert_eq!(NicMap::parse("0=a,0=b").unwrap_err(), "GPU 0 has two NICs, a and b");
    }

    #[test]
    fn an_entry_that_names_nothing_is_found() {
        let nic = |name: &str, port| Nic { name: name.to_owned(), port, ..Nic::default() };
        let nics = [nic("mlx5_0", 1), nic("mlx5_1", 2)];
        let absent = |text: &str| NicMap::parse(text).unwrap().absent(&nics).map(ToString::to_string);
        assert_eq!(absent("0=mlx5_0,1=mlx5_1:2"), None);
        assert_eq!(absent("0=mlx5_0,1=mlx5_1:1").as_deref(), Some("1=mlx5_1:1"));
        assert_eq!(absent("0=mlx5").as_deref(), Some("0=mlx5"), "whole names");
    }
}
