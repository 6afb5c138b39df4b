use super::*;

/// `None`: not git. `Err`: a part of the message. `Ok`: remote, then `#ref:subdir` and what else differs from a plain
/// address.
fn check(text: &str, expected: Option<Result<&str, &str>>) {
    let shown = Address::parse(text).map(|parsed| parsed.map(|address| show(&address)));
    match (shown, expected) {
        (None, None) => {}
        (Some(Ok(shown)), Some(Ok(expected))) => assert_eq!(shown, expected, "{text}"),
        (Some(Err(error)), Some(Err(expected))) => {
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        (shown, expected) => panic!("{text}: {shown:?}, not {expected:?}"),
    }
}

fn show(address: &Address) -> String {
    let mut shown = address.to_string();
    let mut add = |what: &str| {
        shown.push(' ');
        shown.push_str(what);
    };
    if let Some(checksum) = &address.checksum {
        add(&format!("checksum={checksum}"));
    }
    if let Some(keep) = address.keep_git_dir {
        add(&format!("keep={keep}"));
    }
    if let Some(submodules) = address.submodules {
        add(&format!("submodules={submodules}"));
    }
    if address.mtime == Mtime::Commit {
        add("mtime=commit");
    }
    if address.fetch_by_commit {
        add("fetch-by-commit");
    }
    if address.looks_local {
        add("looks-local");
    }
    if let Some(credentials) = &address.credentials {
        add(&format!("user={}:{}", credentials.user, credentials.password));
    }
    shown
}

#[test]
fn what_is_git_is_what_buildkit_takes_for_it() {
    for text in [
        "https://example.com/",
        "https://example.com/foo",
        "https://example.com/foo.git/",
        "https://example.com/foo.git.bar",
        "https://github.com/moby/buildkit",
        "http://github.com/docker/docker.git:#branch",
        "https://host/?a.git",
        "httpx://github.com/moby/buildkit.git",
        "custom.xyz/moby/buildkit.git",
        "github.community/a/b",
        "github.com",
        "./.git",
        ".git",
        "a.git",
        "a@b",
        "./git@host:x",
        "git@host/x",
        "git@host\n:x",
        "",
    ] {
        check(text, None);
    }
    for text in [
        "https://example.com/foo.git",
        "git://example.com/foo",
        "git://host.xz:1234/path/to/repo.git",
        "ssh://git@github.com:22/moby/buildkit.git",
        "ssh://someuser@192.168.0.123:456/~/repo-in-my-home-dir.git",
        "git@github.com:moby/buildkit",
        "nonstandarduser@example.com:/srv/repos/weird/project.git",
        "file:///srv/a.git",
    ] {
        check(text, Some(Ok(text)));
    }
    check("HTTP://h/a.git", Some(Ok("http://h/a.git")));
    check("github.com/moby/buildkit", Some(Ok("https://github.com/moby/buildkit looks-local")));
    check("github.com/a/b?tag=v1", Some(Ok("https://github.com/a/b#refs/tags/v1 looks-local")));
}

// Rows: E2.
#[test]
fn fragments() {
    let check = |fragment: &str, expected: &str| {
        check(&format!("https://h/r.git{fragment}"), Some(Ok(&format!("https://h/r.git{expected}"))));
        super::tests::check(&format!("git@h:r{fragment}"), Some(Ok(&format!("git@h:r{expected}"))));
    };
    check("#", "");
    check("#:", "");
    check("#deadbeef", "#deadbeef");
    check("#release/1.2", "#release/1.2");
    check("#baz/qux:quux/quuz", "#baz/qux:quux/quuz");
    check("#:myfolder", "#:myfolder");
    check("#v1:/", "#v1");
    check("#v1:/a//b/./c/../d/", "#v1:a/b/d");
    check("?subdir=/sub#v1.0.0", "#v1.0.0:sub");
    check("?subdir=a&ref=v1#v1:a", "#v1:a");
}

// Rows: E3.
#[test]
fn queries() {
    let good = |query: &str, expected: &str| {
        check(&format!("https://h/r.git?{query}"), Some(Ok(&format!("https://h/r.git{expected}"))));
    };
    good("", "");
    good("&&", "");
    good("ref=v1.0.0&subdir=/subdir", "#v1.0.0:subdir");
    good("tag=v1", "#refs/tags/v1");
    good("tag=refs/tags/v1", "#refs/tags/v1");
    good("ref=refs/tags/v1&tag=v1", "#refs/tags/v1");
    good("branch=v1.0", "#refs/heads/v1.0");
    good("branch=a%2Fb", "#refs/heads/a/b");
    good("ref=pull/42/head", "#pull/42/head");
    good("checksum=DeadBeef", "#deadbeef checksum=deadbeef");
    good("tag=v1&commit=deadbeef", "#refs/tags/v1 checksum=deadbeef");
    good("checksum=ab&commit=ab", "#ab checksum=ab");
    good("keep-git-dir", " keep=true");
    good("keep-git-dir=&submodules=0", " keep=true submodules=false");
    good("submodules=True&mtime=commit", " submodules=true mtime=commit");
    good("mtime=checkout", "");
    let id = "0123456789012345678901234567890123456789";
    good(&format!("branch=b&checksum={id}&fetch-by-commit"), &format!("#refs/heads/b checksum={id} fetch-by-commit"));

    let bad = |rest: &str, expected: &str| check(&format!("https://h/r.git{rest}"), Some(Err(expected)));
    bad("?ref=v1.0.0#v1.2.3", "two different refs: `v1.2.3` and `v1.0.0`");
    bad("?ref=v1&tag=v2", "two different refs");
    bad("?tag=v1&branch=v1", "two different refs");
    bad("?branch=b#b", "two different refs");
    bad("?subdir=a#v1:b", "two different subdirectories");
    bad("?checksum=aa&commit=ab", "two different commits");
    bad("?invalid=123", "unknown query word `invalid`");
    bad("?ref=a&ref=a", "`ref=` is in a git address more than once");
    bad("?keep-git-dir&keep-git-dir", "more than once");
    bad("?ref", "`ref=` of a git address has no value");
    bad("?mtime=", "has no value");
    bad("?mtime=now", "`checkout` or `commit`");
    bad("?submodules=yes", "`true` or `false`");
    bad("?checksum=v1", "not the beginning of a commit id");
    bad("?fetch-by-commit", "needs a full commit id");
    bad("?fetch-by-commit&checksum=abcd", "needs a full commit id");
    bad("?ref=%zz", "invalid escape");
    bad("#:../x", "leads out of the repository");
    bad("?subdir=a/../..", "leads out of the repository");
    for reference in ["-x", "a..b", "a b", "a^", "HEAD~1", "a*", "@{u}", "a/", "/a", ".a", "a/.b", "x.lock", "a//b"] {
        bad(&format!("?ref={reference}"), "cannot be the name");
    }
    check("https:///r.git", Some(Err("no valid host")));
    check("git@-oProxyCommand:x", Some(Err("no valid host")));
}

#[test]
fn credentials_are_kept_apart_and_never_shown() {
    check("https://foo:b%40r@h/r.git", Some(Ok("https://h/r.git user=foo:b@r")));
    check("https://token@h/r.git", Some(Ok("https://h/r.git user=token:")));
    check("ssh://git:secret@h/r.git", Some(Ok("ssh://git@h/r.git")));
    let address = Address::parse("https://foo:secret@h/r.git#v1").expect("git").expect("valid");
    assert_eq!(format!("{address} {address:?}"), "https://h/r.git#v1 Address(https://h/r.git#v1)");
    for (text, expected) in [
        ("https://foo:bar@h/r.git#v1", "https://xxxxx:xxxxx@h/r.git#v1"),
        ("https://token@h/r.git", "https://xxxxx:xxxxx@h/r.git"),
        ("ssh://git:pw@h/r", "ssh://xxxxx:xxxxx@h/r"),
        ("ssh://git@h/r@1", "ssh://git@h/r@1"),
        ("git@h:r", "git@h:r"),
        ("https://h/r@x:y.git", "https://h/r@x:y.git"),
    ] {
        assert_eq!(redacted(text), expected);
    }
}

#[test]
fn a_checksum_flag_joins_the_address() {
    let mut address = Address::parse("https://h/r.git?commit=ab").expect("git").expect("valid");
    assert!(address.check("AB").is_ok());
    assert!(matches!(address.check("abc"), Err(AddressError::Conflict { .. })));
    assert!(matches!(address.check("sha256:ab"), Err(AddressError::Value { .. })));
    let mut plain = Address::parse("https://h/r.git").expect("git").expect("valid");
    plain.check("ab").expect("valid");
    assert_eq!((plain.reference, plain.checksum.as_deref()), (None, Some("ab")));
}
