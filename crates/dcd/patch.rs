//! A patch to the input of a record, as `dcd whatif --edit` takes it: JSON that is merged into the input's own.
//!
//! ```text
//!  input ─▶ JSON ── merge patch ─▶ JSON ─▶ input ─▶ JSON: all that the patch names stands there, or it is unknown
//! ```
//!
//! Deliberately absent: what the input then does.

use anyhow::{anyhow, bail};
use device::Seq;
use device::operation::Input;
use serde_json::{Value as Json, json};

/// The input of a record with a patch (RFC 7396).
///
/// # Errors
/// If it is no input then, or the patch names what no such input has: what would be ignored is refused.
pub(crate) fn patched(seq: Seq, input: &Input, patch: &Json) -> anyhow::Result<Input> {
    let was = serde_json::to_value(input)?;
    let mut now = was.clone();
    merge(&mut now, patch);
    let edited: Input = serde_json::from_value(now.clone()).map_err(|error| match other_kind(&was, patch) {
        Some(kind) => anyhow!("{seq} is no input of {kind}, which the edit names: its input is {was}"),
        None => anyhow!("{seq} with this edit is no input: {now}: {error}"),
    })?;
    if let Some(Unknown { key, place, there }) = unknown(patch, &was, &serde_json::to_value(&edited)?, "") {
        bail!("there is no '{key}' in {place} of {seq}: it has {there}");
    }
    Ok(edited)
}

/// Merges a patch into a JSON value (RFC 7396).
fn merge(value: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (key, patch) in patch {
        if patch.is_null() {
            value.as_object_mut().map(|object| object.remove(key));
        } else {
            merge(&mut value[key], patch);
        }
    }
}

/// What a patch is for, where that is another input than the one that is there.
fn other_kind(was: &Json, patch: &Json) -> Option<String> {
    let (was, patch) = (kind(was)?, kind(patch)?);
    let is_same = was == patch || was.starts_with(&format!("{patch}."));
    (!is_same).then_some(patch)
}

/// The actor of an input and its variant, as far as they are named.
fn kind(input: &Json) -> Option<String> {
    let named =
        |json: &Json| json.as_object()?.iter().find(|(_, part)| !part.is_null()).map(|(k, v)| (k.clone(), v.clone()));
    let (actor, part) = named(input)?;
    let variant = part.as_str().map(str::to_owned).or_else(|| Some(named(&part)?.0));
    Some(variant.map_or(actor.clone(), |variant| format!("{actor}.{variant}")))
}

/// A name in a patch that nothing has.
struct Unknown {
    key: String,
    place: String,
    there: String,
}

/// The first name that stands neither in what the patch made nor, where it takes something away, in what was there.
fn unknown(patch: &Json, was: &Json, now: &Json, place: &str) -> Option<Unknown> {
    match (patch, now) {
        (Json::Object(patch), now) => patch.iter().find_map(|(key, patch)| {
            let (was, below) = (was.get(key), if place.is_empty() { key.clone() } else { format!("{place}.{key}") });
            match now.get(key) {
                Some(now) => unknown(patch, was.unwrap_or(&Json::Null), now, &below),
                None if patch.is_null() && was.is_some() => None,
                None => {
                    let keys: Vec<_> = now.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                    let place = if place.is_empty() { "the input" } else { place };
                    Some(Unknown { key: key.clone(), place: place.to_owned(), there: keys.join(", ") })
                }
            }
        }),
        (Json::Array(patch), Json::Array(now)) => patch.iter().zip(now).enumerate().find_map(|(at, (patch, now))| {
            unknown(patch, was.get(at).unwrap_or(&Json::Null), now, &format!("{place}[{at}]"))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use device::extents;

    use super::*;

    fn release() -> Input {
        let text = r#"{"extents":{"release":{"extents":[],"host_id":0,"policy":"tag-based","region":0,"removal":"requested",
                       "sanitize":"keep","tag":"6be13bce-ae34-4a77-b6c3-16df975fcf1a"}}}"#;
        serde_json::from_str(text).expect("an input")
    }

    fn refused(input: &Input, patch: Json) -> String {
        patched(Seq(80), input, &patch).expect_err("refused").to_string()
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut value = json!({"extents": {"add": {"region": 0, "extents": [1, 2]}}, "old": 1});
        merge(&mut value, &json!({"extents": {"add": {"region": 1}}, "old": null, "new": {"a": 2}}));
        assert_eq!(value, json!({"extents": {"add": {"region": 1, "extents": [1, 2]}}, "new": {"a": 2}}));
    }

    /// Seen as: `regio` for `region` changed nothing, "0 of 20 later records change", and the exit code was 0.
    #[test]
    fn a_name_that_no_input_has_is_refused() {
        let told = refused(&release(), json!({"extents": {"release": {"regio": 2}}}));
        let expected = "there is no 'regio' in extents.release of #80: it has extents, host_id, policy, region, removal, \
                        sanitize, tag";
        assert_eq!(told, expected);
        let in_list = json!({"extents": {"release": {"extents": [{"offset": 0, "len_bytes": 1, "len": 2}]}}});
        assert!(refused(&release(), in_list).starts_with("there is no 'len' in extents.release.extents[0] of #80"));
        let gone = json!({"extents": {"release": {"regio": null}}});
        assert!(refused(&release(), gone).starts_with("there is no 'regio' in extents.release"));
    }

    /// Seen as: `invalid value: map, expected map with a single key`.
    #[test]
    fn a_patch_for_another_input_is_told_which_is_there() {
        for (patch, kind) in [
            (json!({"extents": {"add": {"region": 1}}}), "extents.add"),
            (json!({"mailbox": {"doorbell": {}}}), "mailbox.doorbell"),
            (json!({"extent": {"release": {"region": 1}}}), "extent.release"),
        ] {
            let told = refused(&release(), patch);
            let expected =
                format!("#80 is no input of {kind}, which the edit names: its input is {{\"extents\":{{\"release\":");
            assert!(told.starts_with(&expected), "{told}");
        }
        let reset = Input::Extents(extents::Input::Reset);
        let told = refused(&reset, json!({"extents": {"add": {"region": 1}}}));
        assert_eq!(told, "#80 is no input of extents.add, which the edit names: its input is {\"extents\":\"reset\"}");
    }

    #[test]
    fn an_input_becomes_another_one_where_the_old_one_is_taken_away() {
        let patch = json!({"extents": {"release": null, "command": {"opcode": 0x4801, "payload": "00FF"}}});
        let edited = patched(Seq(80), &release(), &patch).expect("an input");
        assert!(matches!(edited, Input::Extents(extents::Input::Command { payload, .. }) if payload == [0, 0xff]));
        assert!(patched(Seq(80), &release(), &json!({"extents": "reset"})).is_ok());
    }
}
