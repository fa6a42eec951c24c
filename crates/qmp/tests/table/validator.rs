//! A validator of the JSON Schema that the program prints: the keywords that it uses, and no other passes unseen.

use serde_json::{Map, Value};

/// Whether `value` is as `schema` says; if not, the first thing that is wrong. `document` is where references point.
pub(crate) fn validate(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let keywords = schema.as_object().ok_or("a schema is an object")?;
    for (keyword, argument) in keywords {
        let is_right = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => referred(document, argument).and_then(|to| validate(document, to, value)).map(|()| true)?,
            "type" => has_type(value, argument.as_str().ok_or("type is a string")?)?,
            "const" => value == argument,
            "minimum" => number(value)? >= number(argument)?,
            "maximum" => number(value)? <= number(argument)?,
            "pattern" => matches_size(argument, value)?,
            "oneOf" => exactly_one(document, list(argument)?, value)?,
            "items" => {
                list(value)?.iter().try_for_each(|element| validate(document, argument, element)).map(|()| true)?
            }
            "required" => list(argument)?.iter().all(|name| value.get(name.as_str().unwrap_or_default()).is_some()),
            "properties" => properties(document, argument, value)?,
            "additionalProperties" => argument == false && has_no_others(keywords, value),
            unknown => return Err(format!("the validator does not know {unknown}")),
        };
        if !is_right {
            return Err(format!("{value} is not as {keyword}: {argument} says"));
        }
    }
    Ok(())
}

fn referred<'a>(document: &'a Value, reference: &Value) -> Result<&'a Value, String> {
    let pointer =
        reference.as_str().and_then(|text| text.strip_prefix('#')).ok_or("a reference within the document")?;
    document.pointer(pointer).ok_or_else(|| format!("{pointer} is not there"))
}

fn has_type(value: &Value, name: &str) -> Result<bool, String> {
    Ok(match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        unknown => return Err(format!("there is no type {unknown}")),
    })
}

fn number(value: &Value) -> Result<i128, String> {
    let signed = value.as_i64().map(i128::from);
    signed.or_else(|| value.as_u64().map(i128::from)).ok_or_else(|| format!("{value} is no integer"))
}

/// The one pattern that is used.
fn matches_size(pattern: &Value, value: &Value) -> Result<bool, String> {
    if pattern != "^[0-9]+[KMGTkmgt]?$" {
        return Err(format!("the validator does not know the pattern {pattern}"));
    }
    let text = value.as_str().ok_or_else(|| format!("{value} is no string"))?;
    let digits = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    Ok(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn exactly_one(document: &Value, schemas: &[Value], value: &Value) -> Result<bool, String> {
    Ok(schemas.iter().filter(|schema| validate(document, schema, value).is_ok()).count() == 1)
}

fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("{value} is no array"))
}

fn properties(document: &Value, schemas: &Value, value: &Value) -> Result<bool, String> {
    let (schemas, members) = (schemas.as_object().ok_or("properties are an object")?, value.as_object());
    for (name, member) in members.into_iter().flatten() {
        if let Some(schema) = schemas.get(name) {
            validate(document, schema, member).map_err(|wrong| format!("{name}: {wrong}"))?;
        }
    }
    Ok(true)
}

fn has_no_others(keywords: &Map<String, Value>, value: &Value) -> bool {
    let known = |name: &String| keywords.get("properties").is_some_and(|properties| properties.get(name).is_some());
    value.as_object().is_none_or(|members| members.keys().all(known))
}
