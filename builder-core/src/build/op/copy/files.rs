//! [`PlanFiles`]: the bytes of a planned copy, so that its layer can be packed from where they are.

use std::fs::File;
use std::io::{self, Seek, Write};

use super::{CopyPlan, FileSource};
use crate::context::BuildContext;
use crate::layer::Files;
use crate::tree::Entry;

/// Where the files of one source are.
#[derive(Clone, Default)]
pub enum Origin<'a> {
    /// In a context.
    Context(&'a BuildContext),
    /// In the snapshots of a stack, lowest first.
    Layers(Vec<&'a dyn Files>),
    /// In the snapshot of an unpacked archive.
    Unpacked(&'a dyn Files),
    /// In the plan itself.
    #[default]
    Loose,
}

/// Opens the files of a plan.
#[derive(Clone)]
pub struct PlanFiles<'a> {
    plan: &'a CopyPlan,
    origins: Vec<Origin<'a>>,
}

impl<'a> PlanFiles<'a> {
    /// `origins` has one for each source that was given to [`plan`](super::plan).
    pub fn new(plan: &'a CopyPlan, origins: Vec<Origin<'a>>) -> Self {
        Self { plan, origins }
    }
}

impl Files for PlanFiles<'_> {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("`{}` has no bytes", entry.path));
        let origin = |source: &usize| self.origins.get(*source).ok_or_else(missing);
        match self.plan.files.get(&entry.path).ok_or_else(missing)? {
            FileSource::Context { source, entry } => match origin(source)? {
                Origin::Context(context) => context.open_file(entry),
                _ => Err(missing()),
            },
            FileSource::Layer { source, layer, path } => match origin(source)? {
                Origin::Layers(layers) => {
                    let files = layers.get(*layer).ok_or_else(missing)?;
                    files.open(&Entry { path: path.clone(), ..entry.clone() })
                }
                _ => Err(missing()),
            },
            FileSource::Unpacked { source } => match origin(source)? {
                Origin::Unpacked(files) => files.open(entry),
                _ => Err(missing()),
            },
            FileSource::Host(path) => File::open(path),
            FileSource::Inline(bytes) => in_memory(bytes),
        }
    }
}

/// A file that holds `bytes` (`memfd_create(2)`).
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("inline", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

impl std::fmt::Debug for PlanFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanFiles").field("plan", self.plan).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Context(_) => "Context",
            Self::Layers(_) => "Layers",
            Self::Unpacked(_) => "Unpacked",
            Self::Loose => "Loose",
        })
    }
}
