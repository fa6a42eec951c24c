//! Paths that clients give: none leads out of the directory, none hangs, each refusal says what is in the way.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use device::backends::{FileAccess, Sharing};
use memory::BackendDir;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{PAGE, Place, file, of_kind};

const BOTH: [FileAccess; 2] = [FileAccess::ReadWrite, FileAccess::ReadOnly];

#[track_caller]
fn assert_says(said: &str, words: &str) {
    assert!(said.contains(words), "'{words}' is not in: {said}");
}

#[test]
fn a_path_that_leaves_the_directory_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path("sub")).unwrap();
    let secret = place.outside().join("secret");
    let around = format!("{}/../secret", place.path("").display());
    let sibling = format!("{}-2/x", place.outside().join("dir").display());
    for access in BOTH {
        for path in
            ["../secret", "sub/../../secret", "/etc/passwd", "../dir/x", secret.to_str().unwrap(), &around, &sibling]
        {
            assert_says(&place.refused(path, access), "is not below");
        }
    }
    assert_eq!(fs::read(&secret).unwrap(), [7; 100]);
}

#[test]
fn a_path_below_is_relative_or_absolute() {
    let place = Place::new();
    fs::create_dir(place.path("sub")).unwrap();
    let absolute = place.path("sub/b");
    for (path, name) in [("sub/a", "sub/a"), (absolute.to_str().unwrap(), "sub/b"), ("./sub/../sub/./c", "sub/c")] {
        place.make(&of_kind(file(path, FileAccess::ReadWrite), PAGE, Sharing::Shared)).unwrap();
        assert_eq!(fs::metadata(place.path(name)).unwrap().len(), PAGE);
    }
}

/// The directory itself may be reached over a link: the operator named it.
#[test]
fn a_directory_behind_a_link_takes_absolute_paths_of_both_its_names() {
    let place = Place::new();
    let link = place.outside().join("link");
    symlink(place.path(""), &link).unwrap();
    let named = Place { top: place.top, dir: BackendDir::open(&link).unwrap() };
    for (at, name) in [(link.join("a"), "a"), (named.path("b"), "b")] {
        named.make(&of_kind(file(at.to_str().unwrap(), FileAccess::ReadWrite), PAGE, Sharing::Shared)).unwrap();
        assert!(named.path(name).exists());
    }
}

#[test]
fn no_symbolic_link_is_followed() {
    let place = Place::new();
    fs::write(place.path("inside"), [1; 10]).unwrap();
    symlink("inside", place.path("to-inside")).unwrap();
    symlink("../secret", place.path("to-secret")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();
    symlink("..", place.path("up")).unwrap();
    symlink("/proc/self/root", place.path("root")).unwrap();
    for access in BOTH {
        for path in ["to-inside", "to-secret", "dangling", "up/secret", "root/etc/passwd"] {
            assert_says(&place.refused(path, access), "symbolic link");
        }
    }
    assert!(!place.path("nowhere").exists());
}

#[test]
fn what_is_no_regular_file_is_named_and_not_opened() {
    let place = Place::new();
    fs::create_dir(place.path("sub")).unwrap();
    mknodat(CWD, place.path("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = UnixListener::bind(place.path("socket")).unwrap();
    for access in BOTH {
        // A FIFO without a partner would keep an opener for ever.
        assert_says(&place.refused("fifo", access), "is a FIFO and not a regular file");
        assert_says(&place.refused("socket", access), "is a socket and not");
        for path in ["sub", ".", "sub/.", "", place.path("").to_str().unwrap()] {
            assert!(place.make(&of_kind(file(path, access), PAGE, Sharing::Shared)).is_err(), "{path}");
        }
        assert_says(&place.refused("sub", access), "is a directory and not");
    }
    // Only root makes a node that reads like /dev/zero.
    let zero = rustix::fs::makedev(1, 5);
    match mknodat(CWD, place.path("zero"), FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, zero) {
        Ok(()) => assert_says(&place.refused("zero", FileAccess::ReadWrite), "is a character device"),
        Err(errno) => {
            println!("no device node can be made here ({errno}): /dev itself is tried");
            let dev = Place { dir: BackendDir::open(Path::new("/dev")).unwrap(), ..Place::new() };
            assert_says(&dev.refused("zero", FileAccess::ReadWrite), "is a character device");
        }
    }
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let place = Place::new();
    assert_says(&place.refused("no/such/file", FileAccess::ReadWrite), "the directory that it is in is not there");
    assert_says(&place.refused("no/such/file", FileAccess::ReadOnly), "no such file below");
    fs::write(place.path("file"), [1]).unwrap();
    assert!(!place.refused("file/x", FileAccess::ReadWrite).is_empty());
    assert!(!place.refused("nul\0byte", FileAccess::ReadWrite).is_empty());
    assert!(!place.refused(&"x".repeat(5000), FileAccess::ReadWrite).is_empty());
    let said = BackendDir::open(&place.path("none")).unwrap_err().to_string();
    assert_says(&said, "backend directory");
    assert!(BackendDir::open(&place.path("file")).is_err());
}

#[test]
fn without_a_directory_the_refusal_says_how_to_give_one() {
    let said = crate::create(&of_kind(file("x", FileAccess::ReadWrite), PAGE, Sharing::Shared)).unwrap_err();
    assert_says(&said.to_string(), "start with --backend-dir DIR");
}

#[test]
fn a_directory_that_is_renamed_meanwhile_is_still_the_one() {
    let place = Place::new();
    fs::rename(place.path(""), place.outside().join("moved")).unwrap();
    fs::create_dir(place.path("")).unwrap();
    place.make(&of_kind(file("x", FileAccess::ReadWrite), PAGE, Sharing::Shared)).unwrap();
    assert!(place.outside().join("moved/x").exists() && !place.path("x").exists());
}

/// Parts of paths, with some that lead out and some that are there.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        3 => Just("sub".to_owned()),
        1 => Just("up".to_owned()),
        1 => Just("secret".to_owned()),
        1 => Just("dir".to_owned()),
        1 => "[a-c]{1,2}",
    ];
    let start = prop_oneof![4 => Just(String::new()), 1 => Just("/".to_owned()), 2 => Just("DIR/".to_owned())];
    (start, proptest::collection::vec(part, 1..8)).prop_map(|(start, parts)| start + &parts.join("/"))
}

/// Every file below `dir`, relative to it, without its contents.
fn files(top: &Path, below: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(top, &entry.path()));
        } else {
            found.push(entry.path().strip_prefix(top).unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

proptest! {
    #[test]
    fn no_path_leads_out(path in path(), is_readonly: bool) {
        let place = Place::new();
        fs::create_dir(place.path("sub")).unwrap();
        symlink("..", place.path("up")).unwrap();
        let access = if is_readonly { FileAccess::ReadOnly } else { FileAccess::ReadWrite };
        let path = path.replace("DIR", place.path("").to_str().unwrap().trim_end_matches('/'));
        let made = place.make(&of_kind(file(&path, access), PAGE, Sharing::Shared));
        if let Ok(memory) = &made {
            memory.write(0, b"mark").unwrap();
        }
        drop(made);
        // Whatever was made or written is below the directory; what is beside it is as it was.
        prop_assert_eq!(fs::read(place.outside().join("secret")).unwrap(), [7; 100]);
        for found in files(place.outside(), place.outside()) {
            prop_assert!(found == "secret" || found.starts_with("dir/"), "{} made {}", path, found);
        }
    }
}
