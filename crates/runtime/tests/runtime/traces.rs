//! What an OpenTelemetry collector receives, and a collector that is away.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use testkit::{Program, RawReceiver, Receiver, Step};

fn minimal(collector: &str) -> Program {
    Program::service("examples/minimal").env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Runs the program to its end. The name of the service, then of each span whose job it was.
async fn collected(collector: &Receiver, program: Program) -> Vec<(String, String, String)> {
    let mut process = program.start().await;
    assert!(process.stop().await.success(), "{}", process.logs());
    let mut spans = Vec::new();
    for request in collector.received_at("/v1/traces") {
        assert_eq!(
            request.header("content-type"),
            Some("application/x-protobuf")
        );
        let sent = ExportTraceServiceRequest::decode(request.body).unwrap();
        for of_resource in sent.resource_spans {
            let resource = of_resource.resource.unwrap();
            let service = text(&resource.attributes, "service.name").unwrap();
            for span in of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                let of = text(&span.attributes, "of").unwrap_or_default();
                spans.push((service.to_owned(), span.name.clone(), of.to_owned()));
            }
        }
    }
    spans
}

#[tokio::test]
async fn spans_reach_the_collector_under_the_services_name_and_without_numbers() {
    let collector = Receiver::start().await;
    let program = minimal(&collector.url("")).env("RUST_LOG", "off");
    let span = ("minimal".into(), "job".into(), "5511*******99".into());
    assert_eq!(collected(&collector, program).await, [span]);
}

#[tokio::test]
async fn the_standard_variables_name_the_service() {
    for (variable, value) in [
        ("OTEL_SERVICE_NAME", "other"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other"),
    ] {
        let collector = Receiver::start().await;
        let program = minimal(&collector.url("/")).env(variable, value);
        let spans = collected(&collector, program).await;
        assert_eq!(spans[0].0, "other", "{variable}");
    }
}

#[tokio::test]
async fn the_standard_variables_say_which_spans_are_sent() {
    let collector = Receiver::start().await;
    let program = minimal(&collector.url("")).env("OTEL_TRACES_SAMPLER", "always_off");
    assert_eq!(collected(&collector, program).await, []);
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_the_end_up_for_seconds_only() {
    let collector = RawReceiver::start([Step::Listen]).await;
    let mut process = minimal(&format!("http://{}", collector.address()))
        .start()
        .await;
    let start = Instant::now();
    assert!(process.stop().await.success(), "{}", process.logs());
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(
        took >= Duration::from_secs(2),
        "it was given a chance: {took:?}"
    );
}
