//! Descriptors of the connections that were accepted without a key, by the source of each.

use std::collections::BTreeMap;

use super::Source;

#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<Source, usize>);

impl Kept {
    /// Counts `descriptors` of one more connection. An error, in words, when all would hold more than `most`, or those of its
    /// source more than half of that.
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
        let share = most / 2;
        if of_source.saturating_add(descriptors) > share {
            return Err(format!(
                "connections accepted without a key from {source} hold {of_source} of the {share} descriptors that those of \
                 one source may have, a quarter of `ulimit -n`: {advice}"
            ));
        }
        self.0.insert(source, of_source + descriptors);
        Ok(())
    }

    pub(super) fn remove(&mut self, source: Source, descriptors: usize) {
        // A child that was forked has none of those that its parent counted.
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
    fn one_source_keeps_half_of_what_all_may() {
        let (mut kept, one, two) = (Kept::default(), Source::Unix, Source::of([192, 0, 2, 1].into()));
        let three = Source::of([192, 0, 2, 2].into());
        kept.add(one, 5, 20).unwrap();
        kept.add(one, 5, 20).unwrap();
        let error = kept.add(one, 1, 20).unwrap_err();
        assert!(error.contains("10 of the 10") && error.contains("ulimit -n"), "{error}");
        kept.add(two, 10, 20).unwrap();
        let error = kept.add(three, 1, 20).unwrap_err();
        assert!(error.contains("20 of the 20"), "{error}");
        kept.remove(two, 10);
        kept.add(three, 1, 20).unwrap();
        kept.remove(one, 5);
        kept.add(one, 5, 20).unwrap();
        assert!(kept.add(one, 1, 20).is_err());
        kept.remove(two, 10);
    }
}
