//! A process from its configuration to its end, by a real one.

use std::time::Duration;

use testkit::{Process, Program, Signal, eventually};

fn minimal() -> Program {
    Program::service("examples/minimal")
}

/// For a program that must end by itself.
async fn refused(program: Program) -> (Option<i32>, String) {
    let output = program.run().await;
    assert_eq!(output.stdout, "");
    (output.status.code(), output.stderr)
}

async fn status_of(process: &Process, path: &str) -> (u16, String) {
    runtime::tls::install_provider();
    let answer = reqwest::get(format!("{}{path}", process.url("OPS_PORT")))
        .await
        .unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_bad_value_is_one_line_that_names_the_variable_and_exit_64() {
    let cases = [
        (
            "OPS_PORT",
            "9090x",
            "not a valid u16: invalid digit found in string",
        ),
        ("APP_ENV", "staging", "must be development or production"),
        (
            "LOG_FORMAT",
            "xml",
            "not a valid LogFormat: must be json or text",
        ),
        (
            "LOG_PAYLOADS",
            "yes",
            "not a valid bool: provided string was not `true` or `false`",
        ),
        ("LOG_PAYLOADS", "true", "must not be true in production"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector:4318",
            "must be http://host[:port][/path], or https://",
        ),
        (
            "SHUTDOWN_GRACE",
            "-1",
            "not a valid u64: invalid digit found in string",
        ),
        (
            "JOB",
            "soon",
            "not a valid u64: invalid digit found in string",
        ),
    ];
    for (variable, value, problem) in cases {
        let (code, stderr) = refused(Program::new("examples/minimal").env(variable, value)).await;
        assert_eq!(code, Some(64));
        assert_eq!(stderr, format!("minimal: {variable}: {problem}\n"));
    }
    let (code, stderr) = refused(minimal().env("RUST_LOG", "loud=very")).await;
    assert_eq!((code, stderr.lines().count()), (Some(64), 1));
    assert!(stderr.starts_with("minimal: RUST_LOG: "), "{stderr}");
}

#[tokio::test]
async fn env_files_are_read_in_development_and_not_in_production() {
    let program = || Program::new("examples/minimal").file(".env", "OPS_PORT=bad\n");
    let (code, stderr) = refused(program().env("NODE_ENV", "development")).await;
    assert_eq!(code, Some(64));
    assert!(stderr.starts_with("minimal: OPS_PORT: "), "{stderr}");

    let local = program()
        .env("APP_ENV", "development")
        .file(".env.local", "OPS_PORT=1\nFAIL=1\n");
    let (code, stderr) = refused(local).await;
    assert_eq!(code, Some(1), ".env.local wins over .env: {stderr}");

    let (code, stderr) = refused(program().env("APP_ENV", "production").env("FAIL", "1")).await;
    assert_eq!(code, Some(1), "no .env is read: {stderr}");
}

#[tokio::test]
async fn an_error_is_logged_with_the_services_name_and_exit_1() {
    let failing = Program::new("examples/minimal").env("FAIL", "error");
    let (code, stderr) = refused(failing).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with(r#"{"service":"minimal","timestamp":"#),
        "{stderr}"
    );
    assert!(
        stderr.contains(r#""level":"ERROR","message":"told to""#),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_panic_is_a_log_line_like_any_other() {
    let panicking = Program::new("examples/minimal").env("FAIL", "panic");
    let (code, stderr) = refused(panicking).await;
    assert_ne!(code, Some(0));
    let message = r#""message":"panic: told to by 5511*******99""#;
    assert!(stderr.contains(message), "{stderr}");
    assert!(stderr.contains("minimal.rs:"), "{stderr}");
}

#[tokio::test]
async fn sigterm_lets_the_job_in_hand_finish_and_says_that_it_stops() {
    let mut process = minimal()
        .env("JOB", 1500)
        .env("UNKNOWN_VARIABLE", "is ignored")
        .start()
        .await;
    assert_eq!(status_of(&process, "/livez").await.0, 200);
    assert_eq!(
        status_of(&process, "/readyz").await,
        (200, r#"{"status":"ok","checks":{}}"#.to_owned())
    );
    let (code, metrics) = status_of(&process, "/metrics").await;
    assert_eq!(code, 200);
    assert!(
        metrics.contains("process_resident_memory_bytes "),
        "{metrics}"
    );

    process.signal(Signal::TERM);
    eventually(Duration::from_secs(1), async || {
        status_of(&process, "/readyz").await
            == (503, r#"{"status":"stopping","checks":{}}"#.to_owned())
    })
    .await;
    assert!(process.runs(), "the job is not done yet");
    assert_eq!(process.wait().await.code(), Some(0));
    assert!(
        process.logs().contains("minimal 2"),
        "text in development: {}",
        process.logs()
    );
}

#[tokio::test]
async fn a_second_signal_drops_the_job_in_hand() {
    let mut process = minimal().env("JOB", 600_000).start().await;
    process.signal(Signal::INT);
    eventually(Duration::from_secs(5), async || {
        process.logs().contains("SIGINT: stopping")
    })
    .await;
    process.signal(Signal::TERM);
    assert_eq!(process.wait().await.code(), Some(1));
    assert!(
        process.logs().contains("work in progress was abandoned"),
        "{}",
        process.logs()
    );
}

#[tokio::test]
async fn the_end_of_the_grace_period_drops_the_job_in_hand() {
    let mut process = minimal()
        .env("JOB", 600_000)
        .env("SHUTDOWN_GRACE", 100)
        .start()
        .await;
    assert_eq!(process.stop().await.code(), Some(1));
    assert!(
        process.logs().contains("the grace period is over"),
        "{}",
        process.logs()
    );
}
