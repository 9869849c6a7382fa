//! The public API of the crate is the list in `public-api.txt`, and each function of it says how it fails.
//!
//! What is public is read from the sources: the names that `lib.rs` exports, and the functions and constants of these types
//! that are not hidden. `UPDATE_PUBLIC_API=1` writes the list anew.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A public function or constant of a type.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    /// `Type::name`.
    name: String,
    /// From `pub` to the body.
    signature: String,
    /// The text of its comment.
    docs: String,
}

#[test]
fn the_public_api_is_the_list_of_it() {
    let (names, items) = public();
    let listed: BTreeSet<_> = names.iter().chain(items.iter().map(|item| &item.name)).collect();
    let text = listed.into_iter().fold(String::new(), |text, line| text + line + "\n");
    let file = crate_folder().join("public-api.txt");
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        expected,
        "the public API is not {}: UPDATE_PUBLIC_API=1 writes it anew",
        file.display()
    );
}

#[test]
fn each_public_function_says_what_it_does_and_how_it_fails() {
    for item in public().1 {
        let first = item.docs.lines().next().unwrap_or_default();
        assert!(first.starts_with(|first: char| first.is_uppercase()), "{}: {first:?}", item.name);
        for start in ["The same", "Same as"] {
            assert!(
                !first.starts_with(start),
                "{}: its first sentence needs another one: {first:?}",
                item.name
            );
        }
        let fails = item.signature.contains("Result<");
        assert_eq!(
            fails,
            item.docs.contains("\n# Errors\n"),
            "{}: `# Errors` of what answers a Result",
            item.name
        );
    }
}

#[test]
fn the_scan_finds_what_is_public_and_leaves_out_what_is_hidden() {
    let text = "impl Thing {\n    /// Does.\n    ///\n    /// # Errors\n    /// Never.\n    #[inline]\n    pub fn shown(\n        \
                &self,\n    ) -> Result<(), ()> {\n    }\n    /// No.\n    #[doc(hidden)]\n    pub fn hidden() {}\n    fn \
                private() {}\n    /// One.\n    pub const LIMIT: u32 = 1;\n}\nimpl Other {\n    /// No.\n    pub fn of_other() \
                {}\n}\nimpl Clone for Thing {\n    fn clone() {}\n}\n";
    let names = BTreeSet::from(["Thing".to_owned()]);
    let found = items_of(text, &names);
    assert_eq!(
        found.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(),
        ["Thing::shown", "Thing::LIMIT"]
    );
    assert_eq!(found[0].docs, "Does.\n\n# Errors\nNever.");
    assert!(found[0].signature.contains("Result<"));
    assert_eq!(
        exported("pub use a::{Thing, Other};\npub use b::One;\npub mod internals {\n    pub use c::*;\n}\n"),
        ["One", "Other", "Thing"].map(str::to_owned).into()
    );
}

fn crate_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The names that the crate exports, and what their types have.
fn public() -> (BTreeSet<String>, Vec<Item>) {
    let source = crate_folder().join("src");
    let names = exported(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let mut items = Vec::new();
    visit(&source, &mut |text| items.extend(items_of(text, &names)));
    items.sort();
    (names, items)
}

fn visit(folder: &Path, each: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of `pub use` lines at the root, before the hidden module.
fn exported(root: &str) -> BTreeSet<String> {
    let shown = root.split("pub mod internals").next().unwrap_or_default();
    let uses = shown.split("\npub use ").skip(1).chain(root.strip_prefix("pub use "));
    uses.flat_map(|line| {
        let path = line.split(';').next().unwrap_or_default();
        let names = path.rsplit("::").next().unwrap_or_default();
        names
            .trim_matches(['{', '}', '\n', ' '])
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect::<Vec<_>>()
    })
    .filter(|name| !name.is_empty())
    .collect()
}

/// What the inherent `impl` blocks and the traits of one file have for `names`.
fn items_of(text: &str, names: &BTreeSet<String>) -> Vec<Item> {
    let (mut items, mut current) = (Vec::new(), None);
    let (mut docs, mut hidden) = (Vec::new(), false);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(header) = line.strip_prefix("impl").and_then(without_parameters) {
            let name = header.split([' ', '<']).next().unwrap_or_default();
            current = (names.contains(name) && !header.contains(" for ")).then(|| name.to_owned());
        }
        let Some(indented) = line.strip_prefix("    ").filter(|line| !line.starts_with(' ')) else {
            if line == "}" {
                current = None;
            }
            continue;
        };
        if let Some(comment) = indented.strip_prefix("///") {
            docs.push(comment.strip_prefix(' ').unwrap_or(comment));
            continue;
        }
        if indented.starts_with("#[") {
            hidden |= indented.starts_with("#[doc(hidden)]");
            continue;
        }
        let declaration = indented.strip_prefix("pub ");
        if let (Some(owner), Some(declaration), false) = (&current, declaration, hidden) {
            let mut signature = declaration.to_owned();
            while !signature.contains(['{', ';', '=']) {
                let Some(more) = lines.next() else { break };
                signature += more;
            }
            let words = declaration.split([' ', '(', '<', ':']);
            let name = words.into_iter().find(|word| !["const", "fn", "unsafe", "async"].contains(word));
            let name = format!("{owner}::{}", name.unwrap_or_default());
            items.push(Item { name, signature, docs: docs.join("\n") });
        }
        docs.clear();
        hidden = false;
    }
    items
}

/// The rest of an `impl` line behind its generic parameters, if it has any.
fn without_parameters(rest: &str) -> Option<&str> {
    match rest.strip_prefix('<') {
        Some(parameters) => parameters.split_once("> ").map(|(_, header)| header),
        None => rest.strip_prefix(' '),
    }
}
