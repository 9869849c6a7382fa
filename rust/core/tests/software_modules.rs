//! The files of the software fabric import one another in one direction: in each of its folders, what a file or a folder
//! uses of its neighbours never leads back to itself.
//!
//! Unit tests are exempt: a file is read up to its `#[cfg(test)]` module.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Where the folder stands in the crate.
const ROOT: &str = "fabric::software";

/// For each folder (its path of modules), the neighbours in it that each file or folder uses.
type Uses = BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>>;

#[test]
fn no_file_of_the_software_fabric_is_in_a_circle_of_imports() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fabric/software");
    let mut files = BTreeMap::new();
    read(&folder, &mut Vec::new(), &mut files);
    assert!(files.len() > 40, "only {} files were found", files.len());
    let circles = circles(&uses(&files));
    assert!(circles.is_empty(), "files import one another in a circle:\n{}", circles.join("\n"));
}

#[test]
fn planted_circles_are_found() {
    let files = |texts: &[(&str, &str)]| {
        let path = |name: &str| name.split("::").map(str::to_owned).collect::<Vec<_>>();
        texts.iter().map(|(name, text)| (path(name), (*text).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let found = |texts: &[(&str, &str)]| circles(&uses(&files(texts)));
    let straight =
        [("a", "use super::b::B;"), ("b", "use super::c::d::D;"), ("c::d", "use crate::fabric::Sge;")];
    assert_eq!(found(&straight), Vec::<String>::new());
    let back = ("c::d", "fn f(x: crate::fabric::software::a::A) {}");
    assert_eq!(found(&[straight[0], straight[1], back]), ["a -> b -> c -> a"], "through a folder");
    let list = [("a", "use super::{\n    b::B,\n    x::X,\n};"), ("b", "use super::a;"), ("x", "")];
    assert_eq!(found(&list), ["a -> b -> a"], "a list");
    let inner = [("c::d", "use super::e::E;"), ("c::e", "use super::d::D;"), ("c", "use d::D;")];
    assert_eq!(found(&inner), ["c::d -> c::e -> c::d"], "inside a folder");
    let up = [("c::d", "use super::super::a::A;"), ("a", "use super::c::C;")];
    assert_eq!(found(&up), ["a -> c -> a"], "two levels up");
}

/// The files below `folder` by their module's path, without what is for tests only.
fn read(folder: &Path, module: &mut Vec<String>, files: &mut BTreeMap<Vec<String>, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" || name == "mod" && module.is_empty() {
            continue;
        }
        if path.is_dir() {
            module.push(name);
            read(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut module = module.clone();
            module.extend((name != "mod").then_some(name));
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
            let code: Vec<_> = code.lines().map(|line| line.split("//").next().unwrap()).collect();
            files.insert(module, code.join("\n"));
        }
    }
}

fn uses(files: &BTreeMap<Vec<String>, String>) -> Uses {
    let mut uses = Uses::new();
    for (module, code) in files {
        for used in used_modules(module, code) {
            let shared = module.iter().zip(&used).take_while(|(one, other)| one == other).count();
            if let (Some(user), Some(used)) = (module.get(shared), used.get(shared)) {
                let folder = uses.entry(module[..shared].to_vec()).or_default();
                folder.entry(user.clone()).or_default().insert(used.clone());
            }
        }
    }
    uses
}

/// What `code` names of the software fabric, as paths from its root.
fn used_modules(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut used = Vec::new();
    let mut add = |base: &[String], rest: &str| {
        for name in names(rest) {
            used.push(base.iter().cloned().chain(name).collect());
        }
    };
    for (at, _) in code.match_indices(&format!("crate::{ROOT}::")) {
        add(&[], &code[at + "crate::".len() + ROOT.len() + 2..]);
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("::") || code[..at].ends_with(|before: char| before.is_alphanumeric()) {
            continue;
        }
        let levels = code[at..].split("super::").take_while(|between| between.is_empty()).count();
        if levels <= module.len() {
            add(&module[..module.len() - levels], &code[at + levels * "super::".len()..]);
        }
    }
    used
}

/// The paths that a path or a list of paths begins with, as far as they may be modules.
fn names(text: &str) -> Vec<Vec<String>> {
    let path = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
        let lower = |name: &&str| name.starts_with(|first: char| first.is_lowercase());
        text[..end].split("::").take_while(lower).map(str::to_owned).collect::<Vec<_>>()
    };
    match text.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap().split(',').map(|one| path(one.trim_start())).collect(),
        None => vec![path(text)],
    }
}

/// One circle of each folder that has one, in words.
fn circles(uses: &Uses) -> Vec<String> {
    uses.iter()
        .filter_map(|(folder, edges)| {
            let circle = edges.keys().find_map(|start| way_back(edges, start))?;
            let full = |name: &String| folder.iter().chain([name]).cloned().collect::<Vec<_>>().join("::");
            Some(circle.iter().map(full).collect::<Vec<_>>().join(" -> "))
        })
        .collect()
}

/// The shortest way from `start` to itself.
fn way_back(edges: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in edges.get(way.last()?).into_iter().flatten() {
                let way: Vec<_> = way.iter().chain([next]).cloned().collect();
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}
