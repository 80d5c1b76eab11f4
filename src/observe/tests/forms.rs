//! Audio: fields out of a multipart form, and the two shapes of its answers.

use super::outcomes::{Answer, BODY, STREAM};
use super::*;
use crate::outcome::TokenSource;

fn part(name: &str, value: &str) -> String {
    format!("--b0Und-ary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn audio(bytes: usize) -> String {
    let noise = "RIFF\r\n--b0Und\r\n\r\nname=\"model\"\r\n\r\nfake\r\n".repeat(bytes / 40 + 1);
    format!(
        "--b0Und-ary\r\ncontent-disposition: form-data; name=\"file\"; filename=\"stream.wav\"\r\n\
         Content-Type: audio/wav\r\n\r\n{noise}\r\n"
    )
}

fn read(body: &str, size: usize) -> RequestFacts {
    // The limit is for what is kept whole; of a form it never is.
    let mut tee = RequestTee::new(Endpoint::Audio, 1024);
    for frame in body.as_bytes().chunks(size) {
        tee.push(&Bytes::copy_from_slice(frame));
    }
    let (facts, body) = tee.finish();
    assert_eq!(body, None);
    facts
}

#[test]
fn fields_are_found_on_either_side_of_a_file_of_any_size() {
    let before = part("model", "tiny") + &part("language", "de");
    let after = part("stream", "true")
        + &part("stream_include_usage", "True")
        + &part("stream_continuous_usage_stats", "1")
        + &part("max_completion_tokens", " 7 ");
    let want = RequestFacts {
        model: Some("tiny".into()),
        stream: true,
        max_tokens: Some(7),
        include_usage: true,
        continuous_usage: true,
        ..RequestFacts::default()
    };
    for length in [0, 1000, 32_500, 33_000, 48_000, 70_000, 3_000_000] {
        let file = audio(length);
        for body in [
            format!("{before}{after}{file}--b0Und-ary--\r\n"),
            format!("{before}{file}{after}--b0Und-ary--\r\n"),
            format!("\r\n{file}{before}{after}--b0Und-ary--"),
        ] {
            for size in [7, 1000, 40_000, body.len()] {
                assert_eq!(read(&body, size), want, "{length} {size}");
            }
        }
    }
}

#[test]
fn a_form_that_is_odd_or_cut_costs_its_fields_alone() {
    let model = part("model", "tiny");
    let whole = format!("{model}{}--b0Und-ary--\r\n", audio(100));
    for end in 0..whole.len() {
        let facts = read(&whole[..end], 50);
        let told = end >= model.len() + "--b0Und-ary".len() - 2;
        assert!(told || facts.model.is_none(), "{end}");
        assert!(end < model.len() + 11 || facts.model.is_some(), "{end}");
    }
    for body in [
        "",
        "--",
        "--\r\n",
        "--x",
        "{\"model\":\"tiny\"}",
        "--x\r\nContent-Disposition: form-data; name=\"model\"; filename=\"x\"\r\n\r\ntiny\r\n--x--\r\n",
        "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n\r\n--x--\r\n",
        "--x\r\nContent-Disposition: form-data; model\r\n\r\ntiny\r\n--x--\r\n",
        "--x\r\nName: model\r\n\r\ntiny\r\n--x--\r\n",
        "--x\r\nContent-Disposition: form-data; name=\"max_completion_tokens\"\r\n\r\n-1\r\n--x--\r\n",
        "--x\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\nfalse\r\n--x--\r\n",
    ] {
        assert_eq!(read(body, 5), RequestFacts::default(), "{body}");
    }
    let bare = "--x\r\nContent-Disposition:form-data;name=model\r\n\r\ntiny\r\n--x--\r\n";
    assert_eq!(read(bare, 5).model.as_deref(), Some("tiny"));
}

proptest! {
    #[test]
    fn any_form_is_survived(body in "(--x|\r\n|name=|\"model\"|Content-Disposition: |;|\\PC){0,60}", size in 1_usize..20) {
        read(&body, size);
        read(&format!("--x\r\n{body}"), size);
    }
}

#[test]
fn seconds_are_no_tokens_and_no_fault() {
    let answer = Answer {
        endpoint: Endpoint::Audio,
        ..BODY
    };
    for body in [
        r#"{"text":"Guten Tag","usage":{"type":"duration","seconds":12}}"#,
        r#"{"text":"Good day"}"#,
        r#"{"duration":1.5,"language":"de","text":"a","segments":[{"id":0,"tokens":[1,2],"text":"a"}]}"#,
    ] {
        let record = answer.ends(body, End::Complete);
        assert_eq!(record.outcome, Outcome::Success);
        assert_eq!(
            (record.input_tokens, record.output_tokens, record.faults),
            (None, None, 0)
        );
    }
    let subtitles = Answer {
        content_type: "text/plain; charset=utf-8",
        ..answer
    };
    assert_eq!(subtitles.ends("{1}{2}Hi", End::Complete).faults, 0);
}

#[test]
fn a_transcript_streams_like_a_chat() {
    let answer = Answer {
        endpoint: Endpoint::Audio,
        ..STREAM
    };
    let chunk = |text: &str, more: &str| {
        format!(
            "data: {{\"id\":\"trsc-1\",\"object\":\"transcription.chunk\",\"created\":1,\"model\":\"w\",\
             \"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}{more}}}]}}\n\n"
        )
    };
    let stream = chunk(" Guten", "")
        + &chunk(" Tag", "")
        + &chunk("", ",\"finish_reason\":\"stop\",\"stop_reason\":null");
    let usage = "data: {\"id\":\"trsc-1\",\"object\":\"transcription.chunk\",\"created\":1,\"model\":\"w\",\"choices\":[],\
                 \"usage\":{\"prompt_tokens\":4,\"total_tokens\":7,\"completion_tokens\":3}}\n\n";
    let record = answer.ends(
        &format!("{stream}{usage}data: [DONE]\n\n"),
        End::UpstreamCut,
    );
    assert_eq!(label(record.outcome), "success");
    assert_eq!(record.input_tokens, Some((4, TokenSource::Usage)));
    assert_eq!(record.output_tokens, Some((3, TokenSource::Usage)));
    assert_eq!(record.served_model.as_deref(), Some("w"));
    assert_eq!(record.finish_reasons.len(), 1);
    assert!(record.ttft.is_some());
    let record = answer.ends(&stream, End::ClientGone);
    assert_eq!(label(record.outcome), "streaming");
    assert_eq!(
        record
            .text
            .unwrap()
            .choices()
            .map(|kept| kept.text.as_str())
            .collect::<String>(),
        " Guten Tag"
    );
    let failed = "data: {\"error\":{\"message\":\"busy\",\"type\":\"ServiceUnavailableError\",\"code\":503}}\n\ndata: [DONE]\n\n";
    assert_eq!(
        label(answer.ends(failed, End::Complete).outcome),
        "overloaded"
    );
}
