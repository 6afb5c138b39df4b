//! Outputs, judged by other tools.

use std::process::Command;

use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

fn skopeo(arguments: &[&str]) -> serde_json::Value {
    let ended = end(Command::new("skopeo").args(arguments));
    assert_eq!(ended.code, 0, "skopeo {arguments:?}\n{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

// Rows: B12.
#[test]
fn archives_are_read_by_skopeo() {
    let env = TestEnv::new();
    env.write("file", "content").write("Dockerfile", "FROM scratch\nCOPY file /\nENV A=1\n");
    env.ok("build --progress=quiet -t app:1 -o type=oci,dest=o.tar,compression=zstd -o type=docker,dest=d.tar \
         -o type=oci,dest=layout,tar=false,compression=uncompressed -o type=tar,dest=t.tar .");
    let path = |name: &str| env.context(name).to_str().expect("text").to_owned();
    for (name, media) in [
        (format!("oci-archive:{}", path("o.tar")), "application/vnd.oci.image.layer.v1.tar+zstd"),
        (format!("oci:{}", path("layout")), "application/vnd.oci.image.layer.v1.tar"),
    ] {
        let manifest = skopeo(&["inspect", "--raw", &name]);
        assert_eq!(manifest["layers"][0]["mediaType"], media, "{name}");
        assert_eq!(skopeo(&["inspect", "--config", &name])["config"]["Env"][1], "A=1", "{name}");
    }
    let docker = format!("docker-archive:{}", path("d.tar"));
    assert_eq!(skopeo(&["inspect", "--config", &docker])["os"], "linux");
    let listed = end(Command::new("tar").args(["-tf", &path("t.tar")]));
    assert_eq!(listed.stdout, "file\n");
}

// Rows: B12.
#[test]
fn a_tar_goes_to_standard_output() {
    let env = TestEnv::new();
    env.write("file", "content").write("Dockerfile", "FROM scratch\nCOPY file /\n");
    let output = env.command(["build", "-q", "-o", "-", "."]).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut archive = tar::Archive::new(&output.stdout[..]);
    let names: Vec<_> = archive
        .entries()
        .expect("a tar")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert_eq!(names, ["file"]);
}

// Rows: B28.
#[test]
fn two_machines_make_the_same_bytes() {
    let make = || {
        let env = TestEnv::new();
        env.write("dir/a", "1").write("dir/b", "2").write("Dockerfile", "FROM scratch\nCOPY dir /dir\n");
        let output = "type=oci,dest=o.tar,rewrite-timestamp=true";
        let ended = end(env.command(["build", "-q", "-o", output, "."]).env("SOURCE_DATE_EPOCH", "1700000000"));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        std::fs::read(env.context("o.tar")).expect("written")
    };
    let first = make();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(first == make(), "the archives differ");
}

#[test]
fn saved_images_are_loaded_again() {
    let env = TestEnv::new();
    env.write("file", "content").write("Dockerfile", "FROM scratch\nCOPY file /\n");
    env.ok("build -q -t one:1 .");
    env.ok("tag one:1 two:2");
    let id = env.ok("images -q --no-trunc one").stdout;
    env.ok("save -o both.tar one:1 two:2");
    let other = TestEnv::new();
    let loaded = other.ok(&format!("load -i {}", env.context("both.tar").display())).stdout;
    assert!(loaded.contains("Loaded image: one:1") && loaded.contains("Loaded image: two:2"), "{loaded}");
    assert_eq!(other.ok("images -q --no-trunc two").stdout, id);
    let docker = format!("docker-archive:{}:one:1", env.context("both.tar").display());
    assert_eq!(skopeo(&["inspect", "--config", &docker])["os"], "linux");
    std::fs::write(env.path("noise"), "not an archive").expect("written");
    let shown = env.fails(&format!("load -i {}", env.path("noise").display()));
    assert!(shown.starts_with("exit code: 1\nerror: "), "{shown}");
}

#[test]
fn umoci_unpacks_and_crun_runs_what_is_built() {
    let test = "umoci_unpacks_and_crun_runs_what_is_built";
    if !require_sandbox(test) {
        return;
    }
    if ["umoci", "crun"].iter().any(|tool| Command::new(tool).arg("--version").output().is_err()) {
        println!("{test}: skipped, umoci or crun is not installed");
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo made here > /made\nCMD [\"cat\", \"/made\"]\n", base()));
    env.ok("build --progress=quiet -t app:1 -o type=oci,dest=layout,tar=false .");
    let layout = format!("{}:1", env.context("layout").display());
    let bundle = env.path("bundle");
    let unpacked = end(Command::new("umoci").args(["unpack", "--image", &layout]).arg(&bundle));
    assert_eq!(unpacked.code, 0, "{}", unpacked.stderr);
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/made")).expect("unpacked"), "made here\n");
    // No terminal here.
    let config = bundle.join("config.json");
    let text = std::fs::read_to_string(&config).expect("written").replace("\"terminal\": true", "\"terminal\": false");
    std::fs::write(&config, text.replace("\"terminal\":true", "\"terminal\":false")).expect("written");
    let name = format!("rbuild-it-{}", std::process::id());
    let ran = end(Command::new("crun").args(["run", "--bundle"]).arg(&bundle).arg(&name));
    if ran.code != 0 && ran.stderr.contains("cgroup") {
        println!("{test}: crun cannot make cgroups here: {}", ran.stderr);
        return;
    }
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "made here\n"), "{}", ran.stderr);
}
