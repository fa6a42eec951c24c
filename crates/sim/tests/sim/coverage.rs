//! The simulator does not quietly do nothing: of everything that the device's own sources name, it comes across enough.

use sim::Coverage;

use crate::seeds::hundreds;

/// Least times that an input or a fact comes in [`crate::seeds::HUNDREDS`] of seeds, and a refusal.
const INPUTS_MIN: u64 = 40;
const FACTS_MIN: u64 = 3;
const REFUSALS_MIN: u64 = 2;

/// What no simulated run reaches, and why.
const OUT_OF_REACH: &[(&str, &str)] = &[
    ("ExtentTracking", "131,072 extents: minutes of laws; crates/device tests it"),
    ("TagTracking", "131,072 tags: the same"),
    ("TooManyBackends", "65,536 backends: the same"),
    ("Plug", "the platform's refusal, which is not decided here"),
    ("Mapping", "the host's refusal, which is not decided here"),
];

/// The variants of an enum, as its source lists them.
fn variants<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let body = source.split(&format!("pub enum {name} {{\n")).nth(1).and_then(|rest| rest.split("\n}\n").next());
    let lines = body.unwrap_or_else(|| panic!("there is no enum {name}")).lines();
    let is_variant = |line: &&str| line.starts_with("    ") && line[4..].starts_with(|c: char| c.is_ascii_uppercase());
    let word = |line: &'a str| line.trim().split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let variants: Vec<_> = lines.filter(is_variant).map(word).collect();
    assert!(!variants.is_empty(), "{name} has variants");
    variants
}

/// How often anything came whose name begins so, answers aside.
fn count(coverage: &Coverage, prefix: &str) -> u64 {
    let is_it = |what: &str| what == prefix || what.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(' '));
    coverage.iter().filter(|(what, _)| is_it(what) && !what.contains(": ")).map(|(_, count)| count).sum()
}

#[test]
fn every_input_every_fact_and_every_refusal_comes() {
    let coverage = &hundreds().1;
    let mut rare = Vec::new();
    let mut expect = |what: &str, found: u64, least: u64| {
        let is_known = OUT_OF_REACH.iter().any(|(name, _)| what.ends_with(name));
        assert!(!is_known || found == 0, "{what} is said to be out of reach and came {found} times");
        if !is_known && found < least {
            rare.push(format!("{what}: {found} of {least}"));
        }
    };
    for (actor, source) in [
        ("extents", include_str!("../../../device/src/extents/fact.rs")),
        ("backends", include_str!("../../../device/src/backends/mod.rs")),
        ("mailbox", include_str!("../../../device/src/mailbox/mod.rs")),
        ("windows", include_str!("../../../device/src/windows.rs")),
    ] {
        for input in variants(source, "Input") {
            let what = format!("{actor} {input}");
            expect(&what, count(coverage, &what), INPUTS_MIN);
        }
        for fact in variants(source, "Fact") {
            let what = format!("{actor} fact {fact}");
            expect(&what, coverage.count(&what), FACTS_MIN);
        }
    }
    for refusal in variants(include_str!("../../../device/src/refusal.rs"), "Refusal") {
        expect(refusal, coverage.answered(refusal), REFUSALS_MIN);
    }
    assert!(rare.is_empty(), "too rare:\n{}", rare.join("\n"));
}

/// What a host gets wrong and gets right, and each way of an operator.
#[test]
fn hosts_and_operators_do_all_that_they_can() {
    let coverage = &hundreds().1;
    for (what, least) in [
        ("extents Command 4802h: Success", 700),
        ("extents Command 4802h: InvalidPhysicalAddress", 50),
        ("extents Command 4802h: InvalidExtentList", 50),
        ("extents Command 4803h: Success", 200),
        ("extents Command 4803h: InvalidInput", 50),
        ("extents Command 0101h: Success", 500),
        ("extents Release TagBased Forced: done", 100),
        ("extents Release TagBased Requested: done", 40),
        ("extents Release Prescriptive Forced: done", 100),
        ("extents Release Prescriptive Requested: done", 40),
        ("extents Unplug Forced: done", 100),
        ("extents Unplug Requested: done", 10),
        ("mailbox Doorbell 4000h: Success", 100),
        ("mailbox Doorbell ffffh: Unsupported", 20),
    ] {
        assert!(coverage.count(what) >= least, "{what}: {} of {least}", coverage.count(what));
    }
}
