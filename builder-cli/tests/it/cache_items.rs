//! `cache ls` (docker's `buildx du`): what is shown of each item, and the filters.

use serde_json::Value;

use crate::env::{TestEnv, require_sandbox};
use crate::registry::base;

fn items(env: &TestEnv, filter: &str) -> Vec<Value> {
    let listed = env.ok(&format!("builder du --format json {filter}")).stdout;
    listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn descriptions(env: &TestEnv, filter: &str) -> Vec<String> {
    let mut found: Vec<_> =
        items(env, filter).iter().map(|item| item["Description"].as_str().expect("text").to_owned()).collect();
    found.sort();
    found
}

fn id(env: &TestEnv, description: &str) -> String {
    let found = items(env, &format!("--filter description~={description}"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]["ID"].as_str().expect("text").to_owned()
}

#[test]
fn parents_are_what_lies_right_below() {
    if !require_sandbox("parents_are_what_lies_right_below") {
        return;
    }
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {base} AS one\nRUN echo one > /one\nRUN true\nCOPY file /\nRUN echo two > /two\n\
         FROM {base} AS other\nCOPY file /\nFROM scratch\nCOPY --from=one /two /\nCOPY --from=other /file /renamed\n",
        base = base()
    );
    env.write("Dockerfile", dockerfile).write("file", "x".repeat(100));
    env.ok("build -q -o type=cacheonly .");
    let (one, two) = (id(&env, ">./one"), id(&env, ">./two"));
    let parents = |id: &str| -> Vec<String> {
        let found = items(&env, &format!("--filter id={id}"));
        let parents = found[0]["Parents"].as_array().unwrap_or_else(|| panic!("{found:?}")).iter();
        parents.map(|parent| parent.as_str().expect("text").to_owned()).collect()
    };
    // `RUN true` left nothing, so it is no layer.
    let copied = &parents(&two)[0];
    let bottom = &parents(&one)[0];
    let mut both = parents(copied);
    both.sort();
    let mut expected = [bottom.clone(), one.clone()];
    expected.sort();
    assert_eq!(both, expected, "the same copy in two stages has two parents");
    let shown = env.ok(&format!("builder du --verbose --filter id={two}")).stdout;
    assert!(shown.starts_with(&format!("ID:           {two}\nParents:\n - {copied}\nCreated at:")), "{shown}");
    let pretty = env.ok(&format!("builder du --format pretty --filter id={two}")).stdout;
    // When it was used last is longer ago by now.
    assert!(pretty.lines().take(8).eq(shown.lines().take(8)), "{pretty}");
    let joined = env.ok(&format!("cache ls --filter id={copied} --format {{{{len(.Parents)}}}}"));
    assert_eq!(joined.stdout.trim(), "2");

    let short = &one[..20];
    assert_eq!(items(&env, &format!("--filter parents={short}"))[0]["ID"], Value::from(copied.as_str()));
    assert_eq!(items(&env, &format!("--filter parents~=^{short}.*$,parents~={bottom}")).len(), 1);
    let without = items(&env, &format!("--filter parents!={short} --filter parents"));
    assert!(without.len() > 1 && without.iter().all(|item| item["ID"] != copied.as_str()), "{without:?}");
    let pruned = env.ok(&format!("prune -f --verbose --filter parents={copied}")).stdout;
    assert!(pruned.contains("1 item\n") && pruned.contains("/two"), "{pruned}");
    assert_eq!(descriptions(&env, "--filter description~=two"), [""; 0]);
    // Nothing needs its parent: this one goes although its child stays.
    env.ok(&format!("prune -f --filter id={one}"));
    assert_eq!(items(&env, &format!("--filter id={copied}")).len(), 1);
    assert!(env.ok("build --progress=plain -o type=cacheonly .").stderr.contains("CACHED"));
}

#[test]
fn filters_are_those_of_buildx() {
    if !require_sandbox("filters_are_those_of_buildx") {
        return;
    }
    let env = TestEnv::new();
    let run = "RUN --mount=type=cache,target=/c echo x > /c/x && echo step-one > /one";
    env.write("Dockerfile", format!("FROM {}\n{run}\nRUN echo step-two > /two\n", base()));
    env.ok("build -q -t app .");
    env.ok("build -q -t app .");
    let mount = ["/c".to_owned()];
    for filter in ["type=exec.cachemount", "mutable", "mutable=true", "immutable=false", "type~=cache", "id~=.,mutable"]
    {
        assert_eq!(descriptions(&env, &format!("--filter {filter}")), mount, "{filter}");
    }
    let steps =
        |filter: &str| descriptions(&env, &format!("{filter} --filter description~=^RUN.*step-(one|two)")).len();
    for (filter, expected) in [
        ("--filter type=regular", 2),
        ("--filter type=internal", 0),
        ("--filter immutable,shared", 2),
        ("--filter private", 0),
        ("--filter shared=false", 0),
        ("--filter inuse", 0),
        ("--filter inuse=false --filter type!=exec.cachemount", 2),
        ("--filter until=1h", 0),
        ("--filter unused-for=1h", 0),
        ("--filter description~=two", 1),
        ("--filter description!=/c", 2),
    ] {
        assert_eq!(steps(filter), expected, "{filter}");
    }
    let one = &items(&env, "--filter description~=step-one")[0];
    assert_eq!((&one["UsageCount"], &one["Shared"], &one["Mutable"]), (&1.into(), &true.into(), &false.into()));
    // The stars of docker's table.
    let table = env.ok("cache ls").stdout;
    let line = |id: &Value| {
        let id = &id.as_str().expect("text")[..25];
        table.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{id} {table}")).to_owned()
    };
    let words = |line: String| line.split_whitespace().take(3).map(|word| word.ends_with('*')).collect::<Vec<_>>();
    assert_eq!(words(line(&one["ID"])), [false, false, true]);
    assert_eq!(words(line(&items(&env, "--filter mutable")[0]["ID"])), [true, false, false]);
    assert!(env.ok("du --verbose").stdout.contains("CACHE ID"));
    let whole: Value = serde_json::from_str(&env.ok("du -v --format json").stdout).expect("one document");
    let caches = whole["BuildCache"].as_array().expect("a list");
    assert_eq!(caches.len(), items(&env, "").len());
    assert!(caches.iter().all(|item| item["CacheType"].is_string() && item["Shared"].is_string()), "{whole}");
    let count = env.ok("system df -v --format {{len(.BuildCache)}}").stdout;
    assert_eq!(count.trim(), caches.len().to_string());
    for wrong in ["color=red", "description~=(", "until", "shared=maybe", "type=regulr"] {
        env.fails(&format!("cache ls --filter {wrong}"));
        env.fails(&format!("cache prune -f --filter {wrong}"));
    }
}

#[test]
fn a_table_fits_a_terminal_and_says_how_copies_are_written() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nWORKDIR /w\nCOPY --chmod=600 file other/\n").write("file", "x".repeat(100));
    env.ok("build -q -o type=cacheonly .");
    assert_eq!(descriptions(&env, "--filter type=regular"), ["COPY --chmod=600 file other/", "WORKDIR /w"]);
    assert_eq!(descriptions(&env, "--filter description~=other"), ["COPY --chmod=600 file other/"]);
    let table = env.ok("cache ls").stdout;
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let short = table.lines().nth(1).and_then(|line| line.split(' ').next()).expect("an id");
    assert_eq!((short.len(), items(&env, &format!("--filter id={short}")).len()), (25, 1));
    let pruned = env.ok("cache prune -f --verbose --filter description~=other").stdout;
    assert!(pruned.contains("COPY --chmod=600 file other/\n") && pruned.contains("1 item\n"), "{pruned}");
}

#[test]
fn what_is_known_of_a_context_is_an_item_and_can_go() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY . /\n").write("file", "x");
    let build = || env.ok("build --progress=plain -o type=cacheonly .").stderr;
    build();
    // What was just written is not remembered: it may change without a trace.
    std::thread::sleep(std::time::Duration::from_millis(50));
    build();
    let there = || std::fs::read_dir(env.path("state/contexts")).into_iter().flatten().count();
    let all = there();
    assert!(all >= 2, "an index and what copies came to: {all}");
    let found = items(&env, "--filter type=source.local");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["Description"], "index of a build context");
    let pruned = env.ok("prune -f --filter type=source.local --keep-duration 1h").stdout;
    assert!(there() == all, "it was used just now: {pruned}");
    env.ok("prune -f --filter type=source.local");
    assert_eq!(there(), 0);
    assert!(build().contains("CACHED"));
}

/// Makes everything of the store look as if nobody had used it for two days.
fn age(directory: &std::path::Path) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(48 * 3600);
    for entry in std::fs::read_dir(directory).expect("listed").map(|entry| entry.expect("read")) {
        if entry.file_type().expect("known").is_dir() {
            age(&entry.path());
        } else {
            let file = std::fs::File::open(entry.path()).expect("opened");
            file.set_times(std::fs::FileTimes::new().set_accessed(then).set_modified(then)).expect("set");
        }
    }
}

// Rows: P9.
#[test]
fn what_a_cached_build_is_based_on_was_used_with_it() {
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nCOPY Dockerfile /d/\n", base()));
    env.ok("build -q -o type=cacheonly .");
    age(&env.path("state/content"));
    age(&env.path("state/trees"));
    age(&env.path("state/cache"));
    let before = items(&env, "--filter until=24h").len();
    assert!(before > 3, "manifest, config, layers of the base, the copy: {before}");
    // A dry run uses nothing.
    env.ok("build --dry-run .");
    assert_eq!(items(&env, "--filter until=24h").len(), before);
    let cached = env.ok("build --progress=plain -o type=cacheonly .").stderr;
    assert!(cached.contains("CACHED"), "{cached}");
    // The layer is unpacked: its blob was read by nobody.
    assert_eq!(items(&env, "--filter until=24h").len(), 1);
    // So it is not removed for its age.
    env.write("config.json", "{\"gc\": [{\"keep-duration\": \"24h\"}]}");
    env.ok("--config config.json build -q --no-cache -o type=cacheonly .");
    assert!(env.path("state/collected").exists(), "garbage was collected");
    let again = env.ok("build --progress=plain --pull=never -o type=cacheonly .").stderr;
    assert!(again.contains("CACHED"), "{again}");
}
