//! [`assemble`]: the config of an image, with its history and its times.

use jiff::Timestamp;

use super::ImageLayer;
use crate::oci::{DiffId, Digest, HistoryEntry, ImageConfig, ImageId, Reference};

/// Everything that is known of an image before its diff ids are.
#[derive(Debug, Clone, Default)]
pub struct UnassembledImage {
    /// Its config, complete but for `created`, `rootfs`, `history` and `cache`, which are ignored.
    pub config: ImageConfig,
    /// History of the base image, as it was.
    pub base_history: Vec<HistoryEntry>,
    /// One entry an instruction since the base, in order.
    pub steps: Vec<ImageStep>,
    /// Its layers, lowest first: those of the base, then one for each step that has one.
    pub layers: Vec<ImageLayer>,
    /// How many of the lowest layers belong to the base image; their times are never rewritten.
    pub base_layers: usize,
    /// The config gets no history.
    pub omit_history: bool,
    /// Name and manifest digest of the base image, for `org.opencontainers.image.base.*`.
    pub base: Option<(Reference, Digest)>,
}

/// An instruction in the history of an image.
#[derive(Debug, Clone, Default)]
pub struct ImageStep {
    /// Its entry; `created` and `empty_layer` are ignored.
    pub entry: HistoryEntry,
    /// Whether it has a layer. One that changed nothing is still a layer.
    pub layer: bool,
    /// When the step ran; for a cached one, when it ran first. `None` for what only changes the config.
    pub created: Option<Timestamp>,
}

/// An image by its config.
#[derive(Debug, Clone)]
pub struct Image {
    /// The config.
    pub config: ImageConfig,
    /// The config as JSON: what [`Image::id`] is the digest of.
    pub config_bytes: Vec<u8>,
    /// Its identity.
    pub id: ImageId,
}

/// Writes the config of an image whose layers have these diff ids, lowest first.
///
/// Nothing depends on the time of the call, so that a build in which every step is cached gives the same image: an
/// image is as old as its youngest step. With `epoch` (`SOURCE_DATE_EPOCH`) every step and the image are exactly so
/// old, whenever they were made. A step without a time gets that of the first step after the base that has one, or
/// of the step before it. These are BuildKit's rules.
///
/// `cache` is the inline cache, which is not there if it is not wanted.
///
/// # Panics
/// If there are not as many diff ids as layers.
pub fn assemble(
    image: &UnassembledImage,
    diff_ids: Vec<DiffId>,
    epoch: Option<Timestamp>,
    cache: Option<String>,
) -> Image {
    assert_eq!(diff_ids.len(), image.layers.len(), "each layer has one diff id");
    let mut history = base_history(&image.base_history, image.base_layers);
    history.extend(image.steps.iter().map(|step| HistoryEntry {
        created: epoch.or(step.created).map(|created| created.to_string()),
        empty_layer: !step.layer,
        ..step.entry.clone()
    }));
    fill_in_times(&mut history);
    let youngest = image.steps.iter().filter_map(|step| step.created).max().map(|time| time.to_string());
    let mut config = image.config.clone();
    config.created = match epoch {
        Some(epoch) => Some(epoch.to_string()),
        None => youngest.or_else(|| history.iter().rev().find_map(|entry| entry.created.clone())),
    };
    config.rootfs.diff_ids = diff_ids;
    config.cache = cache;
    config.history = if image.omit_history { Vec::new() } else { history };
    let config_bytes = serde_json::to_vec(&config).expect("a config has string keys only");
    let id = ImageId::new(Digest::sha256(&config_bytes));
    Image { config, config_bytes, id }
}

/// The history of the base with as many layers in it as the base has.
///
/// Some tools write none at all, or too much; readers pair entries and layers by counting.
fn base_history(written: &[HistoryEntry], layers: usize) -> Vec<HistoryEntry> {
    let mut history = written.to_vec();
    let mut counted = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        entry.empty_layer = counted == layers;
        counted += usize::from(!entry.empty_layer);
    }
    let missing = HistoryEntry { comment: "buildkit.exporter.image.v0".to_owned(), ..HistoryEntry::default() };
    history.extend(std::iter::repeat_n(missing, layers - counted));
    history
}

/// Gives every entry a time, as far as any has one.
fn fill_in_times(history: &mut [HistoryEntry]) {
    let first_without = history.iter().position(|entry| entry.created.is_none()).unwrap_or(history.len());
    let (before, after) = history.split_at(first_without);
    let next = after.iter().find_map(|entry| entry.created.clone());
    let mut time = next.or_else(|| before.last().and_then(|entry| entry.created.clone()));
    for entry in &mut history[first_without..] {
        match &entry.created {
            Some(created) => time = Some(created.clone()),
            None => entry.created.clone_from(&time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::LayerSource;
    use crate::oci::{Descriptor, MediaType};

    fn entry(text: &str) -> HistoryEntry {
        // `name`, `name-` for an entry without a layer, `name@5` for one that was made in second 5.
        let (text, created) = match text.split_once('@') {
            Some((text, seconds)) => (text, Some(at(seconds.parse().expect("seconds")).to_string())),
            None => (text, None),
        };
        let (name, empty_layer) = text.strip_suffix('-').map_or((text, false), |name| (name, true));
        HistoryEntry { created, created_by: name.to_owned(), empty_layer, ..HistoryEntry::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    fn layer(text: &str) -> ImageLayer {
        let diff_id = DiffId::new(Digest::sha256(text.as_bytes()));
        let descriptor = Some(Descriptor::of(MediaType::OCI_LAYER, text.as_bytes()));
        ImageLayer { diff_id: Some(diff_id), source: LayerSource::Stored { descriptor, origin: None } }
    }

    fn image(base_layers: usize, base: &[&str], steps: &[&str]) -> UnassembledImage {
        let steps: Vec<ImageStep> = steps
            .iter()
            .map(|text| {
                let entry = entry(text);
                let created = entry.created.as_ref().map(|text| text.parse().expect("a time"));
                ImageStep { layer: !entry.empty_layer, created, entry: HistoryEntry { created: None, ..entry } }
            })
            .collect();
        let count = base_layers + steps.iter().filter(|step| step.layer).count();
        UnassembledImage {
            base_history: base.iter().map(|text| entry(text)).collect(),
            steps,
            layers: (0..count).map(|number| layer(&number.to_string())).collect(),
            base_layers,
            ..UnassembledImage::default()
        }
    }

    fn assembled(image: &UnassembledImage, epoch: Option<i64>) -> Image {
        let diff_ids = image.layers.iter().map(|layer| layer.diff_id.clone().expect("known")).collect();
        assemble(image, diff_ids, epoch.map(at), None)
    }

    fn check(image: &UnassembledImage, epoch: Option<i64>, expected: &[&str], created: Option<i64>) {
        let made = assembled(image, epoch).config;
        let expected: Vec<HistoryEntry> = expected.iter().map(|text| entry(text)).collect();
        let simple = |entry: &HistoryEntry| HistoryEntry { comment: String::new(), ..entry.clone() };
        assert_eq!(made.history.iter().map(simple).collect::<Vec<_>>(), expected);
        assert_eq!(made.created, created.map(|seconds| at(seconds).to_string()));
    }

    #[test]
    fn entries_without_a_time_get_that_of_the_first_new_layer_or_the_one_before() {
        let one = image(1, &["base@1", "cmd-@2"], &["env-", "run@10", "label-", "run2@9", "user-"]);
        let expected = ["base@1", "cmd-@2", "env-@10", "run@10", "label-@10", "run2@9", "user-@9"];
        check(&one, None, &expected, Some(10));
        check(&image(1, &["base@1"], &["env-"]), None, &["base@1", "env-@1"], Some(1));
        check(&image(0, &[], &["env-"]), None, &["env-"], None);
    }

    #[test]
    fn an_epoch_is_the_time_of_every_new_entry_and_of_the_image() {
        let one = image(1, &["base@50"], &["env-", "run@10", "run2@3"]);
        check(&one, Some(5), &["base@50", "env-@5", "run@5", "run2@5"], Some(5));
    }

    #[test]
    fn history_and_layers_of_a_base_are_made_to_agree() {
        check(&image(1, &["a@1", "b@2"], &["run@3"]), None, &["a@1", "b-@2", "run@3"], Some(3));
        check(&image(2, &["a@1"], &["run@3"]), None, &["a@1", "@3", "run@3"], Some(3));
        check(&image(1, &[], &[]), None, &[""], None);
    }

    #[test]
    fn the_same_image_has_the_same_id_and_foreign_readers_accept_it() {
        let one = image(1, &["base@1"], &["env-", "run@10"]);
        let made = assembled(&one, None);
        assert_eq!(made.id, assembled(&one, None).id);
        assert_ne!(made.id, assembled(&one, Some(4)).id);
        let foreign = oci_spec::image::ImageConfiguration::from_reader(&made.config_bytes[..]).expect("readable");
        assert_eq!(foreign.rootfs().diff_ids().len(), 2);
        assert_eq!(foreign.created().as_deref(), Some("1970-01-01T00:00:10Z"));
    }
}
