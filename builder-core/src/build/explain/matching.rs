//! Which step of an earlier build a step is to be compared with.

use crate::history::{Build, Step};

/// The step of an earlier build that is the same: of the same stage and kind, with the same instruction. Of the steps whose
/// instruction is in one of the two builds only, those in the same order correspond if there are equally many; else the one
/// at the same place.
pub(super) fn matching<'a>(build: &Build, step: &Step, earlier: &'a Build) -> Option<&'a Step> {
    let peers = |step: &Step, other: &Step| {
        (&step.stage, &step.op, step.platform()) == (&other.stage, &other.op, other.platform())
    };
    let same = earlier.steps.iter().filter(|other| peers(step, other) && other.instruction() == step.instruction());
    if let Some(nearest) = same.min_by_key(|other| other.position.abs_diff(step.position)) {
        return Some(nearest);
    }
    let (gone, new) = (changed(earlier, build, step, &peers), changed(build, earlier, step, &peers));
    if gone.len() == new.len() {
        let at = new.iter().position(|new| new.number == step.number)?;
        return gone.get(at).copied();
    }
    gone.into_iter().find(|gone| gone.position == step.position)
}

/// The peers of `step` in `one` whose instruction `other` does not have.
fn changed<'a>(one: &'a Build, other: &Build, step: &Step, peers: &dyn Fn(&Step, &Step) -> bool) -> Vec<&'a Step> {
    let is_peer = |found: &&Step| peers(step, found);
    let known: Vec<&str> = other.steps.iter().filter(is_peer).map(Step::instruction).collect();
    one.steps.iter().filter(is_peer).filter(|found| !known.contains(&found.instruction())).collect()
}

/// The steps that a step starts from, the first one first.
pub(in crate::build) fn chain<'a>(build: &'a Build, step: &Step) -> Vec<&'a Step> {
    let mut chain = Vec::new();
    let mut root = step.root;
    while let Some(found) = root.and_then(|number| build.step(number)) {
        // Inputs have smaller numbers; a file that says otherwise must not make this endless.
        root = found.root.filter(|number| *number < found.number);
        chain.push(found);
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{BuildId, Inputs, Status};

    fn build(steps: &[&str]) -> Build {
        let step = |(number, name): (usize, &&str)| Step {
            number,
            position: number,
            name: format!("[{}/9] {name}", number + 1),
            op: name.split(' ').next().unwrap_or_default().to_lowercase(),
            ..Step::default()
        };
        Build {
            id: BuildId::new(std::time::UNIX_EPOCH, 0),
            started: 0,
            inputs: Inputs::default(),
            steps: steps.iter().enumerate().map(step).collect(),
            end: None,
            status: Status::Completed,
        }
    }

    fn check(now: &[&str], earlier: &[&str], expected: &[Option<usize>]) {
        let (now, earlier) = (build(now), build(earlier));
        let found = now.steps.iter().map(|step| matching(&now, step, &earlier).map(|found| found.number));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn steps_are_found_again_by_what_they_say_and_else_by_their_place() {
        check(&["RUN a", "RUN b"], &["RUN a", "RUN c"], &[Some(0), Some(1)]);
        check(&["RUN new", "RUN a", "RUN b"], &["RUN a", "RUN b"], &[None, Some(0), Some(1)]);
        check(&["RUN a"], &["COPY a"], &[None]);
        check(&["RUN a", "RUN b", "RUN a"], &["RUN a", "RUN b", "RUN a"], &[Some(0), Some(1), Some(2)]);
        // One was removed, and the one after it is another now.
        check(&["RUN b2", "RUN c"], &["COPY a", "RUN b", "RUN c"], &[Some(1), Some(2)]);
        check(&["RUN a2", "RUN b2", "RUN c"], &["RUN a", "RUN b", "RUN c"], &[Some(0), Some(1), Some(2)]);
        check(
            &["RUN a", "RUN b2", "RUN new", "RUN c"],
            &["RUN a", "RUN b", "RUN c"],
            &[Some(0), Some(1), None, Some(2)],
        );
    }
}
