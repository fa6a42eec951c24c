//! The keys of the configuration file, in the table that its JSON Schema is made from.
//!
//! ```toml
//! memory = "1G"
//! qmp = ["unix:/run/dcd.sock"]
//!
//! [[device]]
//! driver = "cxl-type3"
//! id = "cxl-vmem0"
//! dc-regions-total-size = "4G"
//! ```
//!
//! Sizes are bytes, or text with K, M, G or T. Deliberately absent: reading the file, which is `config_file`.

use qmp::schema::{EnumSchema, Kind, StructSchema, optional, required};
use qmp::{DEVICE_MEMBERS, OBJECT_MEMBERS};

static DURABILITY: EnumSchema = EnumSchema {
    name: "Durability",
    doc: "When an answer may leave.",
    values: &[
        ("disk", "When its record is on disk: nothing that was answered is lost, whatever ends."),
        ("process", "When the operating system has its record: a killed process loses nothing, a power cut may."),
        ("none", "At once: whatever ends may take what was answered."),
    ],
};

static ACCEL: EnumSchema = EnumSchema {
    name: "Accel",
    doc: "What runs the guest.",
    values: &[
        ("auto", "KVM where it works, else soft."),
        ("kvm", "Processors of /dev/kvm."),
        ("soft", "A guest inside this process."),
    ],
};

static WINDOW: StructSchema = StructSchema {
    name: "Window",
    doc: "A CXL fixed memory window: guest-physical addresses in which the guest may see devices' memory.",
    members: &[required("size", Kind::Size, "Its size in bytes, a multiple of 256 MiB.")],
};

static PORT: StructSchema = StructSchema {
    name: "Port",
    doc: "A root port, for one device.",
    members: &[required("id", Kind::Str, "Its id, which a device names as its `bus`.")],
};

static DEVICE: StructSchema =
    StructSchema { name: "Device", doc: "A device: the arguments of `device_add`.", members: DEVICE_MEMBERS };

static OBJECT: StructSchema = StructSchema {
    name: "Object",
    doc: "A host memory backend: the arguments of `object-add`.",
    members: OBJECT_MEMBERS,
};

/// The whole file.
pub(crate) static CONFIG: StructSchema = StructSchema {
    name: "dcd configuration",
    doc: "What `dcd run --config` reads, a TOML file. An option on the command line goes before its key here.",
    members: &[
        optional("memory", Kind::Size, "Guest memory in bytes. Default: 1 GiB."),
        optional(
            "qmp",
            Kind::List(&Kind::Str),
            "Where QMP clients connect: `unix:PATH` or `tcp:HOST:PORT`. Default: dcd/qmp.sock in the XDG runtime directory.",
        ),
        optional("qtest", Kind::Str, "Where a qtest client connects: `unix:PATH`. Default: nowhere."),
        optional(
            "journal",
            Kind::Str,
            "The journal's directory, or `none`. Default: dcd/journal in the XDG state directory.",
        ),
        optional("durability", Kind::Enum(&DURABILITY), "When an answer may leave. Default: disk."),
        optional(
            "journal-limit",
            Kind::Size,
            "Bytes of journal at which the VM stops; a warning comes at 90 %. Default: no limit.",
        ),
        optional("accel", Kind::Enum(&ACCEL), "What runs the guest. Default: auto."),
        optional("vcpus", Kind::U8, "Processors of a guest on KVM, 1 to 64. Default: 1."),
        optional(
            "guest",
            Kind::Str,
            "The guest: `driver`, perhaps with `,policy=` and accept, reject, hold, subset, late or linux, or `none`. Default: \
             driver, or none with `qtest`.",
        ),
        optional("snapshots", Kind::Str, "The directory of snapshots. Default: in the journal's."),
        optional("backend-dir", Kind::Str, "The directory below which files of backends are. Default: none, no files."),
        optional(
            "window",
            Kind::List(&Kind::Object(&WINDOW)),
            "Fixed memory windows. Default: one that fits the devices.",
        ),
        optional("port", Kind::List(&Kind::Object(&PORT)), "Root ports. Default: one for each device."),
        optional("device", Kind::List(&Kind::Object(&DEVICE)), "Devices. Default: cxl-vmem0 with one region of 4 GiB."),
        optional("object", Kind::List(&Kind::Object(&OBJECT)), "Host memory backends. Default: none."),
    ],
};

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::accel::AccelArgument;
    use crate::run::DurabilityArgument;

    fn words<T: ValueEnum>() -> Vec<String> {
        let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        values.map(|value| value.get_name().to_owned()).collect()
    }

    fn table(words: &EnumSchema) -> Vec<String> {
        words.values.iter().map(|(word, _)| (*word).to_owned()).collect()
    }

    #[test]
    fn the_table_has_the_words_of_the_command_line() {
        assert_eq!(table(&ACCEL), words::<AccelArgument>());
        assert_eq!(table(&DURABILITY), words::<DurabilityArgument>());
    }
}
