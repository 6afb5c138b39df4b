//! What is left when all stages are done: the image's config and history.

use super::Lowering;
use crate::graph::Target;
use crate::graph::stages::Base;

impl Lowering<'_> {
    /// The image that the graph ends in.
    pub(super) fn target(&mut self) -> Target {
        let index = self.stages.target;
        let Some(mut state) = self.states.get_mut(index).and_then(Option::take) else { return Target::default() };
        for (name, value) in &self.options.edits.env {
            state.set_env(name, value);
        }
        let mut config = state.config;
        let unset = &self.options.edits.unset_env;
        config.config.env.retain(|entry| !unset.iter().any(|name| entry.split('=').next() == Some(name)));
        config.config.labels.extend(self.options.labels.clone());
        if self.options.explicit_platform {
            let wanted = &self.options.platform;
            let same = wanted.os == config.os && wanted.architecture == config.architecture;
            config.os.clone_from(&wanted.os);
            config.architecture.clone_from(&wanted.architecture);
            if wanted.variant.is_some() || !same {
                config.variant.clone_from(&wanted.variant);
            }
            if wanted.os_version.is_some() || !same {
                config.os_version.clone_from(&wanted.os_version);
            }
            if !wanted.os_features.is_empty() {
                config.os_features.clone_from(&wanted.os_features);
            }
        }
        let normal = config.platform();
        config.architecture = normal.architecture;
        config.os = normal.os;
        config.variant = normal.variant;

        let mut chain = vec![index];
        while let Base::Stage(base) = self.stages.list[chain[chain.len() - 1]].base {
            chain.push(base);
        }
        let base_history = match &self.stages.list[chain[chain.len() - 1]].base {
            Base::Image(request) => self.images.get(request).map(|image| image.config.history.clone()),
            _ => None,
        };
        // The target needs each of them once, so they can be taken.
        let history = chain.iter().rev().flat_map(|stage| std::mem::take(&mut self.steps[*stage])).collect();
        Target { root: self.roots[index], config, base_history: base_history.unwrap_or_default(), history }
    }
}
