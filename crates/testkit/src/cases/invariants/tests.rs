use chrono::{DateTime, Utc};
use serde_json::json;

use super::*;

const DEATHS: Rules = Rules {
    outcomes_get_lost: true,
};
const NO_DEATHS: Rules = Rules {
    outcomes_get_lost: false,
};

fn arrival(sent: &Sent, event: Uuid) -> Arrival {
    let body = json!({
        "message_id": sent.id, "event_id": event, "content": sent.text, "to": sent.to,
    });
    Arrival {
        sequence: 1,
        path: format!("/hooks/{}", sent.to),
        webhook_id: Some(event.to_string()),
        event_id: Some(event.to_string()),
        attempt: Some(1),
        signature_ok: Some(true),
        schema_error: None,
        received_at: DateTime::<Utc>::UNIX_EPOCH,
        headers: Default::default(),
        body: body.to_string(),
    }
}

/// Three messages that were sent, acknowledged, committed and delivered once.
fn as_it_should_be() -> Observed {
    let account = Account {
        phone: "4915550001".to_owned(),
        user: Uuid::from_u128(1),
        session: Uuid::from_u128(2),
        webhook: Uuid::from_u128(3),
    };
    let sent: Vec<_> = (1..=3)
        .map(|number| Sent {
            id: format!("3EB0{number}"),
            to: account.phone.clone(),
            text: format!("text {number}"),
        })
        .collect();
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let row = |number: usize| Uuid::from_u128(100 + number as u128);
    let event = |number: usize| Uuid::from_u128(200 + number as u128);
    let all = || sent.iter().enumerate();
    Observed {
        ledger: all()
            .map(|(_, sent)| Written {
                id: sent.id.clone(),
                to: sent.to.clone(),
                sent_at: now,
                deliveries: 1,
                acked_at: Some(now),
            })
            .collect(),
        messages: all()
            .map(|(number, sent)| Message {
                id: row(number),
                message_id: sent.id.clone(),
                event_type: "message".to_owned(),
                to: sent.to.clone(),
                content: sent.text.clone(),
                reason: None,
            })
            .collect(),
        events: all()
            .map(|(number, sent)| Event {
                id: event(number),
                sequence: number as i64,
                source_id: row(number),
                webhook_id: account.webhook,
                event_type: "message".to_owned(),
                message_id: sent.id.clone(),
                status: "delivered".to_owned(),
                created_at: now,
            })
            .collect(),
        attempts: all()
            .map(|(number, _)| Attempt {
                event_id: event(number),
                started_at: now,
                http_status: Some(200),
                error_class: None,
                superseded: false,
            })
            .collect(),
        steps_back: Vec::new(),
        overslept: HashMap::new(),
        crashes: 0,
        arrivals: all()
            .map(|(number, sent)| arrival(sent, event(number)))
            .collect(),
        accounts: vec![account],
        sent,
    }
}

fn forget<T>(all: &mut Vec<T>, at: usize) {
    all.remove(at);
}

/// The figures of a world that was changed in one way, which is found.
#[track_caller]
fn violates(rules: Rules, change: impl FnOnce(&mut Observed), expected: &str) -> Figures {
    let mut observed = as_it_should_be();
    change(&mut observed);
    let verdict = judge(&observed, rules);
    assert!(
        verdict
            .violations
            .iter()
            .any(|line| line.contains(expected)),
        "{expected:?} is not among {:?}",
        verdict.violations
    );
    verdict.figures
}

#[test]
fn a_world_in_order_is_in_order() {
    for rules in [DEATHS, NO_DEATHS] {
        let verdict = judge(&as_it_should_be(), rules);
        assert_eq!(verdict.violations, Vec::<String>::new());
        assert_eq!(
            verdict.figures.to_string(),
            "sent=3 committed=3 delivered=3 lost=0 duplicates=0 unrecorded=0 superseded=0 redelivered=0"
        );
    }
}

#[test]
fn a_message_that_was_acknowledged_and_not_committed_is_found() {
    let mut observed = as_it_should_be();
    observed.messages.remove(1);
    let lost = acked_but_not_committed(&observed.ledger, &observed.messages);
    assert_eq!(lost, ["3EB02"]);
    observed.ledger[1].acked_at = None;
    assert!(acked_but_not_committed(&observed.ledger, &observed.messages).is_empty());
}

#[test]
fn a_lost_message_is_found_wherever_it_was_lost() {
    let lost = |figures: Figures| assert_eq!(figures.lost, 1);
    lost(violates(
        DEATHS,
        |o| forget(&mut o.messages, 0),
        "1 not in PostgreSQL (3EB01)",
    ));
    lost(violates(
        DEATHS,
        |o| forget(&mut o.arrivals, 0),
        "never delivered",
    ));
    violates(
        DEATHS,
        |o| forget(&mut o.arrivals, 0),
        "a success that the receiver never saw",
    );
    violates(DEATHS, |o| forget(&mut o.events, 0), "without an event");
    violates(
        DEATHS,
        |o| forget(&mut o.ledger, 0),
        "not once in the simulator's ledger",
    );
    violates(
        DEATHS,
        |o| o.ledger[0].acked_at = None,
        "never acknowledged",
    );
    violates(
        DEATHS,
        |o| o.events[0].status = "pending".to_owned(),
        "still pending",
    );
    violates(
        DEATHS,
        |o| o.events[0].status = "failed".to_owned(),
        "not delivered",
    );
}

#[test]
fn a_doubled_row_is_found() {
    let double = |o: &mut Observed| {
        let row = Message {
            id: Uuid::from_u128(999),
            ..o.messages[0].clone()
        };
        o.messages.push(row);
    };
    violates(DEATHS, double, "in PostgreSQL more than once");
    let double = |o: &mut Observed| {
        let event = Event {
            id: Uuid::from_u128(999),
            ..o.events[0].clone()
        };
        o.events.push(event);
    };
    violates(DEATHS, double, "with more than one event");
}

#[test]
fn a_second_webhook_id_is_found() {
    let second = |o: &mut Observed| {
        let arrival = Arrival {
            webhook_id: Some(Uuid::from_u128(999).to_string()),
            ..o.arrivals[0].clone()
        };
        o.arrivals.push(arrival);
    };
    violates(DEATHS, second, "under more than one webhook-id");
    violates(
        DEATHS,
        |o| o.arrivals[0].webhook_id = None,
        "delivered under another id",
    );
}

#[test]
fn a_repetition_is_right_only_where_an_outcome_was_lost() {
    let again = |o: &mut Observed| o.arrivals.push(o.arrivals[0].clone());
    let mut observed = as_it_should_be();
    again(&mut observed);
    let verdict = judge(&observed, DEATHS);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    assert_eq!(
        (verdict.figures.duplicates, verdict.figures.unrecorded),
        (1, 1)
    );

    violates(NO_DEATHS, again, "an attempt that is not on record");
    let recorded = |o: &mut Observed| {
        again(o);
        let attempt = Attempt {
            http_status: Some(500),
            ..o.attempts[0].clone()
        };
        o.attempts.push(attempt);
    };
    violates(
        DEATHS,
        recorded,
        "repeated though every outcome was recorded",
    );
    let thrice = |o: &mut Observed| {
        again(o);
        again(o);
    };
    violates(DEATHS, thrice, "delivered more than twice");
}

/// The first message's attempt went on without its claim, and was made again.
fn late(observed: &mut Observed) {
    observed.arrivals.push(observed.arrivals[0].clone());
    let attempt = Attempt {
        superseded: true,
        ..observed.attempts[0].clone()
    };
    observed.attempts.push(attempt);
}

#[test]
fn an_outcome_comes_late_only_where_its_claim_was_overslept() {
    violates(NO_DEATHS, late, "superseded though nothing took its claim");

    let mut observed = as_it_should_be();
    late(&mut observed);
    observed.overslept.insert(observed.events[0].id, 1);
    let verdict = judge(&observed, NO_DEATHS);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    let Figures {
        duplicates,
        unrecorded,
        superseded,
        ..
    } = verdict.figures;
    assert_eq!((duplicates, unrecorded, superseded), (1, 0, 1));
}

#[test]
fn each_crash_of_postgresql_may_have_forgotten_one_claim_of_an_event() {
    let crashed = |times: usize, lates: usize| {
        let mut observed = as_it_should_be();
        observed.crashes = times;
        (0..lates).for_each(|_| late(&mut observed));
        judge(&observed, NO_DEATHS).violations
    };
    assert_eq!(crashed(1, 1), Vec::<String>::new());
    assert_eq!(crashed(2, 2), Vec::<String>::new());
    let said = crashed(1, 2).join("; ");
    assert!(
        said.contains("superseded though nothing took its claim"),
        "{said}"
    );

    let unrecorded = |o: &mut Observed| {
        o.crashes = 1;
        o.arrivals.push(o.arrivals[0].clone());
    };
    violates(NO_DEATHS, unrecorded, "an attempt that is not on record");
}

#[test]
fn a_step_back_is_found() {
    let back = |o: &mut Observed| {
        o.steps_back.push(StepBack {
            event_id: o.events[0].id,
            before: "delivered 1 200".to_owned(),
            after: "pending 1".to_owned(),
        });
    };
    violates(
        DEATHS,
        back,
        r#"1 changed from "delivered 1 200" to "pending 1""#,
    );
}

#[test]
fn an_event_is_ended_by_one_successful_attempt() {
    let expected = "not ended by one successful attempt";
    violates(DEATHS, |o| forget(&mut o.attempts, 0), expected);
    violates(DEATHS, |o| o.attempts[0].superseded = true, expected);
    violates(DEATHS, |o| o.attempts[0].http_status = None, expected);
    violates(DEATHS, |o| o.attempts.push(o.attempts[0].clone()), expected);
}

#[test]
fn contents_signatures_and_owners_are_compared() {
    let other = || "other".to_owned();
    violates(
        DEATHS,
        |o| o.messages[0].content = other(),
        "committed with another text",
    );
    violates(
        DEATHS,
        |o| o.messages[0].to = other(),
        "committed for another account",
    );
    violates(
        DEATHS,
        |o| o.events[0].webhook_id = Uuid::nil(),
        "with another's webhook",
    );
    violates(
        DEATHS,
        |o| o.events[0].source_id = Uuid::nil(),
        "an event of another message",
    );
    violates(
        DEATHS,
        |o| o.arrivals[0].path = other(),
        "delivered to another's webhook",
    );
    violates(
        DEATHS,
        |o| o.arrivals[0].event_id = None,
        "with another event id",
    );
    for signature_ok in [None, Some(false)] {
        let change = |o: &mut Observed| o.arrivals[0].signature_ok = signature_ok;
        violates(DEATHS, change, "a wrong signature");
    }
    let sent = as_it_should_be().sent.remove(0);
    let garbled = Sent {
        text: other(),
        ..sent
    };
    let change = |o: &mut Observed| o.arrivals[0].body = arrival(&garbled, o.events[0].id).body;
    violates(DEATHS, change, "delivered with another text");
    let change = |o: &mut Observed| o.arrivals[0].body = arrival(&garbled, Uuid::nil()).body;
    violates(DEATHS, change, "another event in its body");
}

#[test]
fn what_nobody_sent_is_found() {
    let undecryptable = |o: &mut Observed| {
        o.messages[0].event_type = "message.undecryptable".to_owned();
        o.messages[0].reason = Some("body_lost".to_owned());
    };
    violates(
        DEATHS,
        undecryptable,
        "committed as message.undecryptable (body_lost) (3EB01)",
    );
    violates(
        DEATHS,
        |o| forget(&mut o.sent, 0),
        "in PostgreSQL, but never sent",
    );
    violates(
        DEATHS,
        |o| forget(&mut o.sent, 0),
        "delivered, but never sent",
    );
}

#[test]
fn many_messages_with_one_fault_are_one_line() {
    let mut observed = as_it_should_be();
    let sent = observed.sent[0].clone();
    observed.sent.extend((4..=9).map(|number| Sent {
        id: format!("3EB0{number}"),
        ..sent.clone()
    }));
    let verdict = judge(&observed, DEATHS);
    let line = "6 not in PostgreSQL (3EB04, 3EB05, 3EB06, …)";
    assert!(
        verdict.violations.iter().any(|known| known == line),
        "{:?}",
        verdict.violations
    );
    assert_eq!(verdict.figures.lost, 6);
}
