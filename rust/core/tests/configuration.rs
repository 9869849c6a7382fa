//! `docs/configuration.md` matches the table of variables. `UPDATE_DOCS=1` rewrites it.

use std::path::Path;

#[test]
fn the_page_is_generated_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = flagcx_p2p::internals::config::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is out of date: run UPDATE_DOCS=1 cargo test -p flagcx-p2p --test configuration",
        path.display()
    );
}
