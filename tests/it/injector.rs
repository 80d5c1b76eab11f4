//! The sidecar injector against its golden pods: offline, as JSON Patch, twice.
//!
//! Each folder of tests/injector has `in.yaml` and what comes of it: `out.yaml`, if anything is injected, and `report.txt`,
//! what `tokenglass inject` says. `TGTEST_BLESS=1` writes them anew; what changes is then to be read.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenglass::kubernetes::injector::{self, Outcome, Pod, Settings};
use tokenglass::kubernetes::manifest::{Verdict, rewrite, values};

pub fn folders() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injector");
    let mut folders: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

fn report(text: &str) -> (String, String) {
    let done = rewrite(text, &Settings::default()).unwrap();
    let lines: Vec<_> = done
        .reports
        .iter()
        .map(|report| format!("{report}\n"))
        .collect();
    (done.text, lines.concat())
}

#[test]
fn golden_pods() {
    let bless = std::env::var_os("TGTEST_BLESS").is_some();
    let folders = folders();
    assert!(folders.len() >= 60, "{}", folders.len());
    let mut wrong = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let before = fs::read_to_string(folder.join("in.yaml")).unwrap();
        let (after, said) = report(&before);
        // The stamp has our version, which is no change of the pod.
        let after_stable = stable(&after);
        let (out, text) = (folder.join("out.yaml"), folder.join("report.txt"));
        if bless {
            fs::write(text, &said).unwrap();
            if after == before {
                let _gone = fs::remove_file(out);
            } else {
                fs::write(out, &after_stable).unwrap();
            }
            continue;
        }
        let golden = fs::read_to_string(out).unwrap_or_else(|_| before.clone());
        if golden != after_stable || fs::read_to_string(text).unwrap_or_default() != said {
            wrong.push(format!("{name}:\n{said}\n{after}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

/// Without what changes from version to version.
pub fn stable(text: &str) -> String {
    let hash = regex::Regex::new(r#"(\\?"hash\\?":\\?")[0-9a-f]{12}"#).unwrap();
    let text = hash.replace_all(text, "${1}HASH");
    let version = env!("CARGO_PKG_VERSION");
    text.replace(&format!("tokenglass:{version}"), "tokenglass:VERSION")
        .replace(
            &format!(r#"\"version\":\"{version}\""#),
            r#"\"version\":\"VERSION\""#,
        )
}

#[test]
fn twice_is_once() {
    for folder in folders() {
        let before = fs::read_to_string(folder.join("in.yaml")).unwrap();
        let once = rewrite(&before, &Settings::default()).unwrap();
        let twice = rewrite(&once.text, &Settings::default()).unwrap();
        assert_eq!(once.text, twice.text, "{}", folder.display());
        // With other settings it is not done over either: what vLLM was is not known any more.
        let other = Settings {
            workers: 7,
            ..Settings::default()
        };
        assert_eq!(
            rewrite(&once.text, &other).unwrap().text,
            once.text,
            "{}",
            folder.display()
        );
    }
}

/// Lines that were there are there still, but for those in which a value changed.
#[test]
fn all_else_stays() {
    for folder in folders() {
        let before = fs::read_to_string(folder.join("in.yaml")).unwrap();
        let after = rewrite(&before, &Settings::default()).unwrap().text;
        let mut rest: Vec<_> = after.lines().collect();
        let mut missing = 0;
        for line in before.lines() {
            match rest.iter().position(|other| *other == line) {
                Some(place) => drop(rest.remove(place)),
                None => missing += 1,
            }
        }
        // A port here and there, at most.
        assert!(
            missing <= 8,
            "{}: {missing} lines changed",
            folder.display()
        );
        for comment in before.lines().filter(|line| line.contains("# ")) {
            let comment = comment.split_once("# ").unwrap().1;
            assert!(after.contains(comment), "{}: {comment}", folder.display());
        }
    }
}

/// The kinds of endings, line ends and indentations that a file may have.
#[test]
fn forms_of_files() {
    for folder in folders() {
        let before = fs::read_to_string(folder.join("in.yaml")).unwrap();
        let (plain, said) = report(&before);
        let (crlf, said_crlf) = report(&before.replace('\n', "\r\n"));
        assert_eq!(crlf.replace("\r\n", "\n"), plain, "{}", folder.display());
        assert!(
            !crlf.replace("\r\n", "").contains('\n'),
            "{}",
            folder.display()
        );
        assert_eq!(said, said_crlf);
        let (cut, _) = report(before.trim_end());
        assert_eq!(cut.trim_end(), plain.trim_end(), "{}", folder.display());
        let (second, _) = report(&format!("# none of ours\na: b # {{}}\n---\n{before}"));
        assert!(second.starts_with("# none of ours\na: b # {}\n---\n"));
        assert_eq!(
            second,
            format!("# none of ours\na: b # {{}}\n---\n{plain}"),
            "{}",
            folder.display()
        );
    }
}

#[test]
fn what_is_json_stays_json() {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injector/json-file/in.yaml"),
    )
    .unwrap();
    let before: Value = serde_json::from_str(&text).unwrap();
    let after: Value =
        serde_json::from_str(&rewrite(&text, &Settings::default()).unwrap().text).unwrap();
    let pod = Pod::within(&before, injector::Path::default()).unwrap();
    let Outcome::Inject(injection) = injector::inject(&pod, &Settings::default()) else {
        panic!()
    };
    let mut patched = before.clone();
    let patch: json_patch::Patch =
        serde_json::from_value(injector::patch(&injection.edits)).unwrap();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched, after);
}

#[test]
fn what_is_no_yaml_is_an_error_with_its_line() {
    let error = rewrite("a: 1\nb: [1,\n", &Settings::default()).unwrap_err();
    assert!(error.to_string().starts_with("not YAML: line "), "{error}");
    let error = rewrite("a: 1\na: 2\n", &Settings::default()).unwrap_err();
    assert!(error.to_string().contains("`a` is there twice"), "{error}");
    // Nothing in it is nothing to do.
    for text in [
        "",
        "\n",
        "---\n",
        "# only a comment\n",
        "---\n---\n",
        "null\n",
        "- a\n- b\n",
        "x\n",
    ] {
        assert_eq!(rewrite(text, &Settings::default()).unwrap().text, text);
    }
}

#[test]
fn a_few_aliases_are_not_a_gigabyte() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
    }
    let error = rewrite(&text, &Settings::default()).unwrap_err();
    assert!(error.to_string().contains("aliases"), "{error}");
}

#[test]
fn refusals_are_counted_for_check() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injector/tls/in.yaml");
    let done = rewrite(&fs::read_to_string(folder).unwrap(), &Settings::default()).unwrap();
    assert_eq!(done.refused(), 1);
    assert!(matches!(done.reports[0].verdict, Verdict::Refused(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Files that are damaged: nothing panics, and what is injected is injected once.
    #[test]
    fn damaged_files(which in 0..1000_usize, cuts in prop::collection::vec((0..200_usize, 0..5_u8, 0..60_usize), 1..4)) {
        let folders = folders();
        let folder = &folders[which % folders.len()];
        let mut lines: Vec<String> = fs::read_to_string(folder.join("in.yaml")).unwrap().lines().map(str::to_owned).collect();
        for (line, how, at) in cuts {
            let line = line % lines.len();
            match how {
                0 if lines.len() > 1 => drop(lines.remove(line)),
                1 => lines[line].insert_str(0, "  "),
                2 => lines[line] = lines[line].trim_start().to_owned(),
                3 => lines[line].push_str("  # said here"),
                _ => {
                    let at = lines[line].char_indices().nth(at).map_or(lines[line].len(), |(at, _)| at);
                    lines[line].truncate(at);
                }
            }
        }
        let text = lines.join("\n") + "\n";
        if let Ok(once) = rewrite(&text, &Settings::default()) {
            let twice = rewrite(&once.text, &Settings::default());
            prop_assert_eq!(twice.map(|twice| twice.text), Ok(once.text));
        }
    }

    /// Pods of any shape: nothing panics, and the patch fits.
    #[test]
    fn pods_of_any_shape(which in 0..1000_usize, steps in prop::collection::vec(0..20_usize, 1..9), odd in 0..8_usize) {
        let odd = [json!(null), json!(true), json!(8000), json!(-1.5), json!("8000"), json!([]), json!({}), json!([{"name": "tokenglass"}])][odd].clone();
        let folders = folders();
        let text = fs::read_to_string(folders[which % folders.len()].join("in.yaml")).unwrap();
        let mut document = values(&text).unwrap().remove(0).unwrap();
        // Some place within, by its number at each level.
        let mut place = &mut document;
        for step in steps {
            let length = place.as_array().map(Vec::len).or(place.as_object().map(serde_json::Map::len));
            let Some(length @ 1..) = length else { break };
            place = match place {
                Value::Array(list) => &mut list[step % length],
                Value::Object(map) => map.values_mut().nth(step % length).unwrap(),
                _ => unreachable!(),
            };
        }
        *place = odd;
        for holder in [injector::Path::default(), injector::Path::default().key("spec").key("template")] {
            let Some(pod) = Pod::within(&document, holder) else { continue };
            if let Outcome::Inject(injection) = injector::inject(&pod, &Settings::default()) {
                let mut patched = document.clone();
                let patch: json_patch::Patch = serde_json::from_value(injector::patch(&injection.edits)).unwrap();
                json_patch::patch(&mut patched, &patch).unwrap();
                prop_assert_eq!(&patched, &injector::apply(&injection.edits, &document).unwrap());
            }
        }
        // As a file too: JSON is YAML.
        let text = serde_json::to_string_pretty(&document).unwrap();
        let once = rewrite(&text, &Settings::default()).unwrap().text;
        prop_assert!(serde_json::from_str::<Value>(&once).is_ok());
    }
}
