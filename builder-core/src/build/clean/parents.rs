//! [`Engine::find_parents`]: what lies right below each layer.

use std::collections::{BTreeSet, HashMap};

use super::super::engine::Engine;
use super::super::images;
use super::CacheItem;
use super::bases::image_of;
use crate::content::ContentError;
use crate::history::{Build, HistoryError, Step};
use crate::oci::Digest;
use crate::tree::{Tree, TreeId};

impl Engine {
    /// Finds out what lies right below each layer: in the images of the store, and in the builds of the history. As a
    /// layer can be part of several, it can have several parents. Layers without any content count as not there.
    ///
    /// A snapshot that is kept as what differs from another one has that as its last parent.
    ///
    /// # Errors
    /// [`HistoryError`] if the history cannot be read. An image that cannot be read has no layers.
    pub fn find_parents(&self, items: &mut [CacheItem]) -> Result<(), HistoryError> {
        let mut stacks = Stacks { engine: self, of_images: HashMap::new(), below: HashMap::new() };
        for image in self.content.database().images().unwrap_or_default() {
            stacks.of_image(image.id.digest());
        }
        for build in self.history.builds_newest_first()? {
            for step in &build.steps {
                stacks.note(&build, step);
            }
        }
        for item in items {
            let below = item.tree().and_then(|tree| stacks.below.get(&tree));
            item.parents = below.into_iter().flatten().chain(&item.base).map(ToString::to_string).collect();
            // What differs from the layer below is listed once.
            let mut seen = BTreeSet::new();
            item.parents.retain(|parent| seen.insert(parent.clone()));
        }
        Ok(())
    }

    /// The layers of an image, lowest first, as far as their trees are known.
    fn stack_of(&self, image: &Digest) -> Result<Vec<TreeId>, ContentError> {
        let database = self.content.database();
        let diff_ids = self.parts_of(image)?.diff_ids;
        let empty = Tree::empty().id();
        let mut stack = Vec::new();
        for names in images::layer_names(&diff_ids) {
            let known = names.iter().find_map(|name| database.layer_tree(name).transpose());
            stack.extend(known.transpose()?.map(TreeId::new).filter(|tree| *tree != empty));
        }
        Ok(stack)
    }
}

/// What was found so far.
struct Stacks<'a> {
    engine: &'a Engine,
    /// The topmost layer of each image.
    of_images: HashMap<Digest, Option<TreeId>>,
    below: HashMap<TreeId, BTreeSet<TreeId>>,
}

impl Stacks<'_> {
    /// Notes the layers of an image; gives the topmost one.
    fn of_image(&mut self, image: &Digest) -> Option<TreeId> {
        if let Some(known) = self.of_images.get(image) {
            return *known;
        }
        let stack = self.engine.stack_of(image).unwrap_or_default();
        for pair in stack.windows(2) {
            self.below.entry(pair[1]).or_default().insert(pair[0]);
        }
        self.of_images.insert(image.clone(), stack.last().copied());
        stack.last().copied()
    }

    /// Notes what a step of a build was put on.
    fn note(&mut self, build: &Build, step: &Step) {
        let Some(tree) = layer(step) else { return };
        let mut above = step;
        // Inputs have smaller numbers; a file that says otherwise must not make this endless.
        while let Some(root) = above.root.filter(|root| *root < above.number).and_then(|root| build.step(root)) {
            let parent =
                if root.image.is_some() { image_of(root).and_then(|image| self.of_image(&image)) } else { layer(root) };
            if let Some(parent) = parent {
                self.below.entry(tree).or_default().insert(parent);
                return;
            }
            above = root;
        }
    }
}

/// The layer that a step gave, unless there is nothing in it.
fn layer(step: &Step) -> Option<TreeId> {
    step.tree.filter(|_| step.result != Some(Tree::empty().semantic()))
}
