//! Descriptors of the connections that were accepted without a key, by the source of each.

use std::collections::BTreeMap;

use super::Source;

#[derive(Debug, Default)]
pub(super) struct DescriptorsBySource(BTreeMap<Source, usize>);

impl DescriptorsBySource {
    /// Counts `descriptors` of one more connection. Fails, with the reason as text, when all connections together
    /// would hold more than `most`, or those of this source more than seven eighths of it. The share of one source is
    /// larger than that of unauthenticated clients (half), because one host with many processes is one source: with a
    /// limit of 1,024 it has 64 connections of four lanes.
    pub(super) fn add(&mut self, source: Source, descriptors: usize, most: usize) -> Result<(), String> {
        let all: usize = self.0.values().sum();
        let of_source = self.0.get(&source).copied().unwrap_or_default();
        let advice = "raise that, or set a key (FLAGCX_P2P_AUTH_KEY_FILE)";
        if all.saturating_add(descriptors) > most {
            return Err(format!(
                "connections accepted without a key hold {all} of the {most} descriptors that they may have, half of \
                 `ulimit -n`: {advice}"
            ));
        }
        let share = most - most / 8;
        if of_source.saturating_add(descriptors) > share {
            return Err(format!(
                "connections accepted without a key from {source} hold {of_source} of the {share} descriptors that those of \
                 one source may have, seven sixteenths of `ulimit -n`: {advice}"
            ));
        }
        self.0.insert(source, of_source + descriptors);
        Ok(())
    }

    pub(super) fn remove(&mut self, source: Source, descriptors: usize) {
        // A forked child has none of the connections that its parent counted.
        let Some(held) = self.0.get_mut(&source) else { return };
        *held = held.saturating_sub(descriptors);
        if *held == 0 {
            self.0.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_leaves_an_eighth_to_others() {
        let (mut accepted, one, two) =
            (DescriptorsBySource::default(), Source::Unix, Source::of([192, 0, 2, 1].into()));
        let three = Source::of([192, 0, 2, 2].into());
        accepted.add(one, 7, 16).unwrap();
        accepted.add(one, 7, 16).unwrap();
        let error = accepted.add(one, 1, 16).unwrap_err();
        assert!(error.contains("14 of the 14") && error.contains("ulimit -n"), "{error}");
        accepted.add(two, 2, 16).unwrap();
        let error = accepted.add(three, 1, 16).unwrap_err();
        assert!(error.contains("16 of the 16"), "{error}");
        accepted.remove(two, 2);
        accepted.add(three, 1, 16).unwrap();
        accepted.remove(one, 7);
        accepted.add(one, 7, 16).unwrap();
        assert!(accepted.add(one, 1, 16).is_err());
        accepted.remove(two, 2);
    }
}
