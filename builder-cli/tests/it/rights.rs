//! What steps may do: entitlements, networks, privileges, limits.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

/// Builds a Dockerfile whose only step writes `/out`; gives that file.
fn out_of(env: &TestEnv, step: &str, options: &str) -> String {
    env.write("Dockerfile", format!("FROM {}\n{step}\nFROM scratch\nCOPY --from=0 /out /out\n", base()));
    env.ok(&format!("build --progress=plain --no-cache {options} -o result ."));
    std::fs::read_to_string(env.context("result/out")).expect("the step wrote it")
}

#[test]
fn a82_an_insecure_step_has_to_be_allowed() {
    if !require_sandbox("a82_an_insecure_step_has_to_be_allowed") {
        return;
    }
    let env = TestEnv::new();
    let body = format!("FROM {}\nRUN --security=insecure true\n", base());
    insta::assert_snapshot!(env.dockerfile_fails_with(&body, ""));
    let step = "RUN --security=insecure (grep -E '^(CapEff|Seccomp):' /proc/self/status; ls /proc/kcore; test ! -e /dev/loop0; \
                mkdir /m; busybox mount -t tmpfs none /m && echo mounted) > /out";
    let said = out_of(&env, step, "--allow security.insecure");
    let effective = said.lines().next().expect("a line").trim_start_matches("CapEff:").trim().to_owned();
    let all = u64::from_str_radix(&effective, 16).expect("a mask");
    assert!(all.count_ones() > 35 && said.contains("Seccomp:\t0\n") && said.ends_with("mounted\n"), "{said}");
    // Another mode is another step, and that something is allowed changes nothing where nothing is asked for.
    let said = out_of(&env, "RUN grep ^CapEff /proc/self/status > /out", "--allow security.insecure");
    assert_eq!(said, "CapEff:\t00000000a80425fb\n");
}

// Rows: A82, B21.
#[test]
fn s13_an_entitlement_is_asked_for_even_where_the_result_is_known() {
    if !require_sandbox("s13_an_entitlement_is_asked_for_even_where_the_result_is_known") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN --network=host true\nRUN --security=insecure true\n", base()));
    env.ok("build -q --allow network.host --allow security.insecure .");
    assert!(env.fails("build -q --allow network.host .").contains("entitlement security.insecure is not allowed"));
    assert!(env.fails("build -q --allow security.insecure .").contains("entitlement network.host is not allowed"));
    // A stage that is not built asks for nothing.
    env.write("Dockerfile", format!("FROM {0}\nRUN --network=host true\nFROM {0}\nRUN true\n", base()));
    env.ok("build -q .");
}

#[test]
fn a83_a_device_brings_its_node_variables_and_mounts() {
    if !require_sandbox("a83_a_device_brings_its_node_variables_and_mounts") {
        return;
    }
    let env = TestEnv::new();
    std::fs::create_dir_all(env.path("cdi")).expect("made");
    std::fs::write(env.path("given"), "of the host\n").expect("written");
    // A node that no step may open otherwise, under another name, to read only.
    let Some(disk) = ["/dev/loop0", "/dev/vda", "/dev/sda"].into_iter().find(|node| Path::new(node).exists()) else {
        println!("a83_a_device_brings_its_node_variables_and_mounts: skipped, this machine has no block device");
        return;
    };
    let spec = |value: &str| {
        format!(
            r#"{{"cdiVersion": "0.6.0", "kind": "test.example/log", "devices": [{{"name": "k", "containerEdits": {{
                "env": ["LOG={value}"], "deviceNodes": [{{"path": "/dev/logs/k", "hostPath": "{disk}", "permissions": "r", "gid": 7}}],
                "mounts": [{{"hostPath": "{}", "containerPath": "/opt/given", "options": ["ro"]}}]}}}}]}}"#,
            env.path("given").display()
        )
    };
    std::fs::write(env.path("cdi/log.json"), spec("1")).expect("written");
    let flags = format!("--cdi-spec-dir {}", env.path("cdi").display());
    let step = "RUN --device=test.example/log=k,required (echo $LOG; cat /opt/given; stat -c '%F %u:%g' /dev/logs/k; \
                dd if=/dev/logs/k of=/dev/null bs=512 count=1 2>/dev/null && echo read; echo x 2>&1 > /dev/logs/k || echo refused; \
                ls -A /opt) > /out 2>&1\n\
                RUN ls /opt/given /dev/logs >> /out 2>&1 || true";
    let said = out_of(&env, step, &format!("{flags} --allow device"));
    let expected = "1\nof the host\nblock special file 0:7\nread\n";
    assert!(said.starts_with(expected) && said.contains("refused\ngiven\n"), "{said}");
    // Nothing of it is there for the next step.
    assert_eq!(said.matches("No such file").count(), 2, "{said}");
    // What the command sees of it is in the key.
    assert!(
        env.ok(&format!("build --progress=plain {flags} --allow device=test.example/log .")).stderr.contains("CACHED")
    );
    std::fs::write(env.path("cdi/log.json"), spec("2")).expect("written");
    let again = env.ok(&format!("build --progress=plain {flags} --allow device=test.example/log=k -o result ."));
    let said = std::fs::read_to_string(env.context("result/out")).expect("written");
    assert!(said.starts_with("2\n"), "{said}{}", again.stderr);

    let refused = env.fails(&format!("build -q {flags} ."));
    assert!(refused.contains("entitlement device=test.example/log=k is not allowed"), "{refused}");
    let asks = |device: &str| format!("FROM {}\nRUN --device={device} true\n", base());
    let missing =
        env.dockerfile_fails_with(&asks("test.example/log=none,required"), &format!("{flags} --allow device"));
    assert!(missing.contains("device `test.example/log=none` is required and is not registered"), "{missing}");
    env.write("Dockerfile", asks("test.example/log=none"));
    env.ok(&format!("build -q {flags} --allow device ."));
    // A node on the command line needs no more than that.
    let said = out_of(&env, "RUN stat -c %F /dev/fuse2 > /out", "--device /dev/null:/dev/fuse2:r");
    assert_eq!(said, "character special file\n");
}

#[test]
fn a81_the_option_for_the_host_network_is_its_own_grant() {
    if !require_sandbox("a81_the_option_for_the_host_network_is_its_own_grant") {
        return;
    }
    let env = TestEnv::new();
    let ours = std::fs::read_link("/proc/self/ns/net").expect("a namespace").display().to_string();
    let step = "RUN readlink /proc/self/ns/net > /out";
    let step = step.replace("readlink", "busybox readlink");
    assert_eq!(out_of(&env, &step, "--network=host").trim(), ours);
    assert_ne!(out_of(&env, &step.replace("RUN", "RUN --network=none"), "--network=host").trim(), ours);
    let host = step.replace("RUN", "RUN --network=host");
    assert_eq!(out_of(&env, &host, "--network=none --allow network.host").trim(), ours);
    insta::assert_snapshot!(env.fails("build --network=bridge ."));
}

/// Whether a helper of private networks can work here; says so if not.
#[expect(clippy::print_stdout, reason = "a test that skips says so")]
fn require_helper(test: &str, name: &str) -> bool {
    let missing = if !Path::new("/dev/net/tun").exists() {
        "there is no /dev/net/tun"
    } else if !["/usr/bin", "/usr/local/bin"].iter().any(|directory| Path::new(directory).join(name).exists()) {
        "a helper of private networks is not installed"
    } else if name == "pasta"
        && !std::fs::read_to_string("/proc/net/route").is_ok_and(|text| text.contains("\t00000000\t"))
    {
        "pasta needs a default route"
    } else {
        return true;
    };
    println!("{test}: skipped, {missing}: {name}");
    false
}

/// Looks around in the network of `options`; gives what two steps say.
fn look_around(options: &str) -> String {
    let env = TestEnv::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("bound").port();
    // The same namespace for both steps, and not that of the host; its gateway is not the host's loopback.
    let step = format!(
        "RUN (busybox ip -o -4 addr; cat /etc/resolv.conf; busybox nc -w 1 127.0.0.1 {port} </dev/null; \
         busybox nc -w 1 $(busybox ip route | busybox awk '/default/ {{print $3}}') {port} </dev/null; \
         busybox readlink /proc/self/ns/net) > /out 2>&1 || true\n\
         RUN busybox readlink /proc/self/ns/net >> /out"
    );
    let said = out_of(&env, &step, options);
    let namespaces: Vec<&str> = said.lines().rev().take(2).collect();
    assert_eq!(namespaces[0], namespaces[1], "{said}");
    assert_ne!(namespaces[0], std::fs::read_link("/proc/self/ns/net").expect("a namespace").display().to_string());
    assert!(listener.accept().is_err(), "a step reached the host's loopback");
    said
}

#[test]
fn s13_a_private_network_reaches_out_but_not_the_host() {
    let test = "s13_a_private_network_reaches_out_but_not_the_host";
    if !require_sandbox(test) || !require_helper(test, "slirp4netns") {
        return;
    }
    // It is the default too.
    for options in ["--network=private", "--network=slirp4netns", ""] {
        let said = look_around(options);
        assert!(said.contains("inet 10.0.2.100/24") && said.contains("nameserver 10.0.2.3\n"), "{said}");
    }
    // What listens on the addresses of this machine can be reached under its name.
    let env = TestEnv::new();
    let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("bound").port();
    env.write("Dockerfile", format!("FROM {}\nRUN busybox timeout 2 busybox nc me {port} </dev/null; true\n", base()));
    let built = env.rbuild("build --no-cache --progress=plain --network=private --add-host me:host-gateway .");
    if built.code == 0 {
        assert!(listener.accept().is_ok(), "{}", built.stderr);
    } else {
        let shown = &built.stderr;
        assert!(shown.contains("`host-gateway` is not an address for the host `me` here"), "{shown}");
    }
}

#[test]
fn b16_a_network_through_pasta_ends_with_its_build() {
    let test = "b16_a_network_through_pasta_ends_with_its_build";
    if !require_sandbox(test) || !require_helper(test, "pasta") {
        return;
    }
    let mark = format!("02:00:00:00:{:02x}:{:02x}", std::process::id() >> 8 & 0xff, std::process::id() & 0xff);
    let said = look_around(&format!("--network=pasta:--mac-addr,{mark}"));
    assert!(
        said.contains("nameserver 169.254.1.1\n") && said.lines().filter(|line| line.contains("inet ")).count() > 1,
        "{said}"
    );
    let helpers = || {
        let all = end(Command::new("sh").args(["-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"]));
        all.stdout.matches(&format!("--mac-addr {mark}")).count()
    };
    assert_eq!(helpers(), 0);
    // Whatever ends it.
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo begun; sleep 60\n", base()));
    let options = format!("--network=pasta:--mac-addr,{mark}");
    let mut build = env.command(["build", "--progress=plain", "--no-cache", &options, "."]);
    let mut build = build.stderr(std::process::Stdio::piped()).spawn().expect("started");
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(" begun\n") {
        let mut more = [0; 512];
        let length = build.stderr.as_mut().expect("piped").read(&mut more).expect("readable");
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&more[..length]);
    }
    assert!(helpers() > 0);
    build.kill().and_then(|()| build.wait()).expect("ended");
    let left = (0..500).all(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        helpers() > 0
    });
    assert!(!left, "the helper is still there");
}

#[test]
fn s13_without_a_helper_that_works_the_host_is_used_and_that_is_said() {
    let test = "s13_without_a_helper_that_works_the_host_is_used_and_that_is_said";
    if !require_sandbox(test) || !require_helper(test, "slirp4netns") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo namespace $(busybox readlink /proc/self/ns/net)\n", base()));
    let build = |options: &[&str]| {
        let script = "mount --make-rprivate / && mount --bind /dev/null /dev/net/tun && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(crate::env::program());
        command.args(["build", "--progress=plain", "--no-cache"]).args(options).arg(".");
        end(command.current_dir(env.context("")).env("RBUILD_ROOT", env.path("state")).env("HOME", env.path("home")))
    };
    let built = build(&[]);
    let ours = std::fs::read_link("/proc/self/ns/net").expect("a namespace").display().to_string();
    assert_eq!(crate::env::lines_of_steps(&built.stderr, "namespace"), [ours], "{}", built.stderr);
    assert_eq!(built.stderr.matches("steps use the network of this machine").count(), 1, "{}", built.stderr);
    assert!(!build(&["--network=host"]).stderr.contains("steps use the network"));
    let refused = build(&["--network=private"]);
    assert!(refused.code != 0 && refused.stderr.contains("cannot set the network up"), "{}", refused.stderr);
}

#[test]
fn b16_a_namespace_can_be_joined() {
    if !require_sandbox("b16_a_namespace_can_be_joined") {
        return;
    }
    let env = TestEnv::new();
    // A process that waits in a namespace of its own until its input ends.
    let mut holder = Command::new("unshare");
    holder.args(["-n", "sh", "-c", "echo ready; cat"]);
    holder.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holder = holder.spawn().expect("unshare of util-linux");
    let mut ready = [0; 6];
    holder.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("it is there");
    let path = format!("/proc/{}/ns/net", holder.id());
    let theirs = std::fs::read_link(&path).expect("a namespace").display().to_string();
    let said = out_of(&env, "RUN busybox readlink /proc/self/ns/net > /out", &format!("--network=ns:{path}"));
    drop(holder.stdin.take());
    holder.wait().expect("ended");
    assert_eq!(said.trim(), theirs);
    let shown = env.fails("build --no-cache --network=ns:/dev/null .");
    assert!(shown.contains("cannot join the network namespace `/dev/null`"), "{shown}");
}

// Rows: B18.
#[test]
fn b18_hosts_and_resolver_are_those_asked_for() {
    if !require_sandbox("b18_hosts_and_resolver_are_those_asked_for") {
        return;
    }
    let env = TestEnv::new();
    let step = "RUN cat /etc/hosts /etc/resolv.conf > /out; ! echo x >> /etc/hosts";
    let options = "--network=host --add-host a:10.0.0.1 --add-host b=10.0.0.2 --add-host six:[fd00::1] --add-host me=host-gateway \
                   --dns 9.9.9.9 --dns-search corp.example --dns-option ndots:2";
    let said = out_of(&env, step, options);
    let hosts = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                 10.0.0.1\ta\n10.0.0.2\tb\nfd00::1\tsix\n127.0.0.1\tme\n";
    assert!(said.starts_with(hosts), "{said}");
    assert!(said.ends_with("nameserver 9.9.9.9\nsearch corp.example\noptions ndots:2\n"), "{said}");
    assert_eq!(said.matches("nameserver").count(), 1, "{said}");
    let step = "RUN mkdir -p /etc && echo image > /etc/hosts\nRUN cat /etc/hosts > /out";
    assert_eq!(out_of(&env, &step.replace("/etc/hosts\nRUN", "/tmp-hosts; true\nRUN"), "").lines().count(), 2);
    assert!(env.fails("build --no-hosts --add-host a:10.0.0.1 .").contains("exclude each other"));
    env.write("hosts", "of the image\n");
    assert_eq!(out_of(&env, "COPY hosts /etc/hosts\nRUN cat /etc/hosts > /out", "--no-hosts"), "of the image\n");
}

#[test]
fn s11_privileges_can_be_kept_from_growing() {
    if !require_sandbox("s11_privileges_can_be_kept_from_growing") {
        return;
    }
    let env = TestEnv::new();
    let step = "RUN grep ^NoNewPrivs /proc/self/status > /out";
    assert_eq!(out_of(&env, step, ""), "NoNewPrivs:\t0\n");
    assert_eq!(out_of(&env, step, "--security-opt no-new-privileges"), "NoNewPrivs:\t1\n");
}

// Rows: A84, B19, B20.
#[test]
fn a84_limits_hold_and_are_in_no_key() {
    if !require_sandbox("a84_limits_hold_and_are_in_no_key") {
        return;
    }
    let env = TestEnv::new();
    let step =
        "RUN (ulimit -n; ulimit -Hn; busybox df -k /dev/shm | busybox tail -1 | busybox awk '{print $2}') > /out";
    assert_eq!(out_of(&env, step, "--ulimit nofile=100:200 --shm-size 1m"), "100\n200\n1024\n");
    let again = env.ok("build --progress=plain --ulimit nofile=50 --memory 64m .");
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    if !Path::new("/sys/fs/cgroup").exists() {
        return;
    }
    let body = format!("FROM {}\nRUN busybox head -c 100000000 /dev/zero | busybox tail\n", base());
    let shown = env.dockerfile_fails_with(&body, "--no-cache --resource memory=16m --memory-swap 16m");
    assert!(shown.contains("out of memory"), "{shown}");
}
