//! One shrunk journal for each bug that was fixed, or that was planted to be found.

use std::fs;
use std::path::Path;

#[path = "../../journal/corpus/bugs/partial_release_frees_the_backend.rs"]
mod partial_release_frees_the_backend;

#[test]
fn every_kept_bug_is_a_test_here() {
    let here = include_str!("corpus.rs");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("journal/corpus/bugs");
    let mut seen = 0;
    for entry in fs::read_dir(kept).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(here.contains(&format!("\nmod {name};")), "{name} is kept and not run");
        seen += 1;
    }
    assert!(seen > 0);
}
