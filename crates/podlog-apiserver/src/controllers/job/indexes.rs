//! Jobs whose pods have numbers: each number has to succeed once.

use std::collections::BTreeSet;

use podlog_api::Object;
use serde_json::json;

use crate::controllers::objects::*;

/// Label and annotation with a pod's number.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Whether the job's pods have numbers.
pub(super) fn is_indexed(job: &Object) -> bool {
    job.text("/spec/completionMode") == "Indexed"
}

/// The number of a pod.
pub(super) fn index_of(pod: &Object) -> Option<i64> {
    pod.annotation(INDEX).and_then(|text| text.parse().ok())
}

/// The numbers that have succeeded: those in the status, and those of pods that have since.
pub(super) fn completed(job: &Object, pods: &[Object]) -> BTreeSet<i64> {
    let completions = job.integer("/spec/completions").unwrap_or(0);
    let mut completed = parse(job.text("/status/completedIndexes"), completions);
    let succeeded = pods.iter().filter(|pod| pod.text("/status/phase") == "Succeeded");
    completed.extend(succeeded.filter_map(index_of).filter(|index| (0..completions).contains(index)));
    completed
}

/// Writes the numbers that have succeeded into the status, as `0-2,4`.
pub(super) fn write(job: &mut Object, completed: &BTreeSet<i64>) {
    let status = job.map_mut("status");
    set_count(status, "succeeded", i64::try_from(completed.len()).unwrap_or(i64::MAX));
    if completed.is_empty() {
        status.remove("completedIndexes");
    } else {
        status.insert("completedIndexes".into(), json!(format(completed)));
    }
}

/// The numbers that still need a pod: neither done nor under way.
pub(super) fn missing(job: &Object, active: &[&Object], pods: &[Object]) -> Vec<i64> {
    let completed = completed(job, pods);
    let under_way: BTreeSet<i64> = active.iter().filter_map(|pod| index_of(pod)).collect();
    let completions = job.integer("/spec/completions").unwrap_or(0);
    (0..completions).filter(|index| !completed.contains(index) && !under_way.contains(index)).collect()
}

fn parse(text: &str, completions: i64) -> BTreeSet<i64> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// Runs of three and more as a range, as upstream writes them.
fn format(indexes: &BTreeSet<i64>) -> String {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let texts = runs.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_and_written() {
        let rows = [
            ("", ""),
            ("0", "0"),
            ("0,1", "0,1"),
            ("0-2,4", "0-2,4"),
            ("0,1,2,3,7,8", "0-3,7,8"),
            ("0-99", "0-9"),
            ("x", ""),
        ];
        for (text, expected) in rows {
            assert_eq!(format(&parse(text, 10)), expected, "{text}");
        }
    }
}
