//! The README shows what the questions answer.

use crate::program::{demo, printed, steady};

#[test]
fn the_questions_in_the_readme_are_answered_so() {
    let readme = include_str!("../../README.md");
    let section = readme.split("### Questions to a journal").nth(1).expect("the section");
    let shown = section.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the questions");
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let mut asked = 0;
    for question in shown.split("$ dcd ").skip(1) {
        let (arguments, answer) = question.split_once('\n').expect("an answer");
        let arguments = arguments.replace("/tmp/demo", &journal);
        let told = printed(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(steady(&told, &journal), steady(answer, "/tmp/demo"), "dcd {arguments}");
        asked += 1;
    }
    assert!(asked >= 4, "the README asks {asked} questions");
}
