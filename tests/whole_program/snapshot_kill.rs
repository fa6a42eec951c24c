//! kill -9 in the middle of a save, a load, a delete: the journal starts, nothing that was acknowledged is lost, memory is what
//! it was before or after, and what is half made is known as such and goes.
//!
//! `DCD_SNAPSHOT_KILLS=300` kills more often.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{Client, MIB, Program, printed};
use crate::traffic::Dice;
use crate::vm::replayed;

const KILLS: &str = "DCD_SNAPSHOT_KILLS";
const KILLS_IN_CI: u64 = 15;
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the backend whose bytes are saved and brought back: enough to be met in the middle of.
const FILE_BYTES: u64 = 24 * MIB;

/// What is under way when the program is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Save,
    Load,
    Delete,
}

/// When it is killed.
#[derive(Clone, Debug)]
enum Moment {
    /// So long after the request.
    After(Duration),
    /// So long after something is there, or is not there any more.
    Seen { path: PathBuf, is_there: bool, after: Duration },
}

impl Moment {
    fn wait_for(&self, since: Instant) {
        match self {
            Self::After(time) => thread::sleep(time.saturating_sub(since.elapsed())),
            Self::Seen { path, is_there, after } => {
                // What is over before it is seen is not waited for.
                while path.exists() != *is_there && since.elapsed() < Duration::from_secs(2) {
                    std::hint::spin_loop();
                }
                thread::sleep(*after);
            }
        }
    }
}

/// A VM that is killed again and again.
struct Killed {
    dir: tempfile::TempDir,
    dice: Dice,
    /// The number that is in the tag of a free backend, and on each page of the file.
    number: u64,
    /// The numbers of snapshots that were acknowledged, by name.
    saved: BTreeMap<String, u64>,
}

impl Killed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let files = dir.path().join("files");
        fs::create_dir(&files).expect("a directory");
        File::create(files.join("kept")).and_then(|file| file.set_len(FILE_BYTES)).expect("a file");
        let (dice, saved) = (Dice(u64::from(std::process::id()) | 1 << 42), BTreeMap::new());
        let mut killed = Self { dir, dice, number: 0, saved };
        let program = killed.start();
        let mut client = program.client();
        let kept = json!({"qom-type": "memory-backend-file", "id": "kept", "size": FILE_BYTES, "mem-path": "kept", "share": true});
        client.execute("object-add", kept).expect("a backend");
        client.object_add("counter", &counted(0), 4096).expect("a backend");
        killed.count(&mut client);
        killed.finish(&mut client, Deed::Save, "s0");
        program.terminate();
        killed
    }

    fn start(&self) -> Program {
        let files = self.dir.path().join("files");
        let arguments = ["--memory", "64M", "--backend-dir", files.to_str().expect("a path")];
        Program::start(self.dir.path(), &arguments)
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn snapshots(&self) -> PathBuf {
        self.journal().join("snapshots")
    }

    /// Another number, in the state and in the memory.
    fn count(&mut self, client: &mut Client) {
        self.number += 1;
        let set = json!({"path": "/objects/counter", "property": "tag", "value": counted(self.number)});
        client.execute("qom-set", set).expect("acknowledged");
        let file = File::options().write(true).open(self.dir.path().join("files/kept")).expect("a file");
        file.write_all_at(&page_of(self.number).repeat((FILE_BYTES / 4096) as usize), 0).expect("written");
    }

    /// Begins a deed by a job.
    fn begin(&self, client: &mut Client, deed: Deed, name: &str) {
        let command = match deed {
            Deed::Save => "snapshot-save",
            Deed::Load => "snapshot-load",
            Deed::Delete => "snapshot-delete",
        };
        client.execute(command, json!({"job-id": "job", "tag": name})).expect("begun");
    }

    /// Does it to its end.
    fn finish(&mut self, client: &mut Client, deed: Deed, name: &str) {
        self.begin(client, deed, name);
        let job = concluded(client);
        assert_eq!(job["error"], Value::Null, "{deed:?} {name}");
        match deed {
            Deed::Save => drop(self.saved.insert(name.to_owned(), self.number)),
            Deed::Delete => drop(self.saved.remove(name)),
            Deed::Load => {}
        }
        client.execute("job-dismiss", json!({"id": "job"})).expect("dismissed");
    }

    /// One life, which is ended in the middle of a deed: what became of that.
    fn round(&mut self, deed: Deed, name: &str, moment: &Moment) -> &'static str {
        let program = self.start();
        let mut client = program.client();
        self.count(&mut client);
        let begun = Instant::now();
        self.begin(&mut client, deed, name);
        moment.wait_for(begun);
        let is_done = is_concluded(&mut client);
        program.kill();
        match deed {
            Deed::Save => self.after_save(name, is_done),
            Deed::Delete => self.after_delete(name, is_done),
            Deed::Load => self.after_load(name, is_done),
        }
    }

    fn after_save(&mut self, name: &str, is_done: bool) -> &'static str {
        let state = self.listed(name);
        assert!(!is_done || state == "whole", "acknowledged and {state}");
        if state == "whole" {
            let verified = printed(&["snapshot", "verify", self.snapshots().join(name).to_str().expect("a path")]);
            assert!(verified.contains("every byte is what was written"), "{verified}");
            self.saved.insert(name.to_owned(), self.number);
        }
        self.check_start(self.number);
        if state == "whole" { "saved" } else { "not saved" }
    }

    fn after_delete(&mut self, name: &str, is_done: bool) -> &'static str {
        let state = self.listed(name);
        assert!(!is_done || state == "absent", "acknowledged and {state}");
        if state != "whole" {
            self.saved.remove(name);
        }
        self.check_start(self.number);
        if state == "whole" { "not deleted" } else { "deleted" }
    }

    /// The VM is as it was before or as it was saved, with all of its memory.
    fn after_load(&mut self, name: &str, is_done: bool) -> &'static str {
        let (before, saved) = (self.number, self.saved[name]);
        let program = self.start();
        let now = number_of(&mut program.client());
        assert!(now == before || now == saved, "{before} or {saved} was to be there, and {now} is");
        assert!(!is_done || now == saved, "acknowledged and not loaded");
        self.check_file(now);
        if now == saved && before != saved {
            // What was acknowledged before it is kept as the past.
            let past = self.journal().join("past");
            let newest = fs::read_dir(past).expect("a past").map(|entry| entry.expect("an entry").path()).max();
            let state = replayed(&newest.expect("a past")).1;
            assert_eq!(state.backends.get("counter").expect("the counter").spec.tag_text, counted(before));
        }
        self.check_swept();
        self.check_others();
        program.kill();
        if now == saved { "loaded" } else { "not loaded" }
    }

    /// What a directory of snapshots has of one; all others are whole.
    fn listed(&self, name: &str) -> String {
        let lines = printed(&["snapshot", "list", "--json", "--dir", self.snapshots().to_str().expect("a path")]);
        let mut found = "absent".to_owned();
        for line in lines.lines() {
            let listed: Value = serde_json::from_str(line).expect("JSON");
            let state = listed["state"].as_str().expect("a state").to_owned();
            if listed["tag"] == name {
                assert!(state == "whole" || state == "half-made", "{line}");
                found = state;
            } else {
                assert_eq!(state, "whole", "{line}");
            }
        }
        found
    }

    fn check_start(&self, number: u64) {
        let program = self.start();
        assert_eq!(number_of(&mut program.client()), number, "acknowledged and lost");
        self.check_file(number);
        self.check_swept();
        program.kill();
        self.check_others();
    }

    fn check_file(&self, number: u64) {
        let bytes = fs::read(self.dir.path().join("files/kept")).expect("a file");
        let page = page_of(number);
        let wrong = bytes.chunks(4096).position(|there| there != page);
        assert_eq!(wrong, None, "the first page that has not the bytes of {number}");
    }

    /// A start has removed what was left half made.
    fn check_swept(&self) {
        let names = fs::read_dir(self.snapshots()).expect("a directory");
        let names = names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let half: Vec<_> = names.filter(|name| name.ends_with(".part") || name.ends_with(".gone")).collect();
        assert!(half.is_empty(), "{half:?}");
    }

    /// Every snapshot that was acknowledged is there.
    fn check_others(&self) {
        for name in self.saved.keys() {
            assert!(self.snapshots().join(name).join("manifest.json").exists(), "{name} is gone");
        }
    }

    /// How long a deed takes that nobody disturbs.
    fn usual(&mut self, deed: Deed, name: &str) -> Duration {
        let program = self.start();
        let mut client = program.client();
        self.count(&mut client);
        let begun = Instant::now();
        self.finish(&mut client, deed, name);
        let took = begun.elapsed();
        if deed == Deed::Load {
            self.check_file(self.saved[name]);
        }
        program.terminate();
        took
    }

    /// Somewhere in the middle of a deed, or at one of its steps.
    fn moment(&mut self, deed: Deed, name: &str, usual: Duration) -> Moment {
        let after = Duration::from_micros(self.dice.roll(1_500));
        let past = format!("past/{:06}", fs::read_dir(self.journal().join("past")).map_or(0, Iterator::count) + 1);
        let journal = self.journal();
        let steps = match deed {
            Deed::Save => vec![(format!("snapshots/{name}.part"), true), (format!("snapshots/{name}"), true)],
            Deed::Delete => vec![(format!("snapshots/{name}.gone"), true), (format!("snapshots/{name}"), false)],
            Deed::Load => vec![
                ("next".into(), true),
                (past.clone(), true),
                (format!("{past}/live"), true),
                ("live".into(), false),
                ("next".into(), true),
            ],
        };
        let whole_us = usual.as_micros() as u64;
        match self.dice.roll(steps.len() as u64 * 2) as usize {
            step if step < steps.len() => {
                let (path, is_there) = &steps[step];
                Moment::Seen { path: journal.join(path), is_there: *is_there, after }
            }
            _ => Moment::After(Duration::from_micros(self.dice.roll(whole_us * 5 / 4))),
        }
    }
}

fn counted(number: u64) -> String {
    format!("00000000-0000-4000-9000-{number:012x}")
}

/// A page that no other number has.
fn page_of(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(4096 / 8)
}

fn number_of(client: &mut Client) -> u64 {
    let tag = client.execute("qom-get", json!({"path": "/objects/counter", "property": "tag"})).expect("a tag");
    let text = tag.as_str().expect("text");
    u64::from_str_radix(&text[24..], 16).expect("a number")
}

fn job_of(client: &mut Client) -> Option<Value> {
    let jobs = client.try_execute("query-jobs", json!({}))?.expect("a list");
    jobs.as_array().expect("a list").iter().find(|job| job["id"] == "job").cloned()
}

fn concluded(client: &mut Client) -> Value {
    let begun = Instant::now();
    loop {
        let job = job_of(client).expect("the job");
        if job["status"] == "concluded" {
            return job;
        }
        assert!(begun.elapsed() < PATIENCE, "{job}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a client was told that it is done.
fn is_concluded(client: &mut Client) -> bool {
    let job = job_of(client).expect("the program is there");
    assert_eq!(job["error"], Value::Null);
    job["status"] == "concluded"
}

#[test]
fn a_kill_at_any_step_of_a_snapshot_leaves_the_vm_before_or_after_it() {
    let kills: u64 = env::var(KILLS).map_or(KILLS_IN_CI, |kills| kills.parse().expect("a number of kills"));
    let mut killed = Killed::new();
    let usual =
        [killed.usual(Deed::Save, "usual"), killed.usual(Deed::Load, "s0"), killed.usual(Deed::Delete, "usual")];
    let mut outcomes = BTreeMap::new();
    for kill in 0..kills {
        let n = (kill % 3) as usize;
        let deed = [Deed::Save, Deed::Load, Deed::Delete][n];
        let name = match deed {
            Deed::Save => format!("k{kill}"),
            // On which none is built.
            Deed::Delete => killed.spare(),
            Deed::Load => "s0".to_owned(),
        };
        let moment = killed.moment(deed, &name, usual[n]);
        let outcome = killed.round(deed, &name, &moment);
        eprintln!("{deed:?} {name} {moment:?}: {outcome}");
        *outcomes.entry((deed, outcome)).or_insert(0) += 1;
    }
    eprintln!("{kills} kills, each takes {usual:?}: {outcomes:?}");
    // A delete is hardly met before its first step.
    assert!(kills < 200 || outcomes.len() >= 5, "not everything was met: {outcomes:?}");
}

impl Killed {
    /// A snapshot to delete.
    fn spare(&mut self) -> String {
        if let Some(name) = self.saved.keys().find(|name| name.starts_with('k')) {
            return name.clone();
        }
        let program = self.start();
        self.finish(&mut program.client(), Deed::Save, "k");
        program.terminate();
        "k".into()
    }
}
