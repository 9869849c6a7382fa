//! Which module may use which: every `crate::` path in `src/` is held against the tables below.
//!
//! Unit tests are exempt: a file is read up to its module `tests`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// Top to bottom: a layer may use every layer below it, and everything that stands beside.
const LAYERS: &[&str] = &["engine", "connection", "transfer", "pool", "fabric"];

/// Beside the layers: they use each other freely, and a layer only by an entry in [`EXCEPTIONS`].
const BESIDE: &[&str] = &[
    "admission",
    "auth",
    "config",
    "memory",
    "topology",
    "gpu",
    "control",
    "endpoint",
    "events",
    "fork",
    "notify",
    "observe",
    "ports",
    "process",
    "rails",
    "sync",
];

/// Beneath everything, and used even by modules that use nothing else.
const LOWEST: &[&str] = &["fork", "sync"];

/// Further uses, each with its reason: (user, used, why).
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("config", "fabric", "fills the fabric's options from the variables"),
    ("control", "fabric", "carries queue pair addresses and keys over the wire"),
    ("memory", "fabric", "a region holds the fabric's registration of it"),
    ("rails", "fabric", "an opcode decides when a part may move"),
];

/// Uses that the rules above would allow and that are not wanted: (user, used, why).
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("fabric", "config", "a provider takes plain options, so that it can be used and tested alone"),
    ("fabric", "memory", "a provider has ranges and keys, not the engine's records of them"),
    ("fabric", "control", "a provider has its own protocol"),
    ("fabric", "notify", "notifications travel beside the fabric"),
    ("fork", "*", "it holds the state of every module and uses none of them"),
    ("events", "*", "it waits for descriptors of other modules and uses none of them"),
    ("auth", "*", "the same proofs serve control plane, fabric and notifications: it uses none of them"),
    ("observe", "endpoint", "counters are read, and know no reader"),
    ("sync", "*", "the lowest of all: the same names over std or loom"),
];

#[test]
fn no_module_uses_what_it_may_not() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut violations = Vec::new();
    check_folder(&source, &source, &mut violations);
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn every_module_has_its_place() {
    let root = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let declared =
        root.lines().filter_map(|line| line.strip_suffix(';')?.split_once("mod ")).map(|(_, name)| name);
    for module in declared {
        assert!(is_known(module), "module {module} is in no table of {}", file!());
    }
}

#[test]
fn the_core_depends_on_no_crate_above_it() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert_eq!(crates_above(&manifest), Vec::<&str>::new());
    assert_eq!(crates_above("[dependencies]\nflagcx-p2p-directory.workspace = true\nureq = \"3\"").len(), 2);
}

/// Dependencies that a manifest has and the core's must not: crates of this workspace, and what only these need.
fn crates_above(manifest: &str) -> Vec<&str> {
    let names = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| name.starts_with("flagcx-p2p-") || ["cxx", "ureq", "rustls"].contains(name)).collect()
}

#[test]
fn planted_violations_are_found() {
    let found = |file: &str, text: &str| check_text(file, text).len();
    assert_eq!(found("fabric/verbs/device.rs", "use crate::pool::Worker;"), 1, "upwards");
    assert_eq!(found("memory/mod.rs", "use crate::engine::Engine;"), 1, "from beside into a layer");
    assert_eq!(found("fabric/mod.rs", "fn f() -> crate::config::Config;"), 1, "a path inside the code");
    assert_eq!(
        found("pool/worker.rs", "use crate::{\n    engine::Engine,\n    fabric::{Sge, transfer},\n};"),
        1,
        "a list"
    );
    assert_eq!(found("pool/mod.rs", "use super::engine;"), 1, "super at the top is the crate");
    assert_eq!(found("pool/worker.rs", "use super::super::engine;"), 1, "two levels up is the crate");
    assert_eq!(found("pool/worker.rs", "use super::engine;"), 0, "one level up is the pool");
    assert_eq!(found("engine/mod.rs", "use crate::fabric::Sge; // skips levels"), 0, "downwards");
    assert_eq!(found("pool/mod.rs", "// crate::engine\n/// [`crate::engine`]\n"), 0, "comments");
    assert_eq!(
        found("pool/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}"),
        0,
        "unit tests"
    );
}

fn check_folder(root: &Path, folder: &Path, violations: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check_folder(root, &path, violations);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            violations.extend(check_text(name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The violations of one file; `file` is relative to `src/`.
fn check_text(file: &str, text: &str) -> Vec<String> {
    let user = file.split(['/', '.']).next().unwrap();
    if !is_known(user) || file.ends_with("/tests.rs") || file.ends_with("_tests.rs") {
        return Vec::new();
    }
    let code = strip(text);
    used_modules(file, &code)
        .into_iter()
        .filter_map(|used| Some(format!("src/{file}: {user} uses {used}: {}", objection(user, &used)?)))
        .collect()
}

/// Why `user` may not use `used`; `None` when it may.
fn objection(user: &str, used: &str) -> Option<String> {
    if user == used || !is_known(used) || LOWEST.contains(&used) {
        return None;
    }
    if let Some((_, _, why)) =
        FORBIDDEN.iter().find(|entry| entry.0 == user && ["*", used].contains(&entry.1))
    {
        return Some((*why).to_owned());
    }
    let level = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let allowed = match (level(user), level(used)) {
        (_, None) => true,
        (Some(from), Some(to)) => from < to,
        (None, Some(_)) => false,
    };
    let excepted = EXCEPTIONS.iter().any(|entry| entry.0 == user && entry.1 == used);
    (!allowed && !excepted)
        .then(|| format!("the order is {}; exceptions are listed in {}", LAYERS.join(" -> "), file!()))
}

fn is_known(module: &str) -> bool {
    LAYERS.contains(&module) || BESIDE.contains(&module)
}

/// The code without comments, without blanks, and without the unit tests at its end.
fn strip(text: &str) -> String {
    let code = text.split("\nmod tests {").next().unwrap();
    code.lines()
        .map(|line| line.split("//").next().unwrap())
        .flat_map(str::split_whitespace)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The modules of the crate that `code` names, by `crate::` or by enough `super::` to reach the crate's root.
fn used_modules(file: &str, code: &str) -> Vec<String> {
    let depth = file.trim_end_matches("/mod.rs").split('/').count();
    let to_root = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut used = Vec::new();
    for prefix in &to_root {
        for (at, _) in code.match_indices(prefix.as_str()) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && !['_', ':', '$'].contains(&before) {
                used.extend(first_names(&code[at + prefix.len()..]));
            }
        }
    }
    used
}

/// The first segment of a path: one name, or each of `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else {
        return vec![identifier(path)];
    };
    let (mut names, mut depth, mut at_start) = (Vec::new(), 1, true);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_start = true,
            _ if at_start && !character.is_whitespace() => {
                names.push(identifier(&list[at..]));
                at_start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}
