//! Polls and appointments, and what is answered to them.

use whatsapp_rust::waproto::whatsapp::message as proto;

use super::*;

fn poll() -> proto::PollCreationMessage {
    let option = |name: &str| proto::poll_creation_message::Option {
        option_name: some(name),
        ..Default::default()
    };
    proto::PollCreationMessage {
        enc_key: Some(vec![1; 32]),
        name: some("Pizza?"),
        options: vec![option("yes"), option("no")],
        selectable_options_count: Some(1),
        ..Default::default()
    }
}

#[test]
fn a_poll_in_all_its_versions() {
    let first = content(&holds!(poll_creation_message: poll()));
    for message in [
        holds!(poll_creation_message_v2: poll()),
        holds!(poll_creation_message_v3: poll()),
        holds!(poll_creation_message_v5: poll()),
        holds!(poll_creation_message_v6: poll()),
        wraps!(poll_creation_message_v4: holds!(poll_creation_message_v3: poll())),
    ] {
        assert_eq!(content(&message), first);
    }
    insta::assert_json_snapshot!(first, @r#"
    {
      "content": "Pizza?",
      "metadata": {
        "poll": {
          "options": [
            "yes",
            "no"
          ],
          "question": "Pizza?",
          "selectable": 1
        }
      },
      "type": "poll"
    }
    "#);
}

#[test]
fn a_vote_names_its_poll_and_says_that_it_is_encrypted() {
    let vote = proto::PollUpdateMessage {
        poll_creation_message_key: key("POLL", false),
        vote: MessageField::some(proto::PollEncValue {
            enc_payload: Some(vec![1; 40]),
            enc_iv: Some(vec![2; 12]),
        }),
        sender_timestamp_ms: Some(1_764_000_000_500),
        ..Default::default()
    };
    let row = translated(&info(direct()), &holds!(poll_update_message: vote));
    insta::assert_json_snapshot!(content_of(&row), @r#"
    {
      "content": "",
      "metadata": {
        "poll_vote": {
          "encrypted": true,
          "message_id": "POLL",
          "participant": "5511888888888",
          "voted_at": "2025-11-24T16:00:00.500Z"
        }
      },
      "type": "poll_vote"
    }
    "#);
    assert!(row.raw.is_some(), "it may be opened later");
}

#[test]
fn a_polls_result_is_counted() {
    let vote = |option: &str, votes: i64| proto::poll_result_snapshot_message::PollVote {
        option_name: some(option),
        option_vote_count: Some(votes),
    };
    let result = proto::PollResultSnapshotMessage {
        name: some("Pizza?"),
        poll_votes: vec![vote("yes", 3), vote("no", 0)],
        ..Default::default()
    };
    insta::assert_json_snapshot!(content(&holds!(poll_result_snapshot_message: result)), @r#"
    {
      "content": "Pizza?",
      "metadata": {
        "poll_result": {
          "question": "Pizza?",
          "votes": [
            {
              "option": "yes",
              "votes": 3
            },
            {
              "option": "no",
              "votes": 0
            }
          ]
        }
      },
      "type": "poll_result"
    }
    "#);
}

#[test]
fn an_appointment_and_an_answer_to_it() {
    let event = proto::EventMessage {
        name: some("Dinner"),
        description: some("at home"),
        start_time: Some(1_764_000_000),
        location: MessageField::some(proto::LocationMessage {
            name: some("Home"),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = proto::EncEventResponseMessage {
        event_creation_message_key: key("EVENT", false),
        ..Default::default()
    };
    let all = [
        content(&holds!(event_message: event)),
        content(&holds!(enc_event_response_message: answer)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "Dinner",
        "metadata": {
          "event": {
            "description": "at home",
            "location": {
              "name": "Home"
            },
            "name": "Dinner",
            "starts_at": "2025-11-24T16:00:00.000Z"
          }
        },
        "type": "event"
      },
      {
        "content": "",
        "metadata": {
          "event_response": {
            "encrypted": true,
            "message_id": "EVENT",
            "participant": "5511888888888"
          }
        },
        "type": "event_response"
      }
    ]
    "#);
}
