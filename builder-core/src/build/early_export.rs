//! Layers go to the caches of `--cache-to` while later steps still run.
//!
//! A thread takes each step that is known, packs its layer and sends it. The export at the end finds what was sent and
//! sends the rest; whatever goes wrong here is left to it, so nothing is reported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::remote_cache::{RemoteCache, compression};
use super::solve::Session;
use crate::cancel::CancelToken;
use crate::export::ExportContext;
use crate::layer::Files;
use crate::progress::{Silent, TaskId};
use crate::remote::{
    Backends, CacheDestination, CacheMode, CachePlace, EarlyExport, Exporter, LayerToExport, RemoteError,
};
use crate::tree::TreeId;

/// How long nothing may move after the build is done until what is on its way is left to the export at the end.
const STALLED: Duration = Duration::from_secs(20);

/// Does `work`, which solves and exports, and sends the layers of its steps meanwhile.
pub(super) fn while_building<T>(session: &Session<'_>, work: impl FnOnce() -> T) -> T {
    let destinations: Vec<&CacheDestination> = session.request.cache_to.iter().filter(|to| is_worth_it(to)).collect();
    let Some(remote) = session.remote.as_ref().filter(|_| !destinations.is_empty()) else { return work() };
    let (cancel, moved) = (session.cancel.child(), Arc::new(AtomicU64::new(0)));
    std::thread::scope(|scope| {
        let steps = remote.announce_steps();
        let (done, sent) = channel::<()>();
        let (destinations, cancel, moved) = (&destinations, &cancel, &moved);
        scope.spawn(move || {
            send(session, remote, destinations, steps, cancel, moved);
            drop(done);
        });
        let result = work();
        remote.stop_announcing();
        // A layer that is on its way gets there as long as something moves.
        let limits = destinations.iter().flat_map(|to| to.timeout.into_iter().chain(to.stall));
        let patience = limits.min().map_or(STALLED, |limit| limit.min(STALLED));
        let mut before = moved.load(Ordering::Relaxed);
        while sent.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            let now = moved.load(Ordering::Relaxed);
            if now == before {
                cancel.cancel();
                break;
            }
            before = now;
        }
        result
    })
}

/// A directory gets its layers quickly enough at the end; with `mode=min` it is not known yet which ones.
fn is_worth_it(destination: &CacheDestination) -> bool {
    destination.mode == CacheMode::Max && !matches!(destination.place, CachePlace::Local { .. })
}

fn send(
    session: &Session<'_>,
    remote: &RemoteCache,
    destinations: &[&CacheDestination],
    steps: Receiver<TreeId>,
    cancel: &CancelToken,
    moved: &Arc<AtomicU64>,
) {
    let engine = session.engine;
    let context = ExportContext { source_date_epoch: None, ..engine.context(&Silent, TaskId(0), cancel, None) };
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
            open.get_or_insert_with(|| destinations.iter().filter_map(|to| exporter.early(to, moved).ok()).collect());
        let files: Arc<dyn Files + Send + Sync> = Arc::new(snapshot);
        let layer = LayerToExport { tree, files: Box::new(move || Ok::<_, RemoteError>(Arc::clone(&files))) };
        // A place that fails once is left to the export at the end, which says why.
        exports.retain(|export| export.send(&layer).is_ok());
        if exports.is_empty() {
            return;
        }
    }
}
