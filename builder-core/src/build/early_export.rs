//! Layers go to the caches of `--cache-to` while later steps still run.
//!
//! A thread takes each step that is known, packs its layer and sends it. The export at the end finds what was sent and
//! sends the rest; whatever goes wrong here is left to it, so nothing is reported.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::remote_cache::{RemoteCache, compression};
use super::solve::Session;
use crate::export::ExportContext;
use crate::layer::Files;
use crate::progress::{Silent, TaskId};
use crate::remote::{
    Backends, CacheDestination, CacheMode, CachePlace, EarlyExport, Exporter, LayerToExport, RemoteError,
};
use crate::tree::TreeId;

/// Does `work`, which solves and exports, and sends the layers of its steps meanwhile.
pub(super) fn while_building<T>(session: &Session<'_>, work: impl FnOnce() -> T) -> T {
    let destinations: Vec<&CacheDestination> = session.request.cache_to.iter().filter(|to| is_worth_it(to)).collect();
    let Some(remote) = session.remote.as_ref().filter(|_| !destinations.is_empty()) else { return work() };
    std::thread::scope(|scope| {
        let steps = remote.announce_steps();
        scope.spawn(|| send(session, remote, &destinations, steps));
        let result = work();
        remote.stop_announcing();
        result
    })
}

/// A directory gets its layers quickly enough at the end; with `mode=min` it is not known yet which ones.
fn is_worth_it(destination: &CacheDestination) -> bool {
    destination.mode == CacheMode::Max && !matches!(destination.place, CachePlace::Local { .. })
}

fn send(session: &Session<'_>, remote: &RemoteCache, destinations: &[&CacheDestination], steps: Receiver<TreeId>) {
    let engine = session.engine;
    let context =
        ExportContext { source_date_epoch: None, ..engine.context(&Silent, TaskId(0), &session.cancel, None) };
    let compression = compression(session.request);
    let exporter = Exporter { context: &context, backends: Backends { registry: &engine.registry }, compression };
    let mut open: Option<Vec<EarlyExport<'_>>> = None;
    for id in steps {
        if !remote.is_announcing() {
            return;
        }
        let (Ok(Some(tree)), Ok(Some(snapshot))) = (engine.trees.get(&id), engine.snapshots.get(&id)) else { continue };
        if tree.is_empty() {
            continue;
        }
        let exports =
            open.get_or_insert_with(|| destinations.iter().filter_map(|to| exporter.early(to).ok()).collect());
        let files: Arc<dyn Files + Send + Sync> = Arc::new(snapshot);
        let layer = LayerToExport { tree, files: Box::new(move || Ok::<_, RemoteError>(Arc::clone(&files))) };
        // A place that fails once is left to the export at the end, which says why.
        exports.retain(|export| export.send(&layer).is_ok());
        if exports.is_empty() {
            return;
        }
    }
}
