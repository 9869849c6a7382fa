//! The operator's own choice of rails: `mlx5_0:mlx5_0,mlx5_1:mlx5_3`.

use super::{NicEnd, NicPair};

/// Pairs of NICs by name, one of this host and one of the peer each. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RailMap(Vec<(String, String)>);

impl RailMap {
    /// Reads `own:peer,...`. A pair may be named once, a NIC in several.
    ///
    /// # Errors
    /// Says which element is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for (index, element) in text.split(',').map(str::trim).enumerate() {
            let pair = parse_pair(element).ok_or_else(|| {
                format!("element {} ({element:?}) is not own:peer, such as mlx5_1:mlx5_3", index + 1)
            })?;
            if pairs.contains(&pair) {
                return Err(format!("{}:{} is there twice", pair.0, pair.1));
            }
            pairs.push(pair);
        }
        Ok(Self(pairs))
    }

    /// The pairs of which both NICs are there and have the same link layer.
    pub fn pairs(&self, own: &[NicEnd], peer: &[NicEnd]) -> Vec<NicPair> {
        let place = |nics: &[NicEnd], name: &str| nics.iter().position(|nic| is_named(&nic.name, name));
        let there = |(own_name, peer_name): &(String, String)| {
            let pair = NicPair { own: place(own, own_name)?, peer: place(peer, peer_name)? };
            let (own, peer) = own.get(pair.own).zip(peer.get(pair.peer))?;
            (own.link_layer == peer.link_layer).then_some(pair)
        };
        self.0.iter().filter_map(there).collect()
    }

    /// What to warn of, once: the map has pairs, and none of them is there. Then NICs are paired as without it.
    pub fn warning(&self, own: &[NicEnd], peer: &[NicEnd]) -> Option<String> {
        if self.0.is_empty() || !self.pairs(own, peer).is_empty() {
            return None;
        }
        let names = |nics: &[NicEnd]| nics.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>().join(", ");
        Some(format!(
            "FLAGCX_P2P_RAIL_MAP names no pair of NICs that are there and have the same link layer: {} here, {} at the peer. NICs are \
             paired by network and name",
            names(own),
            names(peer),
        ))
    }
}

/// Whether a NIC, of which the name may have a port behind it (`mlx5_0:1`), is named by the map: by its device, which is the first port that
/// is listed, or by device and port, `mlx5_0@1`.
fn is_named(nic: &str, name: &str) -> bool {
    match (nic.rsplit_once(':'), name.split_once('@')) {
        (Some((device, port)), Some((wanted, wanted_port))) => (device, port) == (wanted, wanted_port),
        (Some((device, _)), None) => device == name,
        (None, _) => nic == name,
    }
}

fn parse_pair(element: &str) -> Option<(String, String)> {
    let (own, peer) = element.split_once(':')?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@');
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(known);
    (is_name(own) && is_name(peer)).then(|| (own.to_owned(), peer.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_map_is_refused_by_the_element() {
        for (bad, element) in [
            ("", 1),
            ("a", 1),
            ("a:", 1),
            (":b", 1),
            ("a:b,", 2),
            ("a:b,c", 2),
            ("a:b:c", 1),
            ("a b:c", 1),
            ("a:b,,c:d", 2),
        ] {
            let error = RailMap::parse(bad).unwrap_err();
            assert!(
                error.starts_with(&format!("element {element} ")) && error.contains("own:peer"),
                "{bad}: {error}"
            );
        }
        assert_eq!(RailMap::parse("a:b, a:b").unwrap_err(), "a:b is there twice");
    }

    #[test]
    fn a_map_that_names_nothing_is_a_warning_with_what_is_there() {
        let nic = |name: &str, link_layer| NicEnd { name: name.to_owned(), link_layer, networks: Vec::new() };
        let (own, peer) = ([nic("a", 1), nic("b", 2)], [nic("x", 2), nic("y", 2)]);
        let warning = |text: &str| RailMap::parse(text).unwrap().warning(&own, &peer);
        assert_eq!(warning("b:x"), None);
        assert_eq!(warning("z:x,b:y"), None, "one is there");
        let text = warning("a:x").unwrap();
        assert!(
            text.contains("FLAGCX_P2P_RAIL_MAP") && text.contains("a, b here, x, y at the peer"),
            "{text}"
        );
        assert_eq!(RailMap::default().warning(&own, &peer), None);
        assert_eq!(RailMap::parse("b:y, b:x").unwrap().pairs(&own, &peer).len(), 2);
    }
}
