//! What a mistyped name may have been meant to be.

use std::time::Instant;

use crate::{Directory, Name};

/// What to say of a name that `directory` does not have: the most similar names there, or that there are none. For people.
pub fn nearby(directory: &dyn Directory, name: &Name, deadline: Instant) -> String {
    match directory.list("", deadline) {
        // It has answered the look-up: the error of this call says no more about the name.
        Err(_) => String::new(),
        Ok(found) if found.is_empty() => "no name is published there".to_owned(),
        Ok(found) => {
            let names = found.iter().map(|(name, _)| name.as_str());
            let nearest = nearest(name.as_str(), names);
            let (count, list) = (found.len(), nearest.join(", "));
            if count > nearest.len() {
                format!("of the {count} names there the most similar are {list}")
            } else {
                format!("the names there are {list}")
            }
        }
    }
}

/// The most similar of these names, the nearest first.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known: Vec<_> = known.map(|known| (distance(name, known), known)).collect();
    known.sort_unstable();
    known.into_iter().take(SHOWN).map(|(_, known)| known).collect()
}

/// Letters that differ; one name that begins with the other is near, whatever their lengths are.
fn distance(name: &str, known: &str) -> usize {
    if known.starts_with(name) || name.starts_with(known) { 1 } else { strsim::levenshtein(name, known) }
}

/// Names that a text holds.
const SHOWN: usize = 5;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::open;

    #[test]
    fn the_nearest_names_come_first() {
        let text = |url: &str, name: &str| {
            let deadline = Instant::now() + Duration::from_secs(5);
            nearby(&*open(url).unwrap(), &Name::new(name).unwrap(), deadline)
        };
        let two = "static:decode-3=192.0.2.7:1,trainer=192.0.2.7:2";
        assert_eq!(text(two, "decod-3"), "the names there are decode-3, trainer");
        let many: Vec<_> = (1..=9).map(|number| format!("worker-{number}=192.0.2.7:{number}")).collect();
        let many = format!("static:trainer=192.0.2.7:77,{}", many.join(","));
        assert!(
            text(&many, "worker")
                .starts_with("of the 10 names there the most similar are worker-1, worker-2,")
        );
        assert!(!text(&many, "worker").contains("trainer"));
    }
}
