use super::*;

#[test]
fn a_file_becomes_stages() {
    let file = parse(&Source::new("Dockerfile", &b"ARG A\nFROM a\nRUN b\nFROM c\n"[..])).expect("well formed");
    assert_eq!(file.global_args().len(), 1);
    assert_eq!(file.stages().iter().map(|stage| stage.len()).collect::<Vec<_>>(), [2, 1]);
}
