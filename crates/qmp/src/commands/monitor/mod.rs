//! `human-monitor-command`: what the queries answer, as text for people and for `qmp-shell -H`.
//!
//! ```text
//! "info mtree -f" ──words──▶ command, topic, options ──▶ one file a topic ──▶ lines, each ended by CR LF as QEMU ends them
//! "savevm monday" ─────────▶ command, name ───────────▶ what the request does, at once and not by a job
//! ```
//!
//! Who misspells a command is told so in the text, as by QEMU: the answer is a success. Deliberately absent: commands that change
//! anything but `savevm`, `loadvm` and `delvm`, which scripts know; requests do that, and say what went wrong.

mod cxl;
mod memdev;
mod mtree;
mod snapshots;

use actors::{RunState, Vm};
use serde_json::Value;

use super::arguments::{Arguments, required_text};
use super::machine;
use super::snapshots::Snapshots;
use crate::error::QmpError;
use crate::schema::{CommandSchema, Kind, optional, required};

pub(super) const HUMAN_MONITOR_COMMAND: CommandSchema = CommandSchema {
    name: "human-monitor-command",
    doc: "Returns the text with which a line of the monitor for people is answered. `help` lists the lines there are. The \
          text is for people: programs query.",
    arguments: &[
        required("command-line", Kind::Str, "The line, such as `info cxl`."),
        optional("cpu-index", Kind::Int, "The vCPU that the line is about; no line is about one. Default: 0."),
    ],
    returns: Kind::Str,
    features: &[],
};

/// One thing that `info` shows.
struct Topic {
    name: &'static str,
    options: &'static str,
    help: &'static str,
}

static TOPICS: &[Topic] = &[
    Topic {
        name: "cxl",
        options: "",
        help: "show every device: regions, offers, extents, counters, decoders, event log",
    },
    Topic { name: "memdev", options: "", help: "show the host memory backends" },
    Topic {
        name: "mtree",
        options: "[-f]",
        help: "show the guest-physical address map (-f: what answers at each address)",
    },
    Topic { name: "snapshots", options: "", help: "show the snapshots" },
    Topic { name: "status", options: "", help: "show whether the VM runs" },
    Topic { name: "version", options: "", help: "show the version of the program" },
];

/// A command on the snapshot that it names.
struct Deed {
    name: &'static str,
    help: &'static str,
}

static DEEDS: &[Deed] = &[
    Deed { name: "savevm", help: "save a snapshot of the VM, on the newest of this run" },
    Deed { name: "loadvm", help: "make the VM what it was in a snapshot" },
    Deed { name: "delvm", help: "delete a snapshot" },
];

pub(super) async fn execute(vm: &Vm, snapshots: &Snapshots, arguments: &Arguments) -> Result<Value, QmpError> {
    // As in QEMU, of which clients name the first one even where there is none.
    let vcpus = vm.machine().map_or(1, |machine| machine.vcpus());
    let is_one = |index: &Value| index.as_u64().is_some_and(|index| index < vcpus.into());
    if arguments.get("cpu-index").is_some_and(|index| !is_one(index)) {
        let expected = format!("Parameter 'cpu-index' expects a CPU number: give one below {vcpus}, or nothing");
        return Err(QmpError::generic(expected));
    }
    let text = answer(vm, snapshots, required_text(arguments, "command-line")?).await?;
    Ok(text.replace('\n', "\r\n").into())
}

async fn answer(vm: &Vm, snapshots: &Snapshots, line: &str) -> Result<String, QmpError> {
    let words: Vec<_> = line.split_whitespace().collect();
    Ok(match words[..] {
        [] => String::new(),
        ["help" | "?"] => help(),
        ["help" | "?", "info"] | ["info"] => info_help(),
        ["help" | "?", "help" | "?"] => HELP_HELP.to_owned(),
        ["help" | "?", ref other @ ..] => unknown(&other.join(" ")),
        ["info", topic, ref options @ ..] => info(vm, topic, options).await?,
        [deed, ref names @ ..] if DEEDS.iter().any(|known| known.name == deed) => done(snapshots, deed, names).await,
        [other, ..] => unknown(other),
    })
}

/// Nothing, or why nothing came of it.
async fn done(snapshots: &Snapshots, deed: &str, names: &[&str]) -> String {
    let [name] = names else {
        let trouble = if names.is_empty() { "string expected" } else { "extraneous characters at the end of line" };
        return format!("{deed}: {trouble}\nTry \"help\" for more information\n");
    };
    let done = match deed {
        "savevm" => snapshots.save_now(name).await,
        "loadvm" => snapshots.load_now(name).await,
        _ => snapshots.delete_now(name).await,
    };
    done.map_or_else(|error| format!("Error: {}\n", error.description), |()| String::new())
}

const HELP_HELP: &str = "help|? [command] -- show the help\n";

fn help() -> String {
    let info = "info [topic] -- show the state of the VM; `info` alone lists the topics\n".to_owned();
    let deeds = DEEDS.iter().map(|deed| format!("{} name -- {}\n", deed.name, deed.help));
    [HELP_HELP.to_owned(), info].into_iter().chain(deeds).collect()
}

fn info_help() -> String {
    let line = |topic: &Topic| {
        let gap = if topic.options.is_empty() { "" } else { " " };
        format!("info {}{gap}{} -- {}\n", topic.name, topic.options, topic.help)
    };
    TOPICS.iter().map(line).collect()
}

fn unknown(command: &str) -> String {
    format!("unknown command: '{command}'\n")
}

async fn info(vm: &Vm, topic: &str, options: &[&str]) -> Result<String, QmpError> {
    let Some(known) = TOPICS.iter().find(|known| known.name == topic) else {
        return Ok(unknown(&format!("info {topic}")));
    };
    let is_flat = match options {
        [] => false,
        ["-f"] if !known.options.is_empty() => true,
        [option, ..] if option.starts_with('-') => {
            return Ok(format!("info {topic}: unsupported option {option}\nTry \"help info\" for more information\n"));
        }
        _ => return Ok(format!("info {topic}: extraneous characters at the end of line\n")),
    };
    match topic {
        "cxl" => cxl::text(vm).await,
        "memdev" => memdev::text(vm).await,
        "mtree" if is_flat => mtree::flat_text(vm).await,
        "mtree" => mtree::text(vm).await,
        "snapshots" => snapshots::text(vm).await,
        "status" => Ok(status(vm.run_state())),
        "version" => Ok(version(&machine::version())),
        unbuilt => Err(QmpError::generic(format!("info {unbuilt} is listed and not built: this is a bug"))),
    }
}

fn status(state: RunState) -> String {
    let word = match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
    };
    format!("VM status: {word}\n")
}

fn version(version: &Value) -> String {
    let number = |name: &str| version["qemu"][name].to_string();
    let package = version["package"].as_str().unwrap_or_default();
    format!("{}.{}.{} ({package})\n", number("major"), number("minor"), number("micro"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn help_is_read_by_people_and_by_qmp_shell() {
        expect![[r#"
            help|? [command] -- show the help
            info [topic] -- show the state of the VM; `info` alone lists the topics
            savevm name -- save a snapshot of the VM, on the newest of this run
            loadvm name -- make the VM what it was in a snapshot
            delvm name -- delete a snapshot
            info cxl -- show every device: regions, offers, extents, counters, decoders, event log
            info memdev -- show the host memory backends
            info mtree [-f] -- show the guest-physical address map (-f: what answers at each address)
            info snapshots -- show the snapshots
            info status -- show whether the VM runs
            info version -- show the version of the program
        "#]]
        .assert_eq(&(help() + &info_help()));
        // The shell takes the second word of each line for its completion.
        assert!(info_help().lines().all(|line| line.split_whitespace().count() > 1));
    }

    #[test]
    fn status_and_version() {
        assert_eq!(status(RunState::Paused), "VM status: paused\n");
        let version = version(&serde_json::json!({"qemu": {"major": 1, "minor": 2, "micro": 3}, "package": "p 4"}));
        assert_eq!(version, "1.2.3 (p 4)\n");
    }
}
