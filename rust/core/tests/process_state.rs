//! What there is one of in a process is kept where a forked child gets one of its own: in a `PerProcess`.
//!
//! A lock elsewhere may be held, at the fork, by a thread that the child does not have. Unit tests are exempt.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// Types of statics that a child may go on with: they have no lock and refer to nothing of the parent's.
const HARMLESS: &[&str] = &[
    "PerProcess<",
    "AtomicBool",
    "AtomicU8",
    "AtomicU32",
    "AtomicU64",
    "AtomicUsize",
    "Number",
    "[AtomicU64; PLACES]",
    "&[",
    "[u8;",
    "Variable",
    "Metric",
];

/// Others, each with its reason: (file, static, why).
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "gpu/installed.rs",
        "INSTALLED",
        "a swap without a lock; what the program installed is the child's as well",
    ),
    ("fork/generation.rs", "WORD", "points to the page by which processes are distinguished"),
    ("fork/loading.rs", "LOADING", "renewed in the child before fork returns there"),
    ("transfer/record.rs", "KEPT", "of unit tests"),
    ("pool/copy_counts.rs", "ALONE", "of unit tests"),
    ("pool/quick_clock.rs", "LINE", "two atomics: the counter is the child's as well"),
];

#[test]
fn nothing_process_wide_is_locked_in_a_child() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for source in [root.join("src"), root.join("../../bridge/src")] {
        look_through(&source, &source, &mut found);
    }
    assert!(found.is_empty(), "to be kept in a PerProcess, or listed in {}:\n{}", file!(), found.join("\n"));
}

#[test]
fn planted_statics_are_found() {
    let found = |text: &str| statics_to_object("x.rs", text).len();
    assert_eq!(found("static A: Mutex<u32> = Mutex::new(0);"), 1);
    assert_eq!(found("    pub(super) static B: Lazy<Vec<u8>> =\n        Lazy::new(Vec::new);"), 1);
    assert_eq!(found("static STARTED: Once = Once::new();"), 1);
    assert_eq!(found("static C: PerProcess<Mutex<u32>> = PerProcess::new(Mutex::default);"), 0);
    assert_eq!(found("static D: AtomicU64 = AtomicU64::new(0); // static E: Mutex<u8>"), 0);
    assert_eq!(found("fn f(x: &'static Mutex<u32>) {}"), 0);
    assert_eq!(found("thread_local!(static F: Cell<u32> = const { Cell::new(0) });"), 0, "of a thread");
    assert_eq!(
        found("thread_local! {\n    static G: RefCell<u8> = const { RefCell::new(0) };\n}"),
        0,
        "of a thread"
    );
    assert_eq!(
        found("#[cfg(test)]\nmod tests {\n    static H: Mutex<u8> = Mutex::new(0);\n}"),
        0,
        "unit tests"
    );
}

fn look_through(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look_through(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.extend(statics_to_object(name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

fn statics_to_object(file: &str, text: &str) -> Vec<String> {
    if TESTS.iter().any(|tests| file.contains(tests)) {
        return Vec::new();
    }
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let mut objections = Vec::new();
    let mut lines = code.lines().map(|line| line.split("//").next().unwrap());
    while let Some(line) = lines.next() {
        if line.contains("thread_local! {") {
            lines.by_ref().find(|line| line.starts_with('}'));
        } else if let Some((name, kind)) = declared(line)
            && !HARMLESS.iter().any(|harmless| kind.starts_with(harmless))
            && !EXCEPTIONS.iter().any(|(of, known, _)| *of == file && *known == name)
        {
            objections.push(format!("{file}: static {name}: {kind}"));
        }
    }
    objections
}

/// Files of tests alone, by a part of their names.
const TESTS: &[&str] = &["tests.rs", "/tests/", "/simulation/", "fake_gpu.rs", "fake_nic.rs"];

/// Name and type of the static that a line declares.
fn declared(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let visible =
        line.split_once("static ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"))?.1;
    let (name, kind) = visible.split_once(": ")?;
    name.chars()
        .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
        .then_some((name, kind))
}
