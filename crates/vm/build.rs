//! Builds the guest image with a cargo of its own, so that one `cargo build` makes the whole program.
//!
//! ```text
//!  $CARGO build --package guest --bin image ─▶ OUT_DIR/guest/… ─▶ include_bytes!(GUEST_IMAGE)
//! ```
//!
//! The inner cargo has a target directory of its own, because the outer one holds the lock of the usual one, and its own
//! flags, because the outer ones (coverage, a native CPU, a linker) would break a program that stands alone.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What changes the image.
const SOURCES: [&str; 6] =
    ["crates/vm/guest", "crates/driver/src", "crates/driver/Cargo.toml", "crates/wire/src", "Cargo.toml", "Cargo.lock"];

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).expect("the workspace");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let image = build(&here.join("guest"), &PathBuf::from(variable("OUT_DIR")).join("guest"));
    println!("cargo::rustc-env=GUEST_IMAGE={}", image.display());
}

/// Builds the image; its path.
fn build(guest: &Path, target_dir: &Path) -> PathBuf {
    let target = variable("TARGET");
    let script = guest.join("image/link.ld");
    let flags = [
        "-Cpanic=abort".to_owned(),
        "-Crelocation-model=static".to_owned(),
        "-Cstrip=debuginfo".to_owned(),
        "-Clink-args=-nostartfiles -nostdlib -static -Wl,--build-id=none -Wl,-z,norelro".to_owned(),
        format!("-Clink-arg=-Wl,-T,{}", script.display()),
    ];
    let mut cargo = Command::new(variable("CARGO"));
    cargo.arg("build").arg("--release").arg("--locked").arg("--bin").arg("image").arg("--features").arg("image");
    cargo.arg("--manifest-path").arg(guest.join("Cargo.toml"));
    // With a target the flags are not those of build scripts and procedural macros.
    cargo.arg("--target").arg(&target).arg("--target-dir").arg(target_dir);
    // What the outer cargo was told of how to compile, and clippy in the compiler's place. The flags here go before those
    // of the environment and of configuration files.
    for (name, _) in env::vars_os() {
        let is_outer = name.to_string_lossy().starts_with("CARGO_PROFILE_");
        if is_outer
            || ["CARGO_INCREMENTAL", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
                .iter()
                .any(|outer| name == *outer)
        {
            cargo.env_remove(&name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the guest image does not build: {status}");
    target_dir.join(target).join("release/image")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}
