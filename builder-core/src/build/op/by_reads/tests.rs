use super::*;

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("a path")
}

#[test]
fn a_path_is_looked_up_where_it_is_shown() {
    let mounts = [(path("/src"), Some(1)), (path("/cache"), None), (path("/one"), Some(3))];
    let check = |noted: &str, expected: &[(usize, &str, How)]| {
        let mut seen = Seen { mounts: &mounts, looks: BTreeMap::new() };
        seen.note(&path(noted), How::Listed);
        let found: Vec<_> = seen.looks.iter().map(|((place, path), how)| (*place, path.to_string(), *how)).collect();
        let expected: Vec<_> = expected.iter().map(|(place, path, how)| (*place, (*path).to_owned(), *how)).collect();
        assert_eq!(found, expected, "{noted}");
    };
    check("/a/b", &[(0, "/", How::Seen), (0, "/a", How::Seen), (0, "/a/b", How::Listed)]);
    check("/", &[(0, "/", How::Listed)]);
    check("/src", &[(1, "/", How::Listed)]);
    check("/src/x/y", &[(1, "/", How::Seen), (1, "/x", How::Seen), (1, "/x/y", How::Listed)]);
    check("/srcs", &[(0, "/", How::Seen), (0, "/srcs", How::Listed)]);
    check("/one", &[(3, "/", How::Listed)]);
    check("/cache/x", &[]);
    check("/proc/self/status", &[]);
    check("/dev/null", &[]);
    // What the kernel shows there hides what is in it.
    check("/dev", &[(0, "/", How::Seen), (0, "/dev", How::Seen)]);
}

#[test]
fn of_several_looks_the_most_counts() {
    let mut seen = Seen { mounts: &[], looks: BTreeMap::new() };
    for how in [How::Listed, How::Whole, How::Seen] {
        seen.note(&path("/a"), how);
    }
    seen.note(&path("/a/b"), How::Seen);
    assert_eq!(seen.looks[&(0, path("/a"))], How::Whole);
}
