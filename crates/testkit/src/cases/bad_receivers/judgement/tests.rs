use super::*;

const WELL: Kept = Kept {
    manner: Manner::Well,
    ordered: true,
};
const BAD: Kept = Kept {
    manner: Manner::Fail,
    ordered: false,
};

fn at(milliseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_000_000 + milliseconds).unwrap()
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn request(number: u128, began: i64) -> Request {
    Request {
        event: id(number),
        receiver: 0,
        began: at(began).timestamp_millis(),
        arrived: at(began + 2),
    }
}

fn attempt(number: u128, began: i64) -> Attempt {
    Attempt {
        event_id: id(number),
        started_at: at(began) + TimeDelta::microseconds(321),
        http_status: Some(200),
        error_class: None,
        superseded: false,
    }
}

fn strike(kind: Kind, from: i64, to: i64) -> Strike {
    Strike {
        kind,
        from: at(from),
        to: at(to),
    }
}

/// Three events of one chat, each delivered at its first attempt.
fn as_it_should_be() -> Seen {
    let numbers = 1..=3;
    let times = |number: u128| number as i64 * 100;
    Seen {
        webhook_timeout: Duration::from_secs(2),
        kept: vec![WELL, BAD],
        committed: numbers
            .clone()
            .map(|number| Committed {
                event: id(number),
                line: 0,
                chat: 0,
                at: at(times(number)),
            })
            .collect(),
        requests: numbers.clone().map(|n| request(n, times(n))).collect(),
        events: numbers
            .clone()
            .map(|number| Event {
                id: id(number),
                sequence: number as i64,
                source_id: Uuid::nil(),
                webhook_id: Uuid::nil(),
                event_type: "message".to_owned(),
                message_id: String::new(),
                status: "delivered".to_owned(),
                created_at: at(times(number)),
            })
            .collect(),
        attempts: numbers.map(|n| attempt(n, times(n))).collect(),
        steps_back: Vec::new(),
        strikes: Vec::new(),
    }
}

fn forget<T>(all: &mut Vec<T>) {
    all.remove(0);
}

#[track_caller]
fn violates(change: impl FnOnce(&mut Seen), expected: &str) {
    let mut seen = as_it_should_be();
    change(&mut seen);
    let violations = judge(&seen).violations;
    let found = violations.iter().any(|line| line.contains(expected));
    assert!(found, "{expected:?} is not among {violations:?}");
}

#[track_caller]
fn is_right(seen: &Seen) -> Figures {
    let verdict = judge(seen);
    assert_eq!(verdict.violations, Vec::<String>::new());
    verdict.figures
}

#[test]
fn a_world_in_order_is_in_order() {
    let figures = is_right(&as_it_should_be());
    assert_eq!((figures.sent, figures.delivered, figures.lost), (3, 3, 0));
    assert_eq!((figures.duplicates, figures.unrecorded), (0, 0));
}

#[test]
fn what_did_not_arrive_is_found() {
    let expected = "not delivered to one who takes everything";
    violates(|seen| forget(&mut seen.requests), expected);
    violates(|seen| forget(&mut seen.attempts), expected);
    violates(|seen| seen.events[1].status = "failed".to_owned(), expected);
    violates(|seen| forget(&mut seen.events), "not in PostgreSQL");
    violates(|seen| forget(&mut seen.requests), "no receiver gave");
    violates(|seen| forget(&mut seen.committed), "nobody committed");
}

#[test]
fn what_goes_to_bad_receivers_may_wait() {
    let mut seen = as_it_should_be();
    seen.committed[0].line = 1;
    seen.events[0].status = "pending".to_owned();
    seen.attempts[0].http_status = Some(500);
    seen.attempts[0].error_class = Some("http_status".to_owned());
    assert_eq!(is_right(&seen).sent, 2);
}

#[test]
fn an_outcome_is_lost_only_where_a_dispatcher_was_killed_that_may_have_had_it() {
    let lost = |seen: &mut Seen| seen.requests.push(request(3, 20_000));
    violates(lost, "not on record, though");
    let mut seen = as_it_should_be();
    lost(&mut seen);
    for (from, is_right) in [
        (19_000, false),
        (20_500, true),
        (24_900, true),
        (25_100, false),
    ] {
        seen.strikes = vec![strike(Kind::Kill, from, from + 10)];
        assert_eq!(judge(&seen).violations.is_empty(), is_right, "{from}");
    }
    // It waited for PostgreSQL until its dispatcher was killed.
    seen.strikes = vec![
        strike(Kind::PostgresAway, 21_000, 40_000),
        strike(Kind::Kill, 39_000, 39_010),
    ];
    let figures = is_right(&seen);
    assert_eq!((figures.duplicates, figures.unrecorded), (1, 1));
}

#[test]
fn an_outcome_is_superseded_only_where_a_dispatcher_stood_still() {
    let late = |seen: &mut Seen| {
        seen.requests.push(request(3, 20_000));
        seen.attempts.push(Attempt {
            superseded: true,
            ..attempt(3, 20_000)
        });
    };
    violates(late, "nobody stood still");
    let mut seen = as_it_should_be();
    late(&mut seen);
    seen.strikes = vec![strike(Kind::Stop, 21_000, 38_000)];
    let figures = is_right(&seen);
    assert_eq!((figures.duplicates, figures.superseded), (1, 1));
}

#[test]
fn a_second_success_is_found_and_a_retry_is_right() {
    let again = |seen: &mut Seen, class: Option<&str>| {
        seen.requests.push(request(3, 20_000));
        seen.attempts.push(Attempt {
            error_class: class.map(str::to_owned),
            http_status: class.is_none().then_some(200),
            ..attempt(3, 20_000)
        });
    };
    violates(|seen| again(seen, None), "more than one success");
    let mut seen = as_it_should_be();
    again(&mut seen, Some("timeout"));
    assert_eq!(is_right(&seen).duplicates, 1);
}

#[test]
fn an_earlier_arrival_of_a_later_event_of_the_chat_is_found() {
    let swap = |seen: &mut Seen| seen.requests.swap(0, 1);
    violates(swap, "out of order in its chat");
    let mut seen = as_it_should_be();
    swap(&mut seen);
    seen.kept[0].ordered = false;
    is_right(&seen);
}

#[test]
fn delays_are_of_who_behaves_well_in_that_time() {
    let mut seen = as_it_should_be();
    seen.kept[0].ordered = false;
    assert_eq!(delays(&seen, at(0), at(300)), [2.0, 2.0]);
    seen.committed[0].line = 1;
    assert_eq!(delays(&seen, at(0), at(300)), [2.0]);
}
