//! Arrows point down only: a crate uses only crates that stand before it in `default-members`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The strings of the list `name = [ … ]` of a manifest.
fn list(manifest: &str, name: &str) -> Vec<String> {
    let start = manifest.find(&format!("\n{name} = [")).expect("the list");
    let body = &manifest[start..][..manifest[start..].find("\n]").expect("its end")];
    body.lines().skip(1).filter_map(|line| line.trim().split('"').nth(1).map(str::to_owned)).collect()
}

/// The dependencies of a manifest that are crates of this house, dev-dependencies aside.
fn house_dependencies(manifest: &str, house: &[String]) -> Vec<String> {
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if section == "[dependencies]" && house.iter().any(|member| member == name) {
            found.push(name.to_owned());
        }
    }
    found
}

#[test]
fn arrows_point_down_only() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let members = list(&workspace, "default-members");
    let names: Vec<String> = members.iter().map(|path| path.rsplit('/').next().expect("a name").to_owned()).collect();
    assert_eq!(names.last().map(String::as_str), Some("."), "the program stands on top");
    let mut seen = 0;
    for (height, (path, name)) in members.iter().zip(&names).enumerate() {
        let manifest = fs::read_to_string(root().join(path).join("Cargo.toml")).expect("a manifest");
        for dependency in house_dependencies(&manifest, &names) {
            let below = names.iter().position(|other| *other == dependency).expect("a member");
            assert!(below < height, "{name} uses {dependency}, which stands above it in default-members");
            seen += 1;
        }
    }
    assert!(seen > 15, "the test found only {seen} arrows: it no longer reads the manifests");
}

#[test]
fn every_crate_is_on_the_list() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let listed = list(&workspace, "default-members");
    for entry in fs::read_dir(root().join("crates")).expect("crates") {
        let path = entry.expect("an entry").path();
        if path.join("Cargo.toml").exists() {
            let name = format!("crates/{}", path.file_name().expect("a name").to_string_lossy());
            assert!(listed.contains(&name), "{name} is not in default-members");
        }
    }
}

/// What a crate must not know, by the words that would show it.
#[test]
fn crates_do_not_know_what_they_must_not() {
    let forbidden: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("crates/wire/src", &["std::", "serde_json", "tokio", "bincode"][..]),
        (
            "crates/device/src",
            &["std::fs", "std::time", "std::thread", "std::net", "serde_json", "bincode", "tokio", "kameo", "kvm"],
        ),
        ("crates/driver/src", &["std::", "tokio", "kameo", "journal"]),
        ("crates/memory/src", &["journal", "qmp", "Tag", "tokio"]),
        ("crates/platform/src", &["journal", "qmp::", "Tag", "tokio"]),
        ("crates/vm/guest", &["std::", "journal", "qmp", "kvm_"]),
        ("crates/vm/src", &["journal", "qmp", "tokio", "kameo", "platform::"]),
        ("journal/src", &["tokio", "kameo", "qmp"]),
        ("crates/replay/src", &["tokio", "kameo", "qmp", "kvm"]),
        ("crates/snapshot/src", &["journal", "qmp", "Tag", "tokio", "kvm"]),
        ("crates/sim/src", &["std::time", "std::thread", "std::fs", "HashMap", "tokio", "kameo", "qmp"]),
        ("crates/handover/src", &["tokio", "kameo", "qmp::", "journal::", "memory::", "kvm"]),
        ("crates/actors/src", &["qmp::", "serde_json"]),
    ]);
    for (folder, words) in forbidden {
        for (path, code) in sources(&root().join(folder)) {
            for word in words {
                let line = code.lines().position(|line| {
                    !line.trim_start().starts_with("//") && line.contains(word) && !line.contains("clippy")
                });
                assert!(line.is_none(), "{path}:{} knows {word}", line.unwrap_or_default() + 1);
            }
        }
    }
}

#[test]
fn unsafe_stands_only_where_memory_and_vcpus_are() {
    for folder in ["crates", "journal"] {
        for (path, code) in sources(&root().join(folder)) {
            let is_allowed = path.contains("crates/memory/") || path.contains("crates/vm/");
            let has_unsafe = code.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("unsafe ") && !code.contains("unsafe_code")
            });
            assert!(is_allowed || !has_unsafe, "{path} has unsafe code");
        }
    }
}

/// Rust files below a folder, with their text up to their tests.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            found.push((path.to_string_lossy().into_owned(), code));
        }
    }
    found
}
