//! What the settings say about the choice of a NIC, for engines and for `doctor topology`.

use super::EngineError;
use crate::config::{Config, ConfigError};
use crate::topology::{Choice, HostTopology, MemoryPlace, Nic, NicMap, read_topology_file};

/// The NIC for memory at a place, as the settings have it: what the map names, else the one on the GPU's rail if that is asked for,
/// else the best. NICs that turned out to be `unusable` keep their rails, and are not chosen: for a GPU of theirs it is the best of the
/// others.
pub fn choose_nic(
    config: &Config,
    machine: &HostTopology,
    map: &NicMap,
    place: MemoryPlace,
    unusable: &[usize],
) -> Option<Choice> {
    let by_rail = place.gpu().filter(|gpu| config.dest_dev_affinity && map.of_gpu(*gpu).is_none());
    let on_rail = by_rail.and_then(|gpu| machine.on_rail(gpu));
    let on_rail = on_rail.filter(|choice| !unusable.contains(&choice.nic));
    on_rail.or_else(|| machine.choose_without(place, map, unusable))
}

/// `FLAGCX_P2P_NIC_MAP`, then what FlagCX's topology file says of further GPUs, for the NICs that are there.
///
/// # Errors
/// [`EngineError::Config`] for a map that names another one. The same in the file is a warning.
pub fn operators_map(config: &Config, nics: &[Nic]) -> Result<NicMap, EngineError> {
    let there = || {
        let names: Vec<_> = nics.iter().map(|nic| format!("{}:{}", nic.name, nic.port)).collect();
        format!("there are {}; see FLAGCX_IB_HCA and `flagcx-p2p doctor topology`", names.join(", "))
    };
    if let Some(absent) = config.nic_map.absent(nics) {
        let text = format!("FLAGCX_P2P_NIC_MAP: {absent} names no NIC that this process uses: {}", there());
        return Err(ConfigError { variable: "FLAGCX_P2P_NIC_MAP", text }.into());
    }
    let Some(path) = &config.topology_file else { return Ok(config.nic_map.clone()) };
    // The file is the collectives' as well: what it says of other NICs does not stop this engine.
    let of_file = match read_topology_file(path) {
        Ok(map) => map,
        Err(error) => {
            tracing::warn!("FLAGCX_TOPO_FILE is not used: {error}");
            return Ok(config.nic_map.clone());
        }
    };
    if let Some(absent) = of_file.absent(nics) {
        tracing::warn!("FLAGCX_TOPO_FILE={}: {absent} names no NIC: {}", path.display(), there());
    }
    Ok(config.nic_map.clone().or(of_file.only(nics)))
}
