//! One document of a file: what is in it, and what becomes of it.

use serde_json::Value;

use super::kinds::{Site, sites};
use super::report::{Report, Verdict};
use super::text;
use super::tree::{Node, parse};
use crate::kubernetes::injector::{self, Edit, Outcome, Refusal, Settings};

/// Edits every pod of the document number `index`; the text is all of the file's.
pub(super) fn edit(
    text: &str,
    index: usize,
    root: &Node,
    settings: &Settings,
    reports: &mut Vec<Report>,
) -> Option<String> {
    let document = root.value();
    let mut edited: Option<String> = None;
    for object in sites(&document) {
        let mut verdicts = Vec::new();
        for site in object.sites {
            let verdict = match site {
                Site::Refuse(refusal) => Verdict::Refused(refusal),
                Site::Alone(why) => Verdict::Skipped(why),
                Site::Pod { pod, asked } => match injector::inject(&pod, settings) {
                    Outcome::Inject(injection) => {
                        let before = edited.as_deref().unwrap_or(text);
                        match rewritten(before, index, &injection.edits) {
                            Ok(after) => {
                                edited = Some(after);
                                Verdict::Injected(injection)
                            }
                            Err(why) => Verdict::Refused(Refusal::Text(why)),
                        }
                    }
                    Outcome::Already { same: true } => Verdict::Skipped("it is injected already"),
                    Outcome::Already { same: false } => Verdict::Skipped(
                        "it is injected already, by another version or with other settings: inject what it was made from",
                    ),
                    Outcome::OptedOut => {
                        Verdict::Skipped("its label tokenglass.dev/inject is \"false\"")
                    }
                    Outcome::Refuse(Refusal::NoServer | Refusal::Worker) if !asked => continue,
                    Outcome::Refuse(refusal) => Verdict::Refused(refusal),
                },
            };
            verdicts.push(verdict);
        }
        let named = verdicts.into_iter().map(|verdict| Report {
            object: object.name.clone(),
            verdict,
        });
        reports.extend(named);
    }
    edited
}

/// The text with the edits made, if that changes nothing else.
fn rewritten(before: &str, index: usize, edits: &[Edit]) -> Result<String, String> {
    let values = |text: &str| -> Result<Vec<Option<Node>>, String> {
        parse(text).map_err(|error| error.to_string())
    };
    let mut old = values(before)?;
    let root = old
        .get(index)
        .and_then(Option::as_ref)
        .ok_or("no document")?;
    let after = text::edit(before, root, edits)?;
    let expected = injector::apply(edits, &root.value()).map_err(|error| error.to_string())?;
    let new = values(&after).map_err(|error| format!("it would not be YAML any more ({error})"))?;
    let all = |nodes: Vec<Option<Node>>| -> Vec<Option<Value>> {
        nodes
            .iter()
            .map(|node| node.as_ref().map(Node::value))
            .collect()
    };
    let new = all(new);
    let same_here = new.get(index).and_then(Option::as_ref) == Some(&expected);
    if let Some(place) = old.get_mut(index) {
        *place = None;
    }
    let mut rest = new;
    if let Some(place) = rest.get_mut(index) {
        *place = None;
    }
    if same_here && rest == all(old) {
        Ok(after)
    } else {
        Err(
            "the edit would change more than it should (an anchor that is used elsewhere?)"
                .to_owned(),
        )
    }
}
