//! The words of `CONTRIBUTING.md` and the glossary, held over the sources and documentation of the whole repository.
//!
//! Threads, processes, clients and peers are named; they are not persons. Error texts say what is malformed.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it skips"
)]

use std::fs;
use std::path::Path;

/// Words that no comment, name or text has: a thread, process, client, caller or peer is named instead.
const WORDS: &[&str] =
    &["who", "whoever", "whom", "whose", "nobody", "somebody", "stranger", "strangers", "guest", "guests"];

/// Phrases that no comment or text has, with what to write instead.
const PHRASES: &[(&str, &str)] = &[
    ("makes no sense", "malformed, invalid or unsupported"),
    ("make no sense", "malformed, invalid or unsupported"),
    ("got lost", "internal error, with what failed"),
    ("the same, but", "the difference alone"),
    ("device memory", "GPU memory: a device is a NIC"),
    ("device runtime", "GPU runtime"),
];

/// Folders and files below the repository's root that are read.
const ROOTS: &[&str] = &[
    "rust",
    "bridge",
    "cpp",
    "python",
    "tests",
    "docs",
    "packaging",
    "x",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

/// Extensions of the files that are read; `x` has none.
const EXTENSIONS: &[&str] = &["rs", "c", "cc", "h", "py", "pyi", "md", "sh"];

/// Folders that hold no text of ours.
const SKIPPED: &[&str] = &["target", "build", "third_party", "corpus", "__pycache__", "node_modules"];

/// Files in which a guest is a virtual machine's.
const VIRTUAL_MACHINES: &[&str] = &["tests/rdma-vm/", "rust/core/tests/verbs_rxe", "docs/benchmarks.md"];

#[test]
fn words_are_the_fields_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if !root.join("CONTRIBUTING.md").is_file() {
        println!("not run: the package alone has no repository around it");
        return;
    }
    let mut found = Vec::new();
    for path in ROOTS {
        look_through(&root, &root.join(path), &mut found);
    }
    let listed: Vec<_> = found.iter().map(|(file, what)| format!("{file}: {what}")).collect();
    assert!(listed.is_empty(), "words of {} are used in:\n{}", file!(), listed.join("\n"));
}

#[test]
fn planted_words_are_found() {
    let found = |text: &str| objections("src/lib.rs", text).len();
    assert_eq!(found("/// The peer that closes.\nfn whole(window: Window) {}"), 0, "parts of other words");
    assert_eq!(found("// Who closes first"), 1, "in any case");
    assert_eq!(found("fn the_end_of_who_waits() {}"), 1, "in a name");
    assert_eq!(found("struct KnownGuests;"), 1, "in the name of a type");
    assert_eq!(found("\"a range that makes no sense\""), 1);
    assert_eq!(found("/// It does the same,\n    /// but later."), 1, "a phrase over two lines");
    assert_eq!(objections("tests/rdma-vm/run.sh", "# the guest").len(), 0, "of a virtual machine");
}

fn look_through(root: &Path, path: &Path, found: &mut Vec<(String, String)>) {
    let name = path.file_name().unwrap().to_string_lossy();
    if path.is_dir() {
        if SKIPPED.contains(&&*name) || name.starts_with('.') || path.is_symlink() {
            return;
        }
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| look_through(root, entry, found));
        return;
    }
    let extension = path.extension().map(|extension| extension.to_string_lossy());
    let is_read = extension.is_none_or(|extension| EXTENSIONS.contains(&&*extension));
    if !is_read || (path.extension().is_none() && name != "x") || name == "words.rs" {
        return;
    }
    let Ok(text) = fs::read_to_string(path) else { return };
    let file = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    found.extend(objections(&file, &text).into_iter().map(|what| (file.clone(), what)));
}

/// The words and phrases that a file has and should not, with their lines.
fn objections(file: &str, text: &str) -> Vec<String> {
    let is_machine = VIRTUAL_MACHINES.iter().any(|path| file.starts_with(path));
    let mut objections = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in words(line).filter(|word| WORDS.contains(&word.as_str())) {
            if !(is_machine && word.starts_with("guest")) {
                objections.push(format!("line {}: \"{word}\"", number + 1));
            }
        }
    }
    let flat = flattened(text);
    for (phrase, instead) in PHRASES.iter().filter(|(phrase, _)| flat.contains(phrase)) {
        objections.push(format!("\"{phrase}\"; write {instead}"));
    }
    objections
}

/// The words of a line in lower case: those of a name count one by one, joined by `_` or by capitals.
fn words(line: &str) -> impl Iterator<Item = String> {
    let mut split = String::with_capacity(line.len());
    let mut was_lower = false;
    for letter in line.chars() {
        if letter.is_ascii_uppercase() && was_lower {
            split.push(' ');
        }
        was_lower = letter.is_ascii_lowercase();
        split.push(if letter.is_ascii_alphabetic() { letter.to_ascii_lowercase() } else { ' ' });
    }
    split.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// The text in one line and lower case, without the marks of comments.
fn flattened(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim().trim_start_matches(['/', '!', '#', '*']).trim());
    lines.collect::<Vec<_>>().join(" ").to_lowercase()
}
