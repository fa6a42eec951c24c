//! The README shows how a VM is saved, restored and handed over.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::kvm;
use crate::program::{TAG0, dcd, printed};

/// A program that the README has started in the background.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // One that was handed over has ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts it, and reads until it is ready.
fn start(arguments: &[&str]) -> (Background, String) {
    let mut child = dcd().args(arguments).stdout(Stdio::piped()).spawn().expect("dcd starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
    let mut said = String::new();
    while !said.ends_with("ready\n") {
        assert!(lines.read_line(&mut said).expect("a line") > 0, "dcd {arguments:?}: {said}");
    }
    (Background(child), said)
}

/// Words without what differs from run to run: numbers, their units and the widths of columns.
fn words(text: &str, dir: &Path) -> Vec<String> {
    let text = text.replace(&dir.display().to_string(), "/tmp/vm").replace(TAG0, "TAG");
    let numberless = |word: &str| word.chars().filter(|character| !character.is_ascii_digit()).collect::<String>();
    let units = ["bytes", "KiB", "MiB", "ms", "us"];
    text.split_whitespace().map(numberless).filter(|word| !word.is_empty() && !units.contains(&word.as_str())).collect()
}

/// Waits until the guest has answered every offer: it takes as long as a person's next line, or less.
fn wait_for_answer(dir: &Path) {
    let address = format!("unix:{}/qmp.sock", dir.display());
    let is_answered = || printed(&["status", "--qmp", &address]).lines().any(|line| line.trim() == "offers    0");
    while !is_answered() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_snapshots_in_the_readme_are_saved_and_restored_so() {
    if !kvm::is_there() {
        return;
    }
    let readme = include_str!("../../README.md");
    let section = readme.split("## Stop, copy, carry, continue").nth(1).expect("the section");
    let shown = section.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the lines");
    let dir = tempfile::tempdir().expect("a directory");
    let mut running = Vec::new();
    let mut done = 0;
    for step in shown.split("$ dcd ").skip(1) {
        let (command, answer) = step.split_once('\n').expect("an answer");
        let command = command.replace("/tmp/vm", &dir.path().display().to_string()).replace("TAG", TAG0);
        let told = match command.strip_suffix(" &") {
            Some(command) => {
                let (background, said) = start(&command.split(' ').collect::<Vec<_>>());
                running.push(background);
                said
            }
            None => printed(&command.split(' ').collect::<Vec<_>>()),
        };
        if command.starts_with("add ") {
            wait_for_answer(dir.path());
        }
        // What stands before an ellipsis is the host's matter.
        let shown = answer.strip_prefix("…\n").unwrap_or(answer);
        let (told, shown) = (words(&told, dir.path()), words(shown, dir.path()));
        assert!(told.ends_with(&shown), "dcd {command}\n{told:?}\n{shown:?}");
        assert!(answer.starts_with('…') || told == shown, "dcd {command}\n{told:?}\n{shown:?}");
        done += 1;
    }
    assert!(done >= 10, "the README shows {done} commands");
}
