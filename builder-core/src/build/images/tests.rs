use super::*;
use crate::content::{ImageRecord, LayerRecord, RepoDigest};
use crate::oci::{Descriptor, DiffId, Digest, HistoryEntry, MediaType, Platform};

struct Fixture {
    _dir: tempfile::TempDir,
    content: ContentStore,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let content = ContentStore::open(dir.path()).expect("opens");
        Self { _dir: dir, content }
    }

    /// Stores an image whose config says `name` and that was made in second `created`.
    fn image(&self, name: &str, created: i64, tags: &[&str]) -> ImageId {
        let mut config = ImageConfig { architecture: "amd64".to_owned(), os: "linux".to_owned(), ..Default::default() };
        config.created = Some(jiff::Timestamp::from_second(created).expect("in range").to_string());
        config.config.labels.insert("name".to_owned(), name.to_owned());
        config.config.env = vec!["PATH=/bin".to_owned()];
        let step = |text: &str, empty_layer| HistoryEntry {
            created_by: text.to_owned(),
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer,
            ..Default::default()
        };
        config.history = vec![step("COPY base", false), step("ENV x=y", true), step(name, false)];
        let blobs = ["base", name].map(|text| self.content.put(text.as_bytes()).expect("stored"));
        let layer = |digest: &Digest, size| LayerRecord {
            diff_id: DiffId::new(digest.clone()),
            descriptor: Some(Descriptor::new(MediaType::OCI_LAYER, digest.clone(), size)),
            size,
        };
        let layers = vec![layer(&blobs[0], 4), layer(&blobs[1], 10)];
        config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let id = ImageId::new(self.content.put(&serde_json::to_vec(&config).expect("serialises")).expect("stored"));
        let platform = Platform::new("linux", "amd64", None);
        let record = ImageRecord { id: id.clone(), created: 5, size: 14, platform, layers, manifest: None };
        let database = self.content.database();
        database.put_image(&record).expect("stored");
        for tag in tags {
            database.tag(&tag.parse().expect("a name"), &id).expect("tagged");
        }
        id
    }

    fn digest(&self, repository: &str, image: &ImageId) -> Digest {
        let digest = Digest::sha256(repository.as_bytes());
        let known = RepoDigest { repository: repository.to_owned(), digest: digest.clone(), image: image.clone() };
        self.content.database().put_repo_digest(&known).expect("stored");
        digest
    }

    fn remove(&self, text: &str) -> Vec<String> {
        let removed = remove(&self.content, text, RemoveOptions::default()).expect("removed");
        removed.iter().map(ToString::to_string).collect()
    }

    fn listed(&self, filter: &ListFilter) -> Vec<String> {
        let images = list(&self.content, filter).expect("listed");
        let name = |part: Option<String>| part.unwrap_or_else(|| "<none>".to_owned());
        rows(&images, false).into_iter().map(|row| format!("{}:{}", name(row.repository), name(row.tag))).collect()
    }
}

#[test]
fn images_are_listed_as_docker_lists_them() {
    let store = Fixture::new();
    let old = store.image("old", 10, &["app:1", "r.io/team/app:2"]);
    let new = store.image("new", 20, &[]);
    store.image("newest", 30, &["tool"]);
    store.digest("docker.io/library/pulled", &new);
    let all = ListFilter::default();
    assert_eq!(store.listed(&all), ["tool:latest", "pulled:<none>", "app:1", "r.io/team/app:2"]);
    let one = |filter: ListFilter| store.listed(&filter);
    assert_eq!(one(ListFilter { references: vec!["a*".to_owned()], ..all.clone() }), ["app:1"]);
    assert_eq!(one(ListFilter { references: vec!["*/*/*:2".to_owned()], ..all.clone() }), ["r.io/team/app:2"]);
    assert_eq!(one(ListFilter { dangling: Some(true), ..all.clone() }), ["pulled:<none>"]);
    assert_eq!(one(ListFilter { labels: vec!["name=newest".to_owned()], ..all.clone() }), ["tool:latest"]);
    assert_eq!(one(ListFilter { before: Some("tool".to_owned()), dangling: Some(false), ..all.clone() }).len(), 2);
    assert_eq!(one(ListFilter { since: Some(old.digest().short().to_owned()), ..all.clone() }).len(), 2);
    store.digest("docker.io/library/app", &old);
    let images = list(&store.content, &ListFilter { references: vec!["app".to_owned()], ..all }).expect("listed");
    let with_digests = rows(&images, true);
    assert_eq!(with_digests.len(), 1);
    assert_eq!(with_digests[0].digest, Some(Digest::sha256(b"docker.io/library/app")));
}

#[test]
fn removing_a_name_keeps_the_image_until_its_last_one() {
    let store = Fixture::new();
    let id = store.image("one", 10, &["app:1", "app:2", "r.io/x:1"]);
    let digest = store.digest("docker.io/library/app", &id);
    assert_eq!(store.remove("app:1"), ["Untagged: app:1"]);
    assert_eq!(store.remove("app:2"), ["Untagged: app:2".to_owned(), format!("Untagged: app@{digest}")]);
    let last = store.remove("r.io/x:1");
    assert_eq!(last[..2], ["Untagged: r.io/x:1".to_owned(), format!("Deleted: {id}")]);
    assert_eq!(last.len(), 4, "both layers are gone: {last:?}");
    assert_eq!(store.content.blobs().expect("listed"), []);
    assert!(matches!(find(&store.content, "app:1"), Err(ImageError::NoSuchImage { .. })));
}

#[test]
fn removing_by_id_needs_force_for_several_names_and_keeps_shared_layers() {
    let store = Fixture::new();
    let id = store.image("one", 10, &["app:1", "app:2"]);
    let other = store.image("two", 10, &["tool"]);
    let short = id.digest().short();
    let refused = remove(&store.content, short, RemoveOptions::default()).expect_err("two names");
    assert_eq!(refused.to_string(), format!("cannot remove image `{short}`: it has several names (app:1, app:2)"));
    let removed = remove(&store.content, short, RemoveOptions { force: true }).expect("removed");
    assert_eq!(removed.len(), 4);
    assert_eq!(removed[2], Removed::Deleted(id));
    assert!(matches!(removed[3], Removed::DeletedLayer(_)), "the base layer is still used");
    assert!(store.content.has(&Digest::sha256(b"base")).expect("asks").is_some());
    assert!(store.content.has(&Digest::sha256(b"one")).expect("asks").is_none());
    assert_eq!(store.remove(other.digest().hex())[0], "Untagged: tool:latest");
}

#[test]
fn a_running_build_keeps_the_blobs_of_a_removed_image() {
    let store = Fixture::new();
    store.image("one", 10, &["app"]);
    let lease = store.content.lease(&crate::cancel::CancelToken::new()).expect("lease");
    store.remove("app");
    assert!(store.content.has(&Digest::sha256(b"base")).expect("asks").is_some());
    drop(lease);
}

#[test]
fn tags_and_history_and_inspection() {
    let store = Fixture::new();
    let id = store.image("one", 10, &["app"]);
    assert_eq!(tag(&store.content, "app", &"r.io/b:7".parse().expect("a name")).expect("tagged"), id);
    let pinned: Reference = format!("app@{}", Digest::sha256(b"")).parse().expect("a name");
    assert!(matches!(tag(&store.content, "app", &pinned), Err(ImageError::DigestInName { .. })));
    let digest = store.digest("r.io/b", &id);

    let rows = history(&store.content, "app").expect("listed");
    let shown: Vec<_> = rows.iter().map(|row| (row.created_by.as_str(), row.size, row.id.is_some())).collect();
    assert_eq!(shown, [("one", 10, true), ("ENV x=y", 0, false), ("COPY base", 4, false)]);
    assert_eq!(rows[0].tags, ["app:latest", "r.io/b:7"]);

    let json = serde_json::to_value(inspect(&store.content, "r.io/b:7").expect("inspected")).expect("serialises");
    assert_eq!(json["RepoTags"], serde_json::json!(["app:latest", "r.io/b:7"]));
    assert_eq!(json["RepoDigests"], serde_json::json!([format!("r.io/b@{digest}")]));
    assert_eq!(json["Created"], "1970-01-01T00:00:10Z");
    assert_eq!(json["Config"]["Env"], serde_json::json!(["PATH=/bin"]));
    assert_eq!(json["Config"]["Cmd"], serde_json::Value::Null);
    assert_eq!(json["Config"]["Labels"]["name"], "one");
    assert_eq!(json["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["Size"], 14);
    assert_eq!(json["Comment"], "buildkit.dockerfile.v0");
}
