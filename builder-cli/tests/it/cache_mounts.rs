//! Cache mounts: their sizes, and what replaces them.

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

/// A step that writes a file of 64 KiB into a cache mount, and one that shows what is there.
fn dockerfile(name: &str) -> String {
    let mount = "RUN --mount=type=cache,target=/c";
    format!(
        "FROM {}\n{mount} sleep 0.02 && head -c 65536 /dev/zero > /c/{name} && mkdir -p /c/d/{name} && echo {name} > /c/d/{name}/small\n\
         {mount} echo {name}; ls /c\n",
        base()
    )
}

// Rows: P11.
#[test]
fn a_cache_mount_is_kept_within_its_size() {
    if !require_sandbox("a_cache_mount_is_kept_within_its_size") {
        return;
    }
    let env = TestEnv::new();
    let seen = |name: &str, options: &str| -> (Vec<String>, String) {
        env.write("Dockerfile", dockerfile(name));
        let shown = env.ok(&format!("build --progress=plain -o type=cacheonly {options} .")).stderr;
        let names = ["a", "b", "c"].iter().filter(|name| {
            shown.lines().any(|line| line.split(' ').nth(2) == Some(name) && line.split(' ').count() == 3)
        });
        (names.map(|name| (*name).to_owned()).collect(), shown)
    };
    assert_eq!(seen("a", "").0, ["a"]);
    assert_eq!(seen("b", "").0, ["a", "b"]);
    let (names, shown) = seen("c", "--cache-mount-size /c=160k");
    assert_eq!(names, ["b", "c"], "{shown}");
    assert!(shown.contains("removing what was not used for longest from cache mount `/c`"), "{shown}");
    // The configuration says the same, and the command line wins.
    env.write("config.json", "{\"cache-mount-sizes\": {\"/c\": \"90k\", \"/other\": \"1\"}}");
    assert_eq!(seen("a", "--config config.json --cache-mount-size /c=0 --no-cache").0, ["a", "b", "c"]);
    assert_eq!(seen("b", "--config config.json --no-cache").0, ["b"]);
    for wrong in ["=1k", "/c", "/c=much"] {
        assert_eq!(env.rbuild(&format!("build --cache-mount-size {wrong} .")).code, 125, "{wrong}");
    }
}
