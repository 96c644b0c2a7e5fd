//! The operator's commands, by the real program.

use domain::destination::Destination;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::process::Output;
use testkit::{Database, Program};

use crate::dispatcher::{deliver, fail};
use crate::world::{Answer, Api, NUMBER};

pub(crate) async fn run(database_url: &str, arguments: &[&str]) -> Output {
    let program = Program::new("recado-api").env("DATABASE_URL", database_url);
    arguments
        .iter()
        .fold(program, |program, argument| program.arg(argument))
        .run()
        .await
}

/// The lines of an answer, by their parts.
pub(crate) async fn lines(database_url: &str, arguments: &[&str]) -> Vec<Vec<String>> {
    let output = run(database_url, arguments).await;
    assert!(output.status.success(), "{}", output.stderr);
    assert_eq!(output.stderr, "");
    let parts = |line: &str| line.split('\t').map(str::to_owned).collect();
    output.stdout.lines().map(parts).collect()
}

async fn refused(database_url: &str, arguments: &[&str]) -> String {
    let output = run(database_url, arguments).await;
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(1), "")
    );
    output.stderr
}

#[tokio::test]
async fn six_migrators_on_a_fresh_database_are_one_migration() {
    let database = Database::create_empty().await;
    let outputs = join_all((0..6).map(|_| run(database.url(), &["migrate"]))).await;
    let mut answers = String::new();
    for output in &outputs {
        assert!(output.status.success(), "{}", output.stderr);
        answers += &output.stdout;
    }
    let count = |word: &str| {
        answers
            .lines()
            .filter(|line| line.starts_with(word))
            .count()
    };
    let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let migrations = std::fs::read_dir(migrations).unwrap().count();
    assert_eq!(count("migrated\t"), migrations);
    assert_eq!(count("partition\t"), 15, "three tables, five days");
    assert_eq!(lines(database.url(), &["migrate"]).await, [["up to date"]]);
}

#[tokio::test]
async fn a_client_and_its_tokens_are_made_listed_and_refused() {
    let api = Api::start().await;
    let url = api.database.url();
    let me = async |token: &str| {
        Answer::of(api.request(Method::GET, "/me").bearer_auth(token))
            .await
            .status
    };

    let made = lines(url, &["client", "create", "Acme Ltda"]).await;
    assert_eq!(made[0][..4], ["client", "1", "Acme Ltda", "active"]);
    assert_eq!(made[1][0], "token");
    let first = made[1][1].clone();
    assert_eq!(me(&first).await, 200);
    assert_eq!(lines(url, &["client", "list"]).await, [made[0].clone()]);

    let second = lines(url, &["token", "create", "1", "--name", "ci"]).await;
    assert_eq!(
        (second[0][0].as_str(), second[0][2].as_str()),
        ("token_id", "ci")
    );
    assert_eq!(me(&second[1][1]).await, 200);
    let listed = lines(url, &["token", "list", "1"]).await;
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .flatten()
            .all(|part| !part.starts_with("rcd_"))
    );

    lines(url, &["token", "revoke", &second[0][1]]).await;
    assert_eq!((me(&second[1][1]).await, me(&first).await), (401, 200));
    let listed = lines(url, &["token", "list", "1"]).await;
    assert!(listed[1][3].starts_with("revoked "), "{listed:?}");

    let off = lines(url, &["client", "deactivate", "1"]).await;
    assert_eq!(off[0][3], "inactive");
    assert_eq!(me(&first).await, 401);
}

#[tokio::test]
async fn a_token_is_made_for_part_of_what_its_client_may_and_for_a_time() {
    let api = Api::start().await;
    api.tenant("acme").await;
    let url = api.database.url();
    let made = lines(
        url,
        &[
            "token",
            "create",
            "1",
            "--scopes",
            "read,send",
            "--expires-at",
            "2999-01-31T00:00:00Z",
        ],
    )
    .await;
    assert_eq!(made[0][3], "valid until 2999-01-31T00:00:00+00:00");
    assert_eq!(made[0][5..], ["read,send", "never used"]);

    let wrong = run(url, &["token", "create", "1", "--scopes", "all"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    let allowed = "a scope is read, write, connect or send";
    assert!(wrong.stderr.contains(allowed), "{}", wrong.stderr);
    let past = [
        "token",
        "create",
        "1",
        "--expires-at",
        "2020-01-31T00:00:00Z",
    ];
    let problem = refused(url, &past).await;
    assert!(problem.contains("--expires-at"), "{problem}");
}

#[tokio::test]
async fn with_json_an_answer_is_an_object_a_line() {
    let api = Api::start().await;
    api.tenant("acme").await;
    let url = api.database.url();
    let objects = async |arguments: &[&str]| -> Vec<Value> {
        let output = run(url, arguments).await;
        assert!(output.status.success(), "{}", output.stderr);
        let object = |line: &str| serde_json::from_str(line).unwrap();
        output.stdout.lines().map(object).collect()
    };
    let clients = objects(&["client", "list", "--json"]).await;
    assert_eq!(clients.len(), 1);
    assert_eq!(
        (&clients[0]["id"], &clients[0]["name"]),
        (&json!(1), &json!("acme"))
    );
    let made = objects(&["--json", "token", "create", "1", "--name", "ci"]).await;
    assert_eq!(
        made[0]["scopes"],
        json!(["read", "write", "connect", "send"])
    );
    assert!(made[1]["token"].as_str().unwrap().starts_with("rcd_"));
    let listed = objects(&["token", "list", "1", "--json"]).await;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|token| token.get("token_hash").is_none()));
    let made = objects(&["migrate", "--json"]).await;
    assert!(made.iter().all(|line| line["partition"].is_string()));
    let again = objects(&["migrate", "--json"]).await;
    assert_eq!(again, [json!({"up_to_date": true})]);
}

#[tokio::test]
async fn what_failed_is_delivered_again_when_the_operator_asks_for_it() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let events = acme.receive(&connection, &["failed", "delivered"]).await;
    fail(&api, events[0]).await;
    deliver(&api, events[1]).await;
    let (url, id) = (api.database.url(), webhook.to_string());
    assert_eq!(lines(url, &["replay", &id]).await, [["requeued", "1"]]);
    let past = [
        "replay",
        &id,
        "--status",
        "all",
        "--until",
        "2020-01-31T00:00:00Z",
    ];
    assert_eq!(lines(url, &past).await, [["requeued", "0"]]);

    let unknown = connection.id.to_string();
    let problem = refused(url, &["replay", &unknown]).await;
    assert_eq!(
        problem,
        format!("recado-api: there is no webhook {unknown}\n")
    );
    acme.delete(&format!("/api/webhooks/{webhook}")).await.ok();
    refused(url, &["replay", &id]).await;
}

#[tokio::test]
async fn retention_is_kept_when_the_operator_asks_for_it() {
    let database = Database::create().await;
    let url = database.url();
    let first = lines(url, &["retention"]).await;
    let (made, counts) = first.split_at(first.len() - 1);
    assert_eq!(made.len(), 15, "three tables, five days");
    assert!(made.iter().all(|line| line[0] == "made"));
    assert!(counts[0][0].starts_with("0 "), "{counts:?}");
    assert_eq!(lines(url, &["retention", "--days", "1"]).await, counts);
    let wrong = run(url, &["retention", "--days", "0"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn a_clients_deliveries_are_limited_for_dispatchers_to_see() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    api.tenant("other").await;
    let url = api.database.url();
    let webhook = acme.webhook(NUMBER).await;
    let seen = async || {
        let mut conn = api.conn().await;
        let destinations = Destination::load(&mut conn, &[webhook]).await.unwrap();
        destinations[0].client_rate_limit_per_second
    };
    assert_eq!(seen().await, None);

    let limited = lines(url, &["client", "limit", "acme", "25"]).await;
    assert_eq!(limited[0][5], "25 a second");
    let listed = lines(url, &["client", "list"]).await;
    assert_eq!(
        (listed[0][5].as_str(), listed[1][5].as_str()),
        ("25 a second", "no limit")
    );
    assert_eq!(seen().await, Some(25));

    let unlimited = lines(url, &["client", "limit", "acme", "none"]).await;
    assert_eq!(unlimited[0][5], "no limit");
    assert_eq!(seen().await, None);
    for limit in ["0", "-1", "1.5", "many", ""] {
        let refused = run(url, &["client", "limit", "--", "acme", limit]).await;
        assert_eq!(refused.status.code(), Some(2), "{limit:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_one_line_and_exit_1() {
    let database = Database::create().await;
    let url = database.url();
    lines(url, &["client", "create", "acme"]).await;
    for (arguments, expected) in [
        (
            &["client", "create", "acme"][..],
            "there is a client named \"acme\" already",
        ),
        (&["client", "create", " "], "a name has 1 to 100 characters"),
        (&["client", "deactivate", "7"], "there is no client 7"),
        (
            &["client", "limit", "Acme", "7"],
            "there is no client named \"Acme\"",
        ),
        (&["token", "create", "7"], "there is no client 7"),
        (&["token", "list", "7"], "there is no client 7"),
        (
            &["token", "revoke", "018f0000-0000-7000-8000-000000000000"],
            "there is no valid token 018f0000-0000-7000-8000-000000000000",
        ),
    ] {
        let problem = refused(url, arguments).await;
        assert!(
            problem.starts_with(&format!("recado-api: {expected}")),
            "{problem}"
        );
        assert_eq!(problem.lines().count(), 1);
    }
    let away = refused("postgres://127.0.0.1:1/recado", &["migrate"]).await;
    assert!(away.starts_with("recado-api: PostgreSQL: "), "{away}");
}
