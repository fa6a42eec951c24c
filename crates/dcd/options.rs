//! The values of options, in QEMU's `key=value` form.

use device::backends::{BackendKind, BackendSpec, Population, Sharing};
use device::config::{DeviceRequest, is_id};
use wire::Tag;

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
fn pairs(text: &str) -> Result<(&str, Pairs<'_>), String> {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let pairs = parts.map(|part| part.split_once('=').ok_or_else(|| format!("'{part}' is not of the form key=value")));
    Ok((kind, pairs.collect::<Result<_, _>>()?))
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
    if kind != "memory-backend-ram" && kind != "qom-type=memory-backend-ram" {
        return Err(format!("'{kind}' is not a type of object that is offered: memory-backend-ram is"));
    }
    let mut id = None;
    let mut spec = BackendSpec {
        kind: BackendKind::Ram,
        size_bytes: 0,
        sharing: Sharing::Private,
        population: Population::OnDemand,
        tag: Tag::NONE,
        tag_text: String::new(),
    };
    for (key, value) in pairs {
        match key {
            "id" if is_id(value) => id = Some(value.to_owned()),
            "id" => return Err(format!("'{value}' is no id: a letter, then letters, digits, '-', '.' and '_'")),
            "size" => spec.size_bytes = size(value)?,
            "share" if switch(key, value)? => spec.sharing = Sharing::Shared,
            "prealloc" if switch(key, value)? => spec.population = Population::Preallocated,
            "share" | "prealloc" => {}
            "tag" => {
                spec.tag = Tag::parse(value).map_err(|error| format!("tag={value}: {error}"))?;
                spec.tag_text = value.to_owned();
            }
            _ => return Err(format!("memory-backend-ram has no property '{key}': id, size, share, prealloc and tag")),
        }
    }
    match id {
        Some(id) if spec.size_bytes > 0 => Ok(actors::Object { id, spec }),
        Some(id) => Err(format!("object {id} needs a size")),
        None => Err("the object needs an id".into()),
    }
}

/// `--device cxl-type3,id=cxl-vmem0,num-dc-regions=1,dc-regions-total-size=4G`
pub(crate) fn device(text: &str) -> Result<DeviceRequest, String> {
    let (kind, pairs) = pairs(text)?;
    if kind != "cxl-type3" && kind != "driver=cxl-type3" {
        return Err(format!("'{kind}' is not a device that is offered: cxl-type3 is"));
    }
    let mut request = DeviceRequest::default();
    let (mut has_memdev, number) = (false, |value: &str| parse_number(value));
    for (key, value) in pairs {
        match key {
            "id" => request.id = value.to_owned(),
            "sn" => request.serial = number(value)?,
            "num-dc-regions" => request.num_dc_regions = Some(number(value)?),
            "dc-regions-total-size" => request.dc_regions_total_size_bytes = Some(size(value)?),
            "dc-block-size" => request.dc_block_size_bytes = Some(size(value)?),
            "mailbox-payload" => request.mailbox_payload_bytes = Some(size(value)?),
            // One root port for each device, in order; the name is the user's.
            "bus" => {}
            "volatile-dc-memdev" => has_memdev = true,
            _ => return Err(format!("cxl-type3 has no property '{key}'")),
        }
    }
    if has_memdev && request.dc_regions_total_size_bytes.is_some() {
        return Err(format!(
            "device {}: volatile-dc-memdev and dc-regions-total-size exclude each other: a device has memory from the \
             start or gets it by tag",
            request.id
        ));
    }
    if has_memdev {
        return Err(format!(
            "device {}: volatile-dc-memdev is not built yet: give dc-regions-total-size and add backends by tag",
            request.id
        ));
    }
    if request.id.is_empty() { Err("the device needs an id".into()) } else { Ok(request) }
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
    fn a_lazy_device_with_memory_is_an_error() {
        let error = device("cxl-type3,id=d,dc-regions-total-size=4G,volatile-dc-memdev=m0").unwrap_err();
        assert!(error.contains("exclude each other"), "{error}");
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
