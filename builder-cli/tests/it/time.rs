//! `SOURCE_DATE_EPOCH`, as a number and as the name of something with a time.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use crate::contexts::{archive, piped};
use crate::env::{TestEnv, end};

/// The config of the image in `out.tar`.
fn config(env: &TestEnv) -> Value {
    let image = format!("oci-archive:{}", env.context("out.tar").display());
    let ended = end(std::process::Command::new("skopeo").args(["inspect", "--config", &image]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// When the image in `out.tar` was made, and all entries of its history.
fn times(env: &TestEnv) -> Vec<String> {
    let config = config(env);
    let steps = config["history"].as_array().expect("a history").iter().map(|step| &step["created"]);
    let times = std::iter::once(&config["created"]).chain(steps);
    times.map(|time| time.as_str().unwrap_or("none").to_owned()).collect()
}

const BUILD: &str = "build -q -o type=oci,dest=out.tar,rewrite-timestamp=true";
const DOCKERFILE: &str = "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL at=$SOURCE_DATE_EPOCH\nCOPY Dockerfile /\n";

/// A server that answers everything with a file of 1994.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let answer = "HTTP/1.1 200 OK\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\
                          Connection: close\r\n\r\nhi";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}/file")
}

// Rows: A60, B28.
#[test]
fn a_number_is_the_time_of_everything_new() {
    let env = TestEnv::new();
    env.write("Dockerfile", DOCKERFILE);
    for given in ["--source-date-epoch=784111777", "--build-arg=SOURCE_DATE_EPOCH=784111777"] {
        env.ok(&format!("{BUILD} {given} ."));
        assert_eq!(times(&env), ["1994-11-06T08:49:37Z"; 4], "{given}");
        assert_eq!(config(&env)["config"]["Labels"]["at"], "784111777");
    }
    // Nothing takes back what the environment says; the layer was made before, and its time does not show.
    let with = |value: &str| {
        let mut command = env.command(BUILD.split_whitespace());
        let ended = end(command.args(["--build-arg", value, "."]).env("SOURCE_DATE_EPOCH", "5"));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        times(&env)
    };
    assert_eq!(with("A=1"), ["1970-01-01T00:00:05Z"; 4]);
    assert_ne!(with("SOURCE_DATE_EPOCH=")[0], "1970-01-01T00:00:05Z");
}

// Rows: A60.
#[test]
fn a_stage_or_a_context_can_give_the_time() {
    let env = TestEnv::new();
    let address = serve();
    env.write("Dockerfile", format!("FROM scratch AS source\nADD {address} /\n{DOCKERFILE}"));
    env.ok(&format!("{BUILD} --build-arg SOURCE_DATE_EPOCH=source ."));
    assert_eq!(times(&env), ["1994-11-06T08:49:37Z"; 4]);
    assert_eq!(config(&env)["config"]["Labels"]["at"], "784111777");
    env.ok(&format!("{BUILD} --build-arg SOURCE_DATE_EPOCH=other --build-context other={address} ."));
    assert_eq!(times(&env), ["1994-11-06T08:49:37Z"; 4]);

    // A directory has no time.
    env.ok(&format!("{BUILD} --source-date-epoch context ."));
    assert!(times(&env)[0].starts_with("20"), "{:?}", times(&env));
    assert_eq!(config(&env)["config"]["Labels"]["at"], "");

    let tar = archive(&[("Dockerfile", &format!("ARG SOURCE_DATE_EPOCH=context\n{DOCKERFILE}"))]);
    assert_eq!(piped(&env, &format!("{BUILD} -"), &tar).code, 0);
    assert_eq!(times(&env), ["2001-09-09T01:46:40Z"; 4], "the newest file of the archive");
}

#[test]
fn what_names_nothing_is_an_error() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch AS a\nCOPY Dockerfile /\n");
    let ended = env.fails("build --progress=quiet --source-date-epoch tomorrow .");
    assert!(ended.contains("`tomorrow` is no value for SOURCE_DATE_EPOCH"), "{ended}");
    let ended = env.fails("build --progress=quiet --source-date-epoch a .");
    assert!(ended.contains("the stage has no time") && ended.contains("Dockerfile:2"), "{ended}");
}
