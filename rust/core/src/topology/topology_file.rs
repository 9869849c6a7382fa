//! FlagCX's topology file: XML in which each `gpu` has its number (`dev`) and the NIC that it is to use (`net`).

use std::path::Path;

use super::{NicMap, NicOfGpu};

/// Reads what the file at `path` says of GPUs and their NICs; everything else in it is left alone.
pub fn read_topology_file(path: &Path) -> Result<NicMap, String> {
    let error = |problem: String| format!("{}: {problem}", path.display());
    let size = std::fs::metadata(path).map_err(|problem| error(problem.to_string()))?.len();
    if size > LARGEST {
        return Err(error(format!("it has {size} bytes, and a topology file has at most {LARGEST}")));
    }
    let text = std::fs::read_to_string(path).map_err(|problem| error(problem.to_string()))?;
    parse(&text).map_err(error)
}

fn parse(text: &str) -> Result<NicMap, String> {
    // Files of other programs begin with a DTD.
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let document =
        roxmltree::Document::parse_with_options(text, options).map_err(|error| error.to_string())?;
    let gpus = document.descendants().filter(|node| node.has_tag_name("gpu"));
    let entry = |node: roxmltree::Node<'_, '_>| {
        let gpu = node.attribute("dev")?.parse().ok().filter(|gpu| *gpu >= 0)?;
        let name = node.attribute("net").filter(|name| !name.is_empty())?.to_owned();
        Some(NicOfGpu { gpu, name, port: None })
    };
    Ok(NicMap::of(gpus.filter_map(entry).collect()))
}

/// Bytes of a file that is read; those of hosts have some thousands.
const LARGEST: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_with_their_nics() {
        let text = r#"<system version="1"><cpu numaid="0"><pci busid="0000:1a:00.0">
            <gpu dev="0" net="mlx5_0"/></pci><gpu dev="1" net="mlx5_3"/><gpu dev="2"/><gpu net="mlx5_4"/>
            </cpu></system>"#;
        let map = parse(text).unwrap();
        assert_eq!(map.of_gpu(0).unwrap().nic(), "mlx5_0");
        assert_eq!(map.of_gpu(1).unwrap().nic(), "mlx5_3");
        assert_eq!(map.of_gpu(2), None);
        assert_eq!(parse("<system/>").unwrap(), NicMap::default());
    }

    #[test]
    fn what_is_no_file_of_that_form() {
        for bad in ["", "<system>", "<a><b></a>", "{}", "<!DOCTYPE a [<!ENTITY b \"&b;\">]><a>&b;</a>"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(read_topology_file(Path::new("/nonexistent")).unwrap_err().starts_with("/nonexistent: "));
    }
}
