use super::*;
use crate::diagnostic::Source;

fn digest(digit: char) -> Digest {
    format!("sha256:{}", digit.to_string().repeat(64)).parse().expect("a digest")
}

fn id(digit: char) -> String {
    digit.to_string().repeat(40)
}

fn read(text: &str) -> Result<LockFile, String> {
    LockFile::parse(&Source::new("rbuild.lock", text.as_bytes().to_vec())).map_err(|error| {
        let location = error.location().expect("every error has one");
        format!(
            "{}:{}: {error}",
            location.source.line(location.span.start),
            location.source.column(location.span.start)
        )
    })
}

fn git(address: &str) -> SourceName {
    SourceName::git(&Address::parse(address).expect("of git").expect("valid"))
}

fn full() -> LockFile {
    let mut file = LockFile::default();
    let image = |name: &str| SourceName::image(&name.parse().expect("valid"));
    file.insert(image("docker.io/library/alpine:3.20"), Pin::Image(digest('a')));
    file.insert(image("127.0.0.1:5000/x/y"), Pin::Image(digest('b')));
    let (content, modified) = (digest('c'), Some(1_714_557_600));
    file.insert(SourceName::url("https://h/x?a=\"b\\\u{7}"), Pin::Url(UrlPin { digest: content, modified }));
    file.insert(SourceName::url("https://h/"), Pin::Url(UrlPin { digest: digest('d'), modified: None }));
    let tag = Resolved { object: id('1'), commit: Some(id('2')), name: Some("refs/tags/v1".to_owned()) };
    file.insert(git("https://user:secret@h/r.git?subdir=d&tag=v1"), Pin::Git(tag));
    file.insert(git("https://h/r.git"), Pin::Git(Resolved { object: id('3'), commit: None, name: None }));
    file
}

// Rows: P24.
#[test]
fn what_is_written_is_read_and_sorted() {
    insta::assert_snapshot!(full().to_string());
    assert_eq!(read(&full().to_string()), Ok(full()));
    assert_eq!(read(&LockFile::default().to_string()), Ok(LockFile::default()));
    // As people write it.
    let by_hand = format!(
        "# mine\r\n\r\nversion=1 # first\r\n [ urls ] \r\n[images]\n\t\"docker.io/library/alpine:3.20\"  =\"{}\" # why\n\
         busybox = \"{}\"",
        digest('a'),
        digest('b')
    );
    assert_eq!(read(&by_hand).expect("valid").iter().count(), 2);
}

#[test]
fn what_is_damaged_is_said_with_its_line() {
    let a = digest('a');
    for (text, expected) in [
        (String::new(), "1:1: the file has no version"),
        (
            "version = 2\n[new]\n".to_owned(),
            "1:11: the lock file is of version 2, and this program knows version 1 only",
        ),
        ("version = \"1\"\n".to_owned(), "1:1: the version is not a number"),
        ("version = x\n".to_owned(), "1:11: `x` is not a version"),
        ("version = 1\nversion = 1\n".to_owned(), "2:1: unknown field `version`"),
        ("[images]\n".to_owned(), "1:1: the file does not begin with its version"),
        ("version = 1\n[image]\n".to_owned(), "2:1: unknown table `image`"),
        ("version = 1\n[images]\n\"a\" = \"sha256:1\"\n".to_owned(), "3:7: `sha256:1` is not a digest"),
        (
            format!("version = 1\n[images]\n\"a\" = \"{a}\"\n\"a:latest\" = \"{a}\"\n"),
            "4:1: image `a:latest` is there twice",
        ),
        (format!("version = 1\n[images]\n\"a@{a}\" = \"{a}\"\n"), &format!("3:1: image `a@{a}` has a digest already")),
        (format!("version = 1\n[images]\n\"a\" = \"{a}\" x\n"), "3:81: the end of the line is expected here"),
        ("version = 1\n[images]\n\"a\n".to_owned(), "3:1: the text has no end"),
        ("version = 1\n[images]\n\"a\\q\" = \"\"\n".to_owned(), "3:3: this is not an escape of TOML"),
        ("version = 1\n[images]\n\"\\U0011ä".to_owned(), "3:2: this is not an escape of TOML"),
        (
            "version = 1\n[images]\n<<<<<<< HEAD\n".to_owned(),
            "3:1: two versions of the file were merged here, and disagree",
        ),
        (
            "version = 1\n[urls]\n\"u\" = \"x\"\n".to_owned(),
            "3:1: an address has a digest, as `{ digest = \"sha256:…\" }`",
        ),
        (format!("version = 1\n[urls]\n\"u\" = {{ digest = \"{a}\", size = 1 }}\n"), "3:100: unknown field `size`"),
        (
            format!("version = 1\n[urls]\n\"u\" = {{ digest = \"{a}\", digest = \"{a}\" }}\n"),
            "3:102: unknown field `digest`",
        ),
        (
            format!("version = 1\n[urls]\n\"u\" = {{ digest = \"sha512:{}\" }}\n", "a".repeat(128)),
            &format!("3:18: `sha512:{}` is not of the algorithm sha256", "a".repeat(128)),
        ),
        ("version = 1\n[git]\n\"g\" = { name = \"refs/heads/x\" }\n".to_owned(), "3:1: there is no `commit`"),
        (
            format!("version = 1\n[git]\n\"g\" = {{ commit = \"{}\", name = \"-x\" }}\n", id('1')),
            "3:1: this is not a commit with the name that led to it",
        ),
        (
            format!("version = 1\n[git]\n\"g\" = {{ commit = \"{}\", name = \"refs/a:b\" }}\n", id('1')),
            "3:1: this is not a commit with the name that led to it",
        ),
    ] {
        assert_eq!(read(&text), Err(expected.to_owned()), "{text}");
    }
    let bytes = LockFile::parse(&Source::new("rbuild.lock", b"version = 1\n\xff\n".to_vec()));
    assert_eq!(bytes.expect_err("no text").to_string(), "the line is no text");
}

#[test]
fn pins_are_asked_as_their_mode_says() {
    let known = SourceName::image(&"alpine:3.20".parse().expect("valid"));
    let other = SourceName::image(&"debian".parse().expect("valid"));
    let pins = |mode| Pins::new("rbuild.lock", full(), mode);

    let free = pins(PinMode::Free);
    assert_eq!((free.image(&known), free.image(&other)), (Ok(Some(digest('a'))), Ok(None)));
    assert_eq!(free.found(other.clone(), Pin::Image(digest('e'))), Pin::Image(digest('e')));
    let report = free.report();
    assert_eq!((report.used, report.found), (vec![known.clone()], LockFile::default()));
    assert!(report.unlocked.into_keys().eq([other.clone()]));

    let only = pins(PinMode::Only);
    assert_eq!(only.image(&known), Ok(Some(digest('a'))));
    assert_eq!(only.image(&other).expect_err("not there").to_string(), "image `debian:latest` is not in `rbuild.lock`");

    // The first answer counts for the whole build.
    let add = pins(PinMode::Add);
    assert_eq!((add.image(&known), add.image(&other)), (Ok(Some(digest('a'))), Ok(None)));
    add.found(other.clone(), Pin::Image(digest('e')));
    assert_eq!(add.found(other.clone(), Pin::Image(digest('f'))), Pin::Image(digest('e')));
    assert_eq!(add.image(&other), Ok(Some(digest('e'))));

    let renew = pins(PinMode::Renew(Selection(vec!["alpine".to_owned()])));
    assert_eq!(renew.image(&known), Ok(None));
    renew.found(known.clone(), Pin::Image(digest('e')));
    assert_eq!(renew.image(&known), Ok(Some(digest('e'))));
    assert_eq!(renew.url(&SourceName::url("https://h/")).expect("known").map(|url| url.digest), Some(digest('d')));
}

#[test]
fn words_choose_sources() {
    let image = |name: &str| SourceName::image(&name.parse().expect("valid"));
    for (word, source, expected) in [
        ("alpine", image("alpine:3.20"), true),
        ("alpine:3.20", image("alpine:3.20"), true),
        ("alpine:3.19", image("alpine:3.20"), false),
        ("docker.io/library/alpine:3.20", image("alpine:3.20"), true),
        ("alp", image("alpine:3.20"), false),
        ("app", image("ghcr.io/me/app:1"), true),
        ("ghcr.io/me/app", image("ghcr.io/me/app:1"), true),
        ("me/app", image("ghcr.io/me/app:1"), false),
        ("https://h/", SourceName::url("https://h/x"), true),
        ("https://h/y", SourceName::url("https://h/x"), false),
        ("https://h/r.git", git("https://h/r.git#v1"), true),
    ] {
        assert_eq!(Selection(vec![word.to_owned()]).has(&source), expected, "{word} {source}");
    }
    assert!(Selection::default().has(&image("a")));
}

proptest::proptest! {
    /// Whatever is in the file, it is read or refused with a place in it.
    #[test]
    fn any_file_is_read_or_refused(
        at in 0_usize..700,
        cut in 0_usize..40,
        put in proptest::collection::vec(proptest::num::u8::ANY, 0..12),
    ) {
        let mut bytes = full().to_string().into_bytes();
        let begin = at.min(bytes.len());
        bytes.splice(begin..(begin + cut).min(bytes.len()), put);
        let source = Source::new("rbuild.lock", bytes);
        match LockFile::parse(&source) {
            Ok(file) => proptest::prop_assert_eq!(read(&file.to_string()), Ok(file)),
            Err(error) => {
                let span = error.location().expect("every error has one").span;
                proptest::prop_assert!(span.start <= source.text().len());
            }
        }
    }
}
