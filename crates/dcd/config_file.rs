//! The configuration file of `dcd run --config`: the options once more, in TOML.
//!
//! ```toml
//! memory = "1G"
//!
//! [[device]]
//! driver = "cxl-type3"
//! id = "cxl-vmem0"
//! dc-regions-total-size = "4G"
//! ```
//!
//! Every value is brought into the text of its option and read as that, so that file and command line cannot mean two
//! things. Deliberately absent: the description of the keys, which is `config_schema`.

use std::fs;
use std::path::{Path, PathBuf};

use actors::{GuestProgram, Object};
use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use toml::{Table, Value};

use crate::accel::AccelArgument;
use crate::options::{self, DeviceOption};
use crate::run::{DurabilityArgument, guest};

/// What a file says; what is `None` or empty it does not say.
#[derive(Default)]
pub(crate) struct ConfigFile {
    pub(crate) memory: Option<u64>,
    pub(crate) window: Vec<u64>,
    pub(crate) device: Vec<DeviceOption>,
    pub(crate) object: Vec<Object>,
    pub(crate) qmp: Vec<String>,
    pub(crate) qtest: Option<String>,
    pub(crate) journal: Option<PathBuf>,
    pub(crate) durability: Option<DurabilityArgument>,
    pub(crate) journal_limit: Option<u64>,
    pub(crate) keep: Option<u64>,
    pub(crate) snapshots: Option<PathBuf>,
    pub(crate) accel: Option<AccelArgument>,
    pub(crate) vcpus: Option<u32>,
    pub(crate) guest: Option<GuestProgram>,
    pub(crate) backend_dir: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("--config {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: Table = text.parse()?;
        let mut file = Self::default();
        for (key, value) in &table {
            file.set(key, value).with_context(|| format!("'{key}'"))?;
        }
        Ok(file)
    }

    fn set(&mut self, key: &str, value: &Value) -> anyhow::Result<()> {
        let text = || option_text(value);
        match key {
            "memory" => self.memory = Some(refusable(options::size(&text()?))?),
            "journal-limit" => self.journal_limit = Some(refusable(options::size(&text()?))?),
            "keep" => self.keep = Some(refusable(options::size(&text()?))?),
            "qmp" => self.qmp = elements(value)?.iter().map(option_text).collect::<Result<_, _>>()?,
            "qtest" => self.qtest = Some(text()?),
            "journal" => self.journal = Some(text()?.into()),
            "snapshots" => self.snapshots = Some(text()?.into()),
            "backend-dir" => self.backend_dir = Some(text()?.into()),
            "durability" => self.durability = Some(refusable(DurabilityArgument::from_str(&text()?, false))?),
            "accel" => self.accel = Some(refusable(AccelArgument::from_str(&text()?, false))?),
            "vcpus" => self.vcpus = Some(refusable(options::vcpus(&text()?))?),
            "guest" => self.guest = Some(refusable(guest(&text()?))?),
            "window" => self.window = tables(value)?.map(|table| window(table?)).collect::<Result<_, _>>()?,
            "port" => {
                let ports = tables(value)?.map(|table| port(table?)).collect::<Result<Vec<_>, _>>()?;
                self.device.extend(ports);
            }
            "device" => {
                let devices = tables(value)?.map(|table| device(table?)).collect::<Result<Vec<_>, _>>()?;
                self.device.extend(devices);
            }
            "object" => self.object = tables(value)?.map(|table| object(table?)).collect::<Result<_, _>>()?,
            _ => bail!("there is no such key: `dcd schema config` lists them"),
        }
        Ok(())
    }
}

fn refusable<T>(read: Result<T, String>) -> anyhow::Result<T> {
    read.map_err(|reason| anyhow!(reason))
}

/// A value as its option has it.
fn option_text(value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(true) => Ok("on".into()),
        Value::Boolean(false) => Ok("off".into()),
        other => bail!("a {} has no meaning here", other.type_str()),
    }
}

fn elements(value: &Value) -> anyhow::Result<&[Value]> {
    value.as_array().map(Vec::as_slice).context("it is an array")
}

fn tables(value: &Value) -> anyhow::Result<impl Iterator<Item = anyhow::Result<&Table>>> {
    Ok(elements(value)?.iter().map(|element| element.as_table().context("it is an array of tables")))
}

/// The properties of a table but for the one that names its type.
fn properties(table: &Table, but: &str) -> anyhow::Result<Vec<(String, String)>> {
    let others = table.iter().filter(|(key, _)| *key != but);
    others.map(|(key, value)| Ok((key.clone(), option_text(value).with_context(|| format!("'{key}'"))?))).collect()
}

/// The type that a table names, and its other properties.
fn typed(table: &Table, key: &str) -> anyhow::Result<(String, Vec<(String, String)>)> {
    let kind = table.get(key).and_then(Value::as_str).with_context(|| format!("'{key}' is missing"))?;
    Ok((kind.to_owned(), properties(table, key)?))
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn window(table: &Table) -> anyhow::Result<u64> {
    match &properties(table, "")?[..] {
        [(key, value)] if key == "size" => refusable(options::size(value)),
        _ => bail!("a window has one key: size"),
    }
}

fn port(table: &Table) -> anyhow::Result<DeviceOption> {
    let pairs = properties(table, "")?;
    refusable(options::root_port_of(&borrowed(&pairs))).map(DeviceOption::RootPort)
}

fn device(table: &Table) -> anyhow::Result<DeviceOption> {
    let (kind, pairs) = typed(table, "driver")?;
    if kind != "cxl-type3" {
        bail!("driver '{kind}' is not offered: cxl-type3 is");
    }
    let request = refusable(options::type3_of(&borrowed(&pairs)))?;
    Ok(DeviceOption::Type3(Box::new(request)))
}

fn object(table: &Table) -> anyhow::Result<Object> {
    let (kind, pairs) = typed(table, "qom-type")?;
    refusable(options::object_of(&kind, &borrowed(&pairs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        memory = "2G"
        qmp = ["unix:/run/dcd.sock"]
        journal = "none"
        durability = "process"
        guest = "driver,policy=hold"
        window = [{ size = "4G" }, { size = 268435456 }]
        [[port]]
        id = "rp0"
        [[device]]
        driver = "cxl-type3"
        id = "cxl-vmem0"
        bus = "rp0"
        volatile-dc-memdev = "m0"
        unique-tags = true
        sn = 7
        [[object]]
        qom-type = "memory-backend-memfd"
        id = "m0"
        size = "1G"
        seal = false
    "#;

    #[test]
    fn a_file_says_what_the_options_say() {
        let file = ConfigFile::parse(FILE).unwrap();
        assert_eq!((file.memory, &file.window[..]), (Some(2 << 30), &[4 << 30, 256 << 20][..]));
        let line = "cxl-type3,id=cxl-vmem0,bus=rp0,volatile-dc-memdev=m0,unique-tags=on,sn=7";
        let ports = options::device("cxl-rp,id=rp0").unwrap();
        assert!(file.device.len() == 2 && file.device.contains(&ports));
        assert!(file.device.contains(&options::device(line).unwrap()));
        assert_eq!(file.object, [options::object("memory-backend-memfd,id=m0,size=1G,seal=off").unwrap()]);
        assert!(file.durability.is_some() && file.guest.is_some());
    }

    #[test]
    fn errors_name_the_key() {
        for (text, words) in [
            ("memroy = 1", "'memroy'"),
            ("memory = 1.5", "'memory'"),
            ("[[device]]\nid = \"x\"", "'driver' is missing"),
            ("[[object]]\nqom-type = \"memory-backend-ram\"\nid = \"m\"", "'size'"),
            ("[[window]]\nbase = 1", "size"),
        ] {
            let error = format!("{:#}", ConfigFile::parse(text).err().expect(text));
            assert!(error.contains(words), "{error}");
        }
    }
}
