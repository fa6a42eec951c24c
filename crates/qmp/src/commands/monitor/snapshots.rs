//! `info snapshots`: the snapshots there are.

use actors::{ListedSnapshot, ListedState, SnapshotFacts, Vm};

use crate::error::QmpError;

pub(super) async fn text(vm: &Vm) -> Result<String, QmpError> {
    Ok(listed_text(&vm.snapshots().await?))
}

fn listed_text(listed: &[ListedSnapshot]) -> String {
    if listed.is_empty() {
        return "There is no snapshot available.\n".to_owned();
    }
    listed.iter().map(snapshot_text).collect()
}

fn snapshot_text(listed: &ListedSnapshot) -> String {
    let ListedSnapshot { name, state } = listed;
    match state {
        ListedState::Whole(SnapshotFacts { id, parent, created_ms, last, contents_bytes }) => {
            let on = parent.as_ref().map_or_else(|| "full".to_owned(), |parent| format!("on {parent}"));
            format!("{name}: {on}, {last}, {contents_bytes} bytes, saved at {created_ms} ms since 1970\n  id: {id}\n")
        }
        ListedState::HalfMade { reason } => format!("{name}: half-made: {reason}\n"),
        ListedState::Damaged { reason } => format!("{name}: damaged: {reason}\n"),
    }
}

#[cfg(test)]
mod tests {
    use device::Seq;
    use expect_test::expect;

    use super::*;

    #[test]
    fn whole_ones_with_all_of_them_and_the_others_with_their_reason() {
        let facts = |parent: Option<&str>| SnapshotFacts {
            id: "6b86".into(),
            parent: parent.map(str::to_owned),
            created_ms: 1_767_225_600_000,
            last: Seq(312),
            contents_bytes: 4096,
        };
        let listed = |name: &str, state| ListedSnapshot { name: name.into(), state };
        let text = listed_text(&[
            listed("monday", ListedState::Whole(facts(None))),
            listed("tuesday", ListedState::Whole(facts(Some("monday")))),
            listed("wednesday", ListedState::HalfMade { reason: "it is being written".into() }),
            listed("thursday", ListedState::Damaged { reason: "'parts' is damaged".into() }),
        ]);
        expect![[r#"
            monday: full, #312, 4096 bytes, saved at 1767225600000 ms since 1970
              id: 6b86
            tuesday: on monday, #312, 4096 bytes, saved at 1767225600000 ms since 1970
              id: 6b86
            wednesday: half-made: it is being written
            thursday: damaged: 'parts' is damaged
        "#]]
        .assert_eq(&text);
        assert_eq!(listed_text(&[]), "There is no snapshot available.\n");
    }
}
