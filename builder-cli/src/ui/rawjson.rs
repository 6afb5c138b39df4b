//! Progress for machines: one JSON object a line, in the form of BuildKit's `SolveStatus`
//! (github.com/moby/buildkit, `client/graph.go`; byte strings are base64).

use std::collections::BTreeMap;
use std::time::SystemTime;

use builder_core::progress::{Event, Lines, Outcome, Stream, Warning};
use serde_json::{Map, Value, json};

use super::base64;
use super::state::{State, Task};
use super::units::rfc3339;

/// Events of a build that is over, one after the other.
#[derive(Default)]
pub(crate) struct RawJson {
    state: State,
}

impl RawJson {
    /// The line of an event.
    pub(crate) fn line(&mut self, event: &Event) -> String {
        self.state.apply(event.clone());
        line(event, &self.state).unwrap_or_default()
    }
}

/// One line for an event; `state` has it already.
pub(super) fn line(event: &Event, state: &State) -> Option<String> {
    let digest = |id| state.tasks.get(id).map_or("", |task| &*task.digest);
    let (list, item) = match event {
        Event::Declared { task, .. } | Event::Started { task, .. } | Event::Finished { task, .. } => {
            ("vertexes", vertex(state.tasks.get(task)?, state))
        }
        Event::Output { task, stream, at, bytes } => {
            let stream = if *stream == Stream::Stdout { 1 } else { 2 };
            let log = json!({"vertex": digest(task), "stream": stream, "data": base64::encode(bytes), "timestamp": rfc3339(*at)});
            ("logs", log)
        }
        Event::Status { task, id, current, total, at, finished } => {
            let known = state.tasks.get(task)?.statuses.iter().find(|status| status.id == super::escape::line(id));
            let mut status = Map::new();
            status.insert("id".to_owned(), id.clone().into());
            status.insert("vertex".to_owned(), digest(task).into());
            status.insert("name".to_owned(), id.clone().into());
            if let Some(total) = total {
                status.insert("total".to_owned(), (*total).into());
            }
            status.insert("current".to_owned(), (*current).into());
            status.insert("timestamp".to_owned(), rfc3339(*at).into());
            status.insert("started".to_owned(), rfc3339(known.map_or(*at, |status| status.started)).into());
            if *finished {
                status.insert("completed".to_owned(), rfc3339(*at).into());
            }
            ("statuses", Value::Object(status))
        }
        Event::Warning(found) => ("warnings", warning(found, state)),
    };
    let mut text = serde_json::to_string(&BTreeMap::from([(list, [item])])).ok()?;
    text.push('\n');
    Some(text)
}

/// A warning as BuildKit has it.
pub(super) fn warning(warning: &Warning, state: &State) -> Value {
    let mut object = Map::new();
    if let Some(task) = warning.task.and_then(|task| state.tasks.get(&task)) {
        object.insert("vertex".to_owned(), task.digest.clone().into());
    }
    object.insert("level".to_owned(), 1.into());
    object.insert("short".to_owned(), base64::encode(warning.short.as_bytes()).into());
    if !warning.detail.is_empty() {
        let detail: Vec<_> = warning.detail.iter().map(|line| base64::encode(line.as_bytes())).collect();
        object.insert("detail".to_owned(), detail.into());
    }
    if let Some(url) = &warning.url {
        object.insert("url".to_owned(), url.clone().into());
    }
    if let Some(Lines { source, first, last }) = &warning.place {
        let data = base64::encode(source.text());
        let info = json!({ "filename": source.name(), "data": data, "language": "Dockerfile" });
        object.insert("sourceInfo".to_owned(), info);
        let range = |line: usize| json!({ "start": { "line": line }, "end": { "line": line } });
        object.insert("range".to_owned(), (*first..=*last).map(range).collect());
    }
    Value::Object(object)
}

fn vertex(task: &Task, state: &State) -> Value {
    let time = |at: SystemTime| Value::from(rfc3339(at));
    let mut object = Map::new();
    object.insert("digest".to_owned(), task.digest.clone().into());
    let inputs: Vec<_> = task.inputs.iter().filter_map(|id| Some(state.tasks.get(id)?.digest.clone())).collect();
    if !inputs.is_empty() {
        object.insert("inputs".to_owned(), inputs.into());
    }
    object.insert("name".to_owned(), task.name.clone().into());
    if let Some(started) = task.started.or(task.ended.as_ref().map(|(at, _)| *at)) {
        object.insert("started".to_owned(), time(started));
    }
    if let Some((at, outcome)) = &task.ended {
        object.insert("completed".to_owned(), time(*at));
        match outcome {
            Outcome::Done => {}
            Outcome::Cached => drop(object.insert("cached".to_owned(), true.into())),
            Outcome::Cancelled => drop(object.insert("error".to_owned(), "context canceled".into())),
            Outcome::Failed(message) => drop(object.insert("error".to_owned(), message.clone().into())),
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use builder_core::progress::TaskId;

    use super::*;

    #[test]
    fn lines_have_buildkits_shape() {
        let mut state = State::default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let task = TaskId(0);
        let mut say = |event: Event| {
            state.apply(event.clone());
            line(&event, &state).expect("a line")
        };
        say(Event::Declared { task, name: "n".to_owned(), inputs: Vec::new(), digest: "sha256:1".to_owned() });
        assert_eq!(
            say(Event::Started { task, at }),
            "{\"vertexes\":[{\"digest\":\"sha256:1\",\"name\":\"n\",\"started\":\"1970-01-01T00:00:01.5Z\"}]}\n"
        );
        assert_eq!(
            say(Event::Output { task, stream: Stream::Stderr, at, bytes: b"hi\n".to_vec() }),
            "{\"logs\":[{\"data\":\"aGkK\",\"stream\":2,\"timestamp\":\"1970-01-01T00:00:01.5Z\",\"vertex\":\"sha256:1\"}]}\n"
        );
        let status = say(Event::Status { task, id: "x".to_owned(), current: 1, total: Some(2), at, finished: true });
        assert!(status.contains("\"completed\":\"1970-01-01T00:00:01.5Z\""), "{status}");
        assert!(say(Event::Finished { task, at, outcome: Outcome::Cached }).contains("\"cached\":true"));
        assert!(say(Event::Warning(Warning::new("w"))).contains("\"short\":\"dw==\""));
    }
}
