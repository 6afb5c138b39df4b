//! ADD of web addresses.

use crate::contexts::{archive, gzip, listing};
use crate::env::TestEnv;
use crate::web::{Page, Web};

const BUILD: &str = "build --progress=quiet -o type=tar,dest=out.tar";

/// Path and modification time of every file in an archive that was built.
fn times(env: &TestEnv) -> Vec<(String, u64)> {
    let mut archive = tar::Archive::new(std::fs::File::open(env.context("out.tar")).expect("written"));
    let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    entries
        .filter(|entry| entry.header().entry_type().is_file())
        .map(|entry| (entry.path().expect("a path").display().to_string(), entry.header().mtime().expect("a time")))
        .collect()
}

fn content(env: &TestEnv, path: &str) -> String {
    let mut archive = tar::Archive::new(std::fs::File::open(env.context("out.tar")).expect("written"));
    let mut entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    let mut entry = entries.find(|entry| entry.path().is_ok_and(|found| found.ends_with(path))).expect("it is there");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut entry, &mut text).expect("text");
    text
}

// Rows: A103.
#[test]
fn a_file_lands_under_the_name_of_its_address() {
    let (env, web) = (TestEnv::new(), Web::start());
    let dated = Page { body: b"x".to_vec(), last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT"), ..Page::default() };
    let named = Page { headers: "Content-Disposition: attachment; filename=\"other\"\r\n", ..dated.clone() };
    web.put("/a/b.txt", dated);
    web.put("/named", named);
    web.bytes("/", "root");
    web.bytes("/dir/", "dir");
    web.bytes("/a%20b", "blank");
    let moved = web.put("/moved", Page { redirect: Some(format!("{}/a/b.txt", web.address)), ..Page::default() });
    let at = &web.address;
    env.write("local", "l");
    env.write(
        "Dockerfile",
        format!(
            "FROM scratch\nADD {at}/a/b.txt?x=1 /d1/\nADD {at}/a/b.txt /file\nADD {at}/named /d2/\nADD {at}/ /d3/\nADD {at}/dir/ /d4/\n\
             ADD {at}/a%20b /d5/\nADD {moved} /d6/\nWORKDIR /d7\nADD --chmod=755 --chown=7:8 {at}/a/b.txt .\n\
             ADD local {at}/named <<EOF /d8/\nhere\nEOF\n"
        ),
    );
    env.ok(&format!("{BUILD} ."));
    assert_eq!(
        listing(&env, "out.tar"),
        [
            "600 0:0 d1/b.txt",
            "600 0:0 d2/named",
            "600 0:0 d3/__unnamed__",
            "600 0:0 d4/dir",
            "600 0:0 d5/a b",
            "600 0:0 d6/moved",
            "600 0:0 d8/named",
            "600 0:0 file",
            "644 0:0 d8/EOF",
            "644 0:0 d8/local",
            "755 7:8 d7/b.txt",
        ]
    );
    let times = times(&env);
    let time = |path: &str| times.iter().find(|(found, _)| found == path).expect("there").1;
    assert_eq!((time("file"), time("d2/named"), time("d5/a b")), (784_111_777, 784_111_777, 0));
}

// Rows: A103, P23.
#[test]
fn an_address_is_asked_whether_it_changed() {
    let (env, web) = (TestEnv::new(), Web::start());
    let page = |body: &str, etag| Page { body: body.as_bytes().to_vec(), etag, ..Page::default() };
    let tagged = web.put("/tagged", page("one", Some("\"1\"")));
    let bare = web.put("/bare", page("one", None));
    env.write("Dockerfile", format!("FROM scratch\nADD {tagged} /t\nADD {bare} /b\nCOPY <<E /e\nE\n"));
    let build = || {
        let ended = env.ok("build --progress=plain -o type=tar,dest=out.tar .");
        let mut asked = web.asked();
        asked.sort();
        (ended.stderr.matches("CACHED").count(), asked)
    };
    let asked = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(build(), (0, asked(&["GET /bare 200", "GET /tagged 200"])));
    assert_eq!(build(), (3, asked(&["GET /bare 200", "GET /tagged 304"])));
    // Equal bytes under a new tag run nothing again.
    web.put("/tagged", page("one", Some("\"2\"")));
    assert_eq!(build(), (3, asked(&["GET /bare 200", "GET /tagged 200"])));
    web.put("/tagged", page("two", Some("\"3\"")));
    assert_eq!(build(), (2, asked(&["GET /bare 200", "GET /tagged 200"])));
    assert_eq!((content(&env, "t"), content(&env, "b")), ("two".to_owned(), "one".to_owned()));
    // What is unused stays as it is in the store until it is pruned.
    env.ok("image prune -f");
    assert_eq!(build(), (3, asked(&["GET /bare 200", "GET /tagged 304"])));
    drop(web);
    assert!(env.fails("build --progress=quiet .").contains("connection refused"));
    env.ok("build --progress=quiet --pull=never .");
}

// Rows: A104.
#[test]
fn a_checksum_that_is_known_asks_nobody() {
    let (env, web) = (TestEnv::new(), Web::start());
    let address = web.bytes("/x", "hello");
    let good = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    env.write("Dockerfile", format!("FROM scratch\nADD --checksum={good} {address} /x\n"));
    env.ok(&format!("{BUILD} ."));
    assert_eq!(web.asked(), ["GET /x 200"]);
    env.ok(&format!("{BUILD} --no-cache ."));
    assert_eq!((web.asked(), content(&env, "x")), (Vec::new(), "hello".to_owned()));
    let wrong = good.replace("2cf", "3cf");
    let other = env.dockerfile_fails(format!("FROM scratch\nADD --checksum={wrong} {address} /x\n"));
    let two = env.dockerfile_fails(format!("FROM scratch\nADD --checksum={good} {address} {address} /x/\n"));
    let not_one = env.dockerfile_fails(format!("FROM scratch\nADD --checksum=x {address} /x\n"));
    insta::assert_snapshot!([other, two, not_one].join("\n"));
}

// Rows: A102.
#[test]
fn archives_from_addresses_are_unpacked_only_if_asked() {
    let (env, web) = (TestEnv::new(), Web::start());
    let address = web.bytes("/a.tgz", gzip(&archive(&[("in/side", "s")])));
    let text = web.bytes("/text", "no archive");
    env.write(
        "Dockerfile",
        format!(
            "FROM scratch\nADD {address} /as-is/\nADD --unpack=true {address} /unpacked/\nADD --unpack {text} /text/\n\
             ADD --unpack --chown=3 {address} /owned/\nADD --unpack=false {address} /kept/\n"
        ),
    );
    env.ok(&format!("{BUILD} ."));
    assert_eq!(
        listing(&env, "out.tar"),
        [
            "600 0:0 as-is/a.tgz",
            "600 0:0 kept/a.tgz",
            "600 0:0 text/text",
            "640 3:3 owned/in/side",
            "640 7:8 unpacked/in/side",
        ]
    );
}

// Rows: A103.
#[test]
fn secrets_of_a_host_are_sent_and_kept_secret() {
    let (env, web) = (TestEnv::new(), Web::start());
    let locked = Page { body: b"x".to_vec(), authorization: Some("Bearer t0ps3cret"), ..Page::default() };
    let address = web.put("/locked", locked);
    let refused = env.dockerfile_fails(format!("FROM scratch\nADD {address} /x\n"));
    insta::assert_snapshot!(refused);
    env.write("token", "t0ps3cret\n");
    env.ok("build --progress=quiet --secret id=HTTP_AUTH_TOKEN_127.0.0.1,src=token .");
    let found = crate::env::end(std::process::Command::new("grep").args(["-rl", "t0ps3cret"]).arg(env.path("state")));
    assert_eq!(found.stdout, "", "the secret is in the store");
}

#[test]
fn what_cannot_be_fetched_is_one_clear_error() {
    let (env, web) = (TestEnv::new(), Web::start());
    let cut = web.put("/cut", Page { body: vec![b'x'; 1000], cut: true, ..Page::default() });
    let loops = web.put("/loop", Page { redirect: Some(format!("{}/loop", web.address)), ..Page::default() });
    let missing = format!("{}/missing", web.address);
    let mut shown = String::new();
    for address in [&cut, &loops, &missing, "http://", "http://127.0.0.1:1/x"] {
        shown += &env.dockerfile_fails(format!("FROM scratch\nADD {address} /x\n"));
        shown += "\n";
    }
    insta::assert_snapshot!(shown);
    assert!(!env.path("state/downloads").exists(), "nothing of it is remembered");
}
