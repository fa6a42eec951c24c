//! The values of options, in QEMU's `key=value` form.

use device::backends::{BackendRequest, BackendType};
use device::config::{DeviceRequest, is_id};

/// A number of bytes: digits and perhaps K, M, G or T, powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is no size: digits, and perhaps K, M, G or T (powers of 1024), such as 512M");
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(format!("{key}={value}: it is on or off")),
    }
}

/// The properties of an option, in the order in which they are given.
type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// The type of an option and its `key=value` pairs.
pub(crate) fn pairs(text: &str) -> Result<(&str, Pairs<'_>), String> {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let pairs = parts.map(|part| part.split_once('=').ok_or_else(|| format!("'{part}' is not of the form key=value")));
    Ok((kind, pairs.collect::<Result<_, _>>()?))
}

/// Processors of a guest on KVM.
pub(crate) fn vcpus(text: &str) -> Result<u32, String> {
    let vcpus = text.parse().ok().filter(|vcpus| (1..=64).contains(vcpus));
    vcpus.ok_or_else(|| format!("'{text}' is no number of vCPUs: 1 to 64"))
}

/// `--window size=8G`
pub(crate) fn window(text: &str) -> Result<u64, String> {
    match text.split_once('=') {
        Some(("size", value)) => size(value),
        _ => Err(format!("'{text}' is no window: size=BYTES")),
    }
}

/// `--object memory-backend-ram,id=tm0,size=1G,share=on,tag=UUID`
pub(crate) fn object(text: &str) -> Result<actors::Object, String> {
    let (kind, pairs) = pairs(text)?;
    object_of(kind.strip_prefix("qom-type=").unwrap_or(kind), &pairs)
}

/// An object of a type with these properties.
pub(crate) fn object_of(kind: &str, pairs: &[(&str, &str)]) -> Result<actors::Object, String> {
    let kind = BackendType::parse(kind).ok_or_else(|| {
        let offered = BackendType::ALL.map(BackendType::name).join(", ");
        format!("'{kind}' is not a type of object that is offered: {offered}")
    })?;
    let (mut id, mut request) = (None, BackendRequest::default());
    for (key, value) in pairs.iter().copied() {
        match key {
            "id" if is_id(value) => id = Some(value.to_owned()),
            "id" => return Err(format!("'{value}' is no id: a letter, then letters, digits, '-', '.' and '_'")),
            _ => backend_property(&mut request, kind, key, value)?,
        }
    }
    let id = id.ok_or("the object needs an id")?;
    let spec = request.spec(kind).map_err(|error| format!("object {id}: {error}"))?;
    Ok(actors::Object { id, spec })
}

fn backend_property(request: &mut BackendRequest, kind: BackendType, key: &str, value: &str) -> Result<(), String> {
    match key {
        "size" => request.size_bytes = Some(size(value)?),
        "share" => request.share = Some(switch(key, value)?),
        "prealloc" => request.prealloc = Some(switch(key, value)?),
        "reserve" => request.reserve = Some(switch(key, value)?),
        "tag" => request.tag = Some(value.to_owned()),
        "mem-path" => request.mem_path = Some(value.to_owned()),
        "readonly" => request.readonly = Some(switch(key, value)?),
        "discard-data" => request.discard_data = Some(switch(key, value)?),
        "align" => request.align_bytes = Some(size(value)?),
        "hugetlb" => request.hugetlb = Some(switch(key, value)?),
        "hugetlbsize" => request.hugetlbsize_bytes = Some(size(value)?),
        "seal" => request.seal = Some(switch(key, value)?),
        _ => return Err(format!("{kind} has no property '{key}' here")),
    }
    Ok(())
}

/// What `--device` adds to a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceOption {
    /// `cxl-type3`
    Type3(Box<DeviceRequest>),
    /// `cxl-rp`: a root port with this id.
    RootPort(String),
    /// `pxb-cxl`: the CXL host bridge, which is there in any case.
    HostBridge,
}

/// `--device cxl-type3,id=cxl-vmem0,num-dc-regions=1,dc-regions-total-size=4G`, and QEMU's lines for what is above it.
pub(crate) fn device(text: &str) -> Result<DeviceOption, String> {
    let (kind, pairs) = pairs(text)?;
    match kind.strip_prefix("driver=").unwrap_or(kind) {
        "cxl-type3" => type3_of(&pairs).map(Box::new).map(DeviceOption::Type3),
        "cxl-rp" => root_port_of(&pairs).map(DeviceOption::RootPort),
        "pxb-cxl" => check_host_bridge(&pairs).map(|()| DeviceOption::HostBridge),
        other => Err(format!("'{other}' is not a device that is offered: cxl-type3, cxl-rp and pxb-cxl are")),
    }
}

/// A Type 3 device with these properties.
pub(crate) fn type3_of(pairs: &[(&str, &str)]) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    for (key, value) in pairs.iter().copied() {
        match key {
            "id" => request.id = value.to_owned(),
            "bus" => request.bus = Some(value.to_owned()),
            "sn" => request.serial = parse_number(value)?,
            "num-dc-regions" => request.num_dc_regions = Some(parse_number(value)?),
            "dc-regions-total-size" => request.dc_regions_total_size_bytes = Some(size(value)?),
            "dc-block-size" => request.dc_block_size_bytes = Some(size(value)?),
            "mailbox-payload" => request.mailbox_payload_bytes = Some(size(value)?),
            "volatile-dc-memdev" => request.volatile_dc_memdev = Some(value.to_owned()),
            "volatile-memdev" => request.volatile_memdev = Some(value.to_owned()),
            "unique-tags" => request.unique_tags = Some(switch(key, value)?),
            "persistent-memdev" | "lsa" | "memdev" => {
                return Err(format!("cxl-type3: '{key}' is not offered: the device has volatile memory only"));
            }
            _ => return Err(format!("cxl-type3 has no property '{key}'")),
        }
    }
    if request.id.is_empty() {
        return Err("the device needs an id".into());
    }
    request.check().map_err(|error| error.to_string())?;
    Ok(request)
}

/// A root port with these properties: its id. All root ports are on the one host bridge, in the order of the options,
/// so that what else QEMU wants to be told of them has nothing to say here.
pub(crate) fn root_port_of(pairs: &[(&str, &str)]) -> Result<String, String> {
    let mut id = None;
    for (key, value) in pairs.iter().copied() {
        match key {
            "id" if is_id(value) => id = Some(value.to_owned()),
            "id" => return Err(format!("'{value}' is no id: a letter, then letters, digits, '-', '.' and '_'")),
            "bus" | "chassis" | "slot" | "port" | "addr" => {}
            _ => return Err(format!("cxl-rp has no property '{key}' here")),
        }
    }
    id.ok_or_else(|| "the root port needs an id".into())
}

fn check_host_bridge(pairs: &[(&str, &str)]) -> Result<(), String> {
    for (key, value) in pairs.iter().copied() {
        match key {
            "id" | "bus" | "addr" => {}
            "bus_nr" if parse_number(value)? == u64::from(platform::ROOT_PORT_BUS) => {}
            "bus_nr" => {
                return Err(format!(
                    "pxb-cxl,bus_nr={value}: there is one host bridge, bus_nr={}",
                    platform::ROOT_PORT_BUS
                ));
            }
            _ => return Err(format!("pxb-cxl has no property '{key}' here")),
        }
    }
    Ok(())
}

fn parse_number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("'{text}' is no number"))
}

#[cfg(test)]
mod tests {
    use wire::Tag;

    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("4G"), Ok(4 << 30));
        assert_eq!(size("512m"), Ok(512 << 20));
        assert_eq!(size("4096"), Ok(4096));
        for bad in ["", "G", "1.5G", "-1", "1GB", "16777216T", "1 G", "0x10"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lines_of_qemu_are_understood() {
        assert_eq!(device("pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1"), Ok(DeviceOption::HostBridge));
        let port = device("cxl-rp,port=0,bus=cxl.1,id=root_port13,chassis=0,slot=2");
        assert_eq!(port, Ok(DeviceOption::RootPort("root_port13".into())));
        let line =
            "cxl-type3,bus=root_port13,volatile-dc-memdev=m0,id=cxl-dcd0,num-dc-regions=2,sn=0x10,unique-tags=on";
        let Ok(DeviceOption::Type3(request)) = device(line) else { panic!("a device") };
        assert_eq!((request.serial, request.bus.as_deref()), (16, Some("root_port13")));
        assert_eq!((request.volatile_dc_memdev.as_deref(), request.unique_tags), (Some("m0"), Some(true)));
        assert!(device("pxb-cxl,bus_nr=13").unwrap_err().contains("bus_nr=12"));
        assert!(device("cxl-type3,id=d,persistent-memdev=m").unwrap_err().contains("'persistent-memdev'"));
        assert!(device("nvme,id=d").is_err());
    }

    #[test]
    fn objects_name_what_they_do_not_have() {
        let error = object("memory-backend-ram,id=tm0,size=1G,policy=bind").unwrap_err();
        assert!(error.contains("'policy'"), "{error}");
        assert!(object("memory-backend-ram,id=tm0,size=1G,tag=tm0").is_err());
        let object = object("memory-backend-ram,id=tm0,size=1G,share=on,tag=0").unwrap();
        assert_eq!((object.spec.tag, object.spec.tag_text.as_str()), (Tag::NONE, "0"));
    }
}
