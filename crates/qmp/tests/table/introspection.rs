//! `query-qmp-schema`: consistent in itself, complete, and of use for the questions of management programs.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use qmp::schema::{CommandSchema, EMPTY, EnumSchema, Kind, StructSchema, UnionSchema, optional, required};
use qmp::{COMMANDS, EVENTS, introspect};
use serde_json::Value;

/// An introspected schema, asked as a management program asks.
struct Introspected {
    infos: BTreeMap<String, Value>,
}

impl Introspected {
    fn new(schema: &Value) -> Self {
        let mut infos = BTreeMap::new();
        for info in schema.as_array().expect("an array") {
            let name = info["name"].as_str().expect("a name").to_owned();
            assert!(infos.insert(name, info.clone()).is_none(), "two have one name: {info}");
        }
        Self { infos }
    }

    fn get(&self, name: &str) -> &Value {
        self.infos.get(name).unwrap_or_else(|| panic!("{name} is referred to and not there"))
    }

    /// The type of the member `name` of an object, those of its variants included.
    fn member(&self, object: &str, name: &str) -> Option<&str> {
        let info = self.get(object);
        let of = |member: &&Value| member["name"] == name;
        let own = info["members"].as_array().expect("members").iter().find(of);
        let variants = info["variants"].as_array().map(Vec::as_slice).unwrap_or_default();
        let further = || variants.iter().find_map(|variant| self.member(text(&variant["type"]), name));
        own.map(|member| text(&member["type"])).or_else(further)
    }

    fn has_argument(&self, command: &str, argument: &str) -> bool {
        self.infos.get(command).is_some_and(|info| self.member(text(&info["arg-type"]), argument).is_some())
    }

    fn takes_word(&self, command: &str, argument: &str, word: &str) -> bool {
        let arguments = text(&self.get(command)["arg-type"]);
        self.member(arguments, argument).is_some_and(|words| {
            let values = self.get(words)["values"].as_array().expect("an enum");
            values.iter().any(|value| value == word)
        })
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// The names that an entity refers to.
fn references(info: &Value) -> Vec<&str> {
    let lists = ["members", "variants"].map(|list| info[list].as_array().map(Vec::as_slice).unwrap_or_default());
    let listed = lists.into_iter().flatten().filter_map(|entry| entry.get("type"));
    let direct = ["arg-type", "ret-type", "element-type"].into_iter().filter_map(|name| info.get(name));
    listed.chain(direct).map(text).collect()
}

#[test]
fn every_reference_is_defined_and_every_type_is_referred_to() {
    let schema = introspect(COMMANDS, EVENTS);
    let introspected = Introspected::new(&schema);
    let referred: BTreeSet<&str> = introspected.infos.values().flat_map(references).collect();
    for name in &referred {
        introspected.get(name);
    }
    for (name, info) in &introspected.infos {
        let is_root = ["command", "event"].contains(&text(&info["meta-type"]));
        assert_eq!(!is_root, referred.contains(name.as_str()), "{info}");
    }
}

#[test]
fn entities_have_the_members_of_their_meta_type() {
    let schema = introspect(COMMANDS, EVENTS);
    let introspected = Introspected::new(&schema);
    for info in introspected.infos.values() {
        let members: Vec<_> = info.as_object().expect("an object").keys().map(String::as_str).collect();
        let known: &[&str] = match text(&info["meta-type"]) {
            "builtin" => &["json-type", "meta-type", "name"],
            "enum" => &["members", "meta-type", "name", "values"],
            "array" => &["element-type", "meta-type", "name"],
            "object" if info.get("tag").is_some() => &["members", "meta-type", "name", "tag", "variants"],
            "object" => &["members", "meta-type", "name"],
            "command" if info.get("features").is_some() => &["arg-type", "features", "meta-type", "name", "ret-type"],
            "command" => &["arg-type", "meta-type", "name", "ret-type"],
            "event" if info.get("features").is_some() => &["arg-type", "features", "meta-type", "name"],
            "event" => &["arg-type", "meta-type", "name"],
            other => panic!("{other}"),
        };
        assert_eq!(members, known, "{info}");
    }
}

#[test]
fn every_variant_is_a_word_of_its_tag() {
    let schema = introspect(COMMANDS, EVENTS);
    let introspected = Introspected::new(&schema);
    let mut unions = 0;
    for info in introspected.infos.values().filter(|info| info.get("tag").is_some()) {
        unions += 1;
        let words = introspected.member(text(&info["name"]), text(&info["tag"])).expect("the tag is a member");
        let cases: BTreeSet<_> =
            info["variants"].as_array().expect("variants").iter().map(|v| text(&v["case"])).collect();
        let values: BTreeSet<_> =
            introspected.get(words)["values"].as_array().expect("words").iter().map(text).collect();
        assert_eq!(cases, values);
        info["variants"].as_array().expect("variants").iter().for_each(|variant| {
            assert_eq!(introspected.get(text(&variant["type"]))["meta-type"], "object");
        });
    }
    assert!(unions >= 2, "object-add and SchemaInfo are unions");
}

#[test]
fn all_commands_and_events_are_there_and_nothing_else() {
    let schema = introspect(COMMANDS, EVENTS);
    let of = |meta_type: &str| {
        let infos = schema.as_array().expect("an array").iter().filter(|info| info["meta-type"] == meta_type);
        infos.map(|info| text(&info["name"]).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("command"), COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>());
    assert_eq!(of("event"), EVENTS.iter().map(|event| event.name).collect::<Vec<_>>());
}

#[test]
fn the_questions_of_management_programs_have_answers() {
    let introspected = Introspected::new(&introspect(COMMANDS, EVENTS));
    for (command, argument) in [
        ("cxl-add-dynamic-capacity", "path"),
        ("cxl-add-dynamic-capacity", "tag"),
        ("cxl-release-dynamic-capacity", "forced-removal"),
        ("object-add", "tag"),
        ("object-add", "mem-path"),
        ("object-add", "hugetlbsize"),
    ] {
        assert!(introspected.has_argument(command, argument), "{command} {argument}");
    }
    for (command, argument) in [("object-add", "policy"), ("cxl-add-dynamic-capacity", "region-id"), ("migrate", "uri")]
    {
        assert!(!introspected.has_argument(command, argument), "{command} {argument}");
    }
    assert!(introspected.takes_word("object-add", "qom-type", "memory-backend-memfd"));
    assert!(!introspected.takes_word("object-add", "qom-type", "rng-random"));
    assert!(introspected.takes_word("cxl-release-dynamic-capacity", "removal-policy", "tag-based"));
    assert_eq!(introspected.get("cxl-add-dynamic-capacity")["features"], serde_json::json!(["unstable"]));
    // A place in it, as libvirt writes one: command, argument, element of the array, member.
    let arguments = text(&introspected.get("cxl-add-dynamic-capacity")["arg-type"]);
    let extents = introspected.member(arguments, "extents").expect("extents");
    let extent = text(&introspected.get(extents)["element-type"]);
    assert_eq!(introspected.member(extent, "offset"), Some("int"));
}

/// By name and by all that is in it, every enum and object below a kind.
fn types(kind: &Kind, found: &mut BTreeMap<&'static str, BTreeSet<String>>) {
    let (name, text) = match kind {
        Kind::Enum(words) => (words.name, format!("{words:?}")),
        Kind::Discriminator(union) => {
            types(&Kind::Enum(union.tag), found);
            union.branches.iter().for_each(|(_, branch)| types(&Kind::Object(branch), found));
            (union.name, format!("{union:?}"))
        }
        Kind::Object(object) => {
            object.members.iter().for_each(|member| types(&member.kind, found));
            (object.name, format!("{object:?}"))
        }
        Kind::List(element) => return types(element, found),
        _ => return,
    };
    found.entry(name).or_default().insert(text);
}

/// Two types of one name would be taken for one.
#[test]
fn a_name_is_of_one_type() {
    let mut found = BTreeMap::new();
    let arguments = COMMANDS.iter().flat_map(|command| command.arguments);
    let data = EVENTS.iter().flat_map(|event| event.data);
    arguments.chain(data).for_each(|argument| types(&argument.kind, &mut found));
    COMMANDS.iter().for_each(|command| types(&command.returns, &mut found));
    assert!(found.len() > 30, "the test found only {} types", found.len());
    for (name, texts) in found {
        assert_eq!(texts.len(), 1, "{name} is {texts:?}");
    }
}

#[test]
fn a_union_has_one_discriminator() {
    for command in COMMANDS {
        let tags = command.arguments.iter().filter(|argument| matches!(argument.kind, Kind::Discriminator(_)));
        assert!(tags.count() < 2, "{}", command.name);
    }
}

#[test]
fn the_same_question_has_the_same_answer() {
    assert_eq!(introspect(COMMANDS, EVENTS), introspect(COMMANDS, EVENTS));
}

static COLOUR: EnumSchema = EnumSchema { name: "Colour", doc: "", values: &[("red", ""), ("blue", "")] };
static RED: StructSchema = StructSchema { name: "Red", doc: "", members: &[optional("shade", Kind::U8, "")] };
static PAINT: UnionSchema = UnionSchema { name: "Paint", doc: "", tag: &COLOUR, branches: &[("red", &RED)] };

#[test]
fn the_form_is_that_of_qemu() {
    static SAMPLE: &[CommandSchema] = &[CommandSchema {
        name: "paint",
        doc: "",
        arguments: &[
            required("colour", Kind::Discriminator(&PAINT), ""),
            optional("coats", Kind::List(&Kind::List(&Kind::Size)), ""),
        ],
        returns: Kind::Object(&EMPTY),
        features: &["unstable"],
    }];
    let lines: Vec<_> = introspect(SAMPLE, &[]).as_array().expect("an array").iter().map(ToString::to_string).collect();
    expect![[r#"
        {"arg-type":"0","features":["unstable"],"meta-type":"command","name":"paint","ret-type":"1"}
        {"members":[{"name":"colour","type":"2"},{"default":null,"name":"coats","type":"[[int]]"}],"meta-type":"object","name":"0","tag":"colour","variants":[{"case":"red","type":"3"},{"case":"blue","type":"1"}]}
        {"members":[],"meta-type":"object","name":"1"}
        {"members":[{"name":"red"},{"name":"blue"}],"meta-type":"enum","name":"2","values":["red","blue"]}
        {"json-type":"int","meta-type":"builtin","name":"int"}
        {"element-type":"int","meta-type":"array","name":"[int]"}
        {"element-type":"[int]","meta-type":"array","name":"[[int]]"}
        {"members":[{"default":null,"name":"shade","type":"int"}],"meta-type":"object","name":"3"}
    "#]].assert_eq(&(lines.join("\n") + "\n"));
}
