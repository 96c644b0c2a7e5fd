use proptest::prelude::*;

use super::*;

const TOOK: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn hook(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Of the client 1.
fn terms() -> Terms {
    Terms {
        client: 1,
        max_in_flight: 16,
        batch: None,
        limited: false,
    }
}

fn of(client: i32) -> Terms {
    Terms { client, ..terms() }
}

fn batches(max_events: usize, max_wait: Duration) -> Terms {
    let batch = Some(Batch {
        max_events,
        max_wait,
    });
    Terms { batch, ..terms() }
}

fn offer(work: u32) -> Offer<u32> {
    Offer {
        work,
        size: 100,
        alone: false,
    }
}

fn ended(took: Duration) -> Ended {
    Ended {
        took,
        answered: true,
        delivered: true,
        lagged: false,
    }
}

/// Offers so many, and starts what can start: how many were started, are queued, were refused.
fn fill(
    lanes: &mut Lanes<u32>,
    webhook: Uuid,
    terms: Terms,
    count: u32,
    now: Instant,
) -> (usize, usize, usize) {
    let refused = (0..count)
        .filter(|work| lanes.offer(webhook, terms, offer(*work), now).is_err())
        .count();
    let started = started(lanes, now).len();
    (started, count as usize - refused - started, refused)
}

fn started(lanes: &mut Lanes<u32>, now: Instant) -> Vec<Job<u32>> {
    std::iter::from_fn(|| lanes.next(now)).collect()
}

/// Ends a request, and what starts then.
fn finish(lanes: &mut Lanes<u32>, webhook: Uuid, now: Instant) -> Option<u32> {
    lanes.finish(webhook, ended(TOOK), now);
    lanes.next(now).map(|job| job.work[0])
}

#[test]
fn one_webhook_has_sixteen_in_flight_and_the_others_are_not_kept_waiting() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    assert_eq!(fill(&mut lanes, hook(1), terms(), 40, now), (16, 24, 0));
    assert_eq!(fill(&mut lanes, hook(2), terms(), 1, now), (1, 0, 0));
    let one = Terms {
        max_in_flight: 1,
        ..terms()
    };
    assert_eq!(fill(&mut lanes, hook(3), one, 3, now), (1, 2, 0));
}

#[test]
fn a_slot_goes_to_the_next_in_its_lane() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    fill(&mut lanes, hook(1), terms(), 18, now);
    assert_eq!(finish(&mut lanes, hook(1), now), Some(16));
    assert_eq!(finish(&mut lanes, hook(1), now), Some(17));
    assert_eq!(finish(&mut lanes, hook(1), now), None);
    assert_eq!(lanes.running, 15);
}

#[test]
fn when_all_slots_are_taken_clients_take_turns_and_not_their_webhooks() {
    let now = Instant::now();
    let mut lanes = Lanes::new(2, 1000);
    fill(&mut lanes, hook(1), of(1), 2, now);
    for (webhook, client) in [(11, 1), (12, 1), (13, 1), (21, 2), (31, 3)] {
        assert_eq!(
            fill(&mut lanes, hook(webhook), of(client), 1, now),
            (0, 1, 0)
        );
    }
    lanes.finish(hook(1), ended(TOOK), now);
    let first = lanes.next(now).unwrap().webhook;
    lanes.finish(hook(1), ended(TOOK), now);
    let second = lanes.next(now).unwrap().webhook;
    lanes.finish(first, ended(TOOK), now);
    let third = lanes.next(now).unwrap().webhook;
    assert_eq!([first, second, third], [hook(11), hook(21), hook(31)]);
}

#[test]
fn a_lane_that_hangs_keeps_nothing_that_it_will_not_start() {
    let start = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    let (started, queued, refused) = fill(&mut lanes, hook(1), terms(), 1000, start);
    assert_eq!((started, queued), (16, 533 - 16));
    assert_eq!(started + queued + refused, 1000);
    let later = start + SECOND;
    let shed = lanes.shed(later);
    assert_eq!(shed.len(), 533 - 16 - 8);
    assert_eq!(fill(&mut lanes, hook(1), terms(), 5, later), (0, 0, 5));
    let much_later = start + 60 * SECOND;
    lanes.shed(much_later);
    let refused = lanes.offer(hook(1), terms(), offer(1), much_later);
    assert_eq!(refused.unwrap_err().pace, 1);
}

#[test]
fn a_fast_lane_may_fill_all_room_there_is_while_nobody_else_wants_it() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 2000);
    fill(&mut lanes, hook(1), terms(), 416, now);
    for _ in 0..32 {
        finish(&mut lanes, hook(1), now);
    }
    let (_, queued, refused) = fill(&mut lanes, hook(1), terms(), 1500, now);
    assert_eq!((queued, refused), (1500, 0));
    // Others come, and it has to make do with its share: 4 times 2000 / 20 clients.
    for client in 2..=20 {
        fill(&mut lanes, hook(client as u128), of(client), 20, now);
    }
    lanes.shed(now);
    assert_eq!(lanes.lanes[&hook(1)].waiting(), 400);
}

#[test]
fn many_receivers_that_hang_leave_slots_for_those_that_answer() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    for webhook in 0..50 {
        fill(&mut lanes, hook(webhook), terms(), 20, now);
    }
    assert!(lanes.running < 64 + 1);
    // Those under way for long give their slots up, and the next ones hang as well.
    for _ in 0..4 {
        now += SECOND;
        let hanging = lanes.running;
        for webhook in (0..50).cycle().take(hanging) {
            lanes.lag(hook(webhook), now);
        }
        started(&mut lanes, now);
    }
    assert!(lanes.laggards <= most_laggards(64));
    assert_eq!(fill(&mut lanes, hook(99), terms(), 1, now), (1, 0, 0));
}

#[test]
fn while_slots_run_short_a_lane_grows_with_the_answers_of_its_receiver() {
    let now = Instant::now();
    let mut lanes = Lanes::new(20, 1000);
    fill(&mut lanes, hook(1), terms(), 10, now);
    assert_eq!(fill(&mut lanes, hook(2), terms(), 16, now).0, 2);
    lanes.finish(hook(2), ended(TOOK), now);
    assert_eq!(started(&mut lanes, now).len(), 2);
}

#[test]
fn a_batch_goes_when_it_is_full_or_its_first_event_has_waited_long_enough() {
    let start = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    let terms = batches(3, SECOND);
    assert_eq!(fill(&mut lanes, hook(1), terms, 2, start), (0, 2, 0));
    assert_eq!(lanes.wakes_at(), Some(start + SECOND));
    let later = start + SECOND / 2;
    lanes.offer(hook(1), terms, offer(7), later).unwrap();
    lanes.offer(hook(1), terms, offer(8), later).unwrap();
    let jobs = started(&mut lanes, later);
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].work, [0, 1, 7]);
    assert_eq!(lanes.wakes_at(), Some(later + SECOND));
    let jobs = started(&mut lanes, later + SECOND);
    assert_eq!(jobs[0].work, [8]);
}

#[test]
fn what_is_retried_goes_in_no_batch_with_others() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    let terms = batches(10, SECOND);
    for (work, alone) in [(1, false), (2, true), (3, false)] {
        let offer = Offer {
            alone,
            ..offer(work)
        };
        lanes.offer(hook(1), terms, offer, now).unwrap();
    }
    let work: Vec<_> = started(&mut lanes, now + SECOND)
        .into_iter()
        .map(|job| job.work)
        .collect();
    assert_eq!(work, [vec![1], vec![2], vec![3]]);
}

#[test]
fn a_large_batch_goes_before_it_is_full() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    let terms = batches(100, SECOND);
    for work in 0..4 {
        let offer = Offer {
            size: 400 * 1024,
            ..offer(work)
        };
        lanes.offer(hook(1), terms, offer, now).unwrap();
    }
    let jobs = started(&mut lanes, now);
    assert_eq!(jobs[0].work, [0, 1, 2]);
}

#[test]
fn a_limited_lane_starts_what_it_has_a_grant_for_when_its_time_comes() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    let terms = Terms {
        limited: true,
        ..terms()
    };
    assert_eq!(fill(&mut lanes, hook(1), terms, 5, now), (0, 5, 0));
    let want = Want {
        webhook: hook(1),
        requests: 5,
    };
    assert_eq!(lanes.wants(now), [want]);
    assert_eq!(lanes.wants(now), [], "it is asked for once");
    let tenth = SECOND / 10;
    let denied = lanes.grant(hook(1), 5, &[now, now + tenth, now + 2 * tenth], now);
    assert_eq!(denied, [4, 3]);
    for n in 0..3 {
        let jobs = started(&mut lanes, now + n * tenth);
        assert_eq!(jobs.len(), 1, "{n}");
    }
    assert_eq!(lanes.wants(now), []);
}

#[test]
fn a_grant_that_could_not_be_used_is_lost_and_asked_for_anew() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    let terms = Terms {
        limited: true,
        max_in_flight: 1,
        ..terms()
    };
    fill(&mut lanes, hook(1), terms, 3, now);
    lanes.wants(now);
    lanes.grant(hook(1), 3, &[now; 3], now);
    assert_eq!(started(&mut lanes, now).len(), 1);
    let later = now + SECOND;
    lanes.finish(hook(1), ended(SECOND), later);
    assert_eq!(started(&mut lanes, later), []);
    let want = Want {
        webhook: hook(1),
        requests: 2,
    };
    assert_eq!(lanes.wants(later), [want]);
}

#[test]
fn what_waits_is_spared_when_five_in_a_row_have_failed() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    fill(&mut lanes, hook(1), terms(), 100, now);
    let failed = Ended {
        delivered: false,
        ..ended(TOOK)
    };
    for _ in 0..4 {
        assert_eq!(lanes.finish(hook(1), failed, now), []);
        assert_eq!(started(&mut lanes, now).len(), 1);
    }
    assert_eq!(lanes.finish(hook(1), failed, now).len(), 80);
    assert_eq!(started(&mut lanes, now), []);
    assert!(lanes.offer(hook(1), terms(), offer(1), now).is_err());
    // One that is delivered after all is a new beginning.
    assert_eq!(lanes.finish(hook(1), ended(TOOK), now), []);
    assert!(lanes.offer(hook(1), terms(), offer(1), now).is_ok());
}

#[test]
fn draining_takes_what_waits_and_leaves_what_runs() {
    let now = Instant::now();
    let mut lanes = Lanes::new(64, 1000);
    fill(&mut lanes, hook(1), terms(), 20, now);
    assert_eq!(lanes.drain(now), [19, 18, 17, 16]);
    assert_eq!(lanes.running, 16);
    assert_eq!(finish(&mut lanes, hook(1), now), None);
}

proptest! {
    #[test]
    fn nothing_is_lost_and_no_limit_is_passed(
        slots in 1_usize..40,
        longest in 1_usize..60,
        steps in prop::collection::vec((0_u128..6, 0_u8..8), 1..400),
    ) {
        let mut now = Instant::now();
        let mut lanes = Lanes::new(slots, longest);
        // Some in batches, some with a rate, some with few in flight; two clients.
        let kind = |webhook: u128| Terms {
            client: (webhook % 2) as i32,
            max_in_flight: if webhook == 5 { 2 } else { 16 },
            batch: (webhook % 3 == 1).then_some(Batch { max_events: 4, max_wait: SECOND }),
            limited: webhook >= 4,
        };
        let mut running: Vec<(Job<u128>, bool)> = Vec::new();
        let (mut offered, mut ended_at) = (0_usize, 0_usize);
        for (webhook, step) in steps {
            match step {
                0..=3 => {
                    offered += 1;
                    let offer = Offer { work: webhook, size: 100, alone: step == 0 };
                    if lanes.offer(hook(webhook), kind(webhook), offer, now).is_err() {
                        ended_at += 1;
                    }
                }
                4 => now += SECOND / 10,
                5 => if let Some((job, lagged)) = running.iter_mut().find(|(_, lagged)| !lagged) {
                    *lagged = lanes.lag(job.webhook, now);
                },
                _ => if let Some((job, lagged)) = running.pop() {
                    ended_at += job.work.len();
                    let ended = Ended { lagged, ..ended(TOOK) };
                    lanes.finish(job.webhook, ended, now);
                },
            }
            for want in lanes.wants(now) {
                let starts = vec![now; want.requests.div_ceil(2)];
                ended_at += lanes.grant(want.webhook, want.requests, &starts, now).len();
            }
            running.extend(std::iter::from_fn(|| lanes.next(now)).map(|job| (job, false)));
            let young = running.iter().filter(|(_, lagged)| !lagged).count();
            prop_assert_eq!(young, lanes.running);
            prop_assert_eq!(running.len() - young, lanes.laggards);
            prop_assert!(young <= slots && lanes.laggards <= most_laggards(slots));
            for webhook in 0..6 {
                let terms = kind(webhook);
                let jobs = || running.iter().filter(|(job, _)| job.webhook == hook(webhook));
                prop_assert!(jobs().count() <= terms.max_in_flight);
                let most = terms.batch.map_or(1, |batch| batch.max_events);
                prop_assert!(jobs().all(|(job, _)| (1..=most).contains(&job.work.len())));
                prop_assert!(jobs().all(|(job, _)| job.work.iter().all(|work| *work == webhook)));
            }
        }
        // All that waits comes out when time passes and requests end.
        for _ in 0..2000 {
            now += SECOND;
            while let Some((job, lagged)) = running.pop() {
                ended_at += job.work.len();
                lanes.finish(job.webhook, Ended { lagged, ..ended(TOOK) }, now);
            }
            for want in lanes.wants(now) {
                lanes.grant(want.webhook, want.requests, &vec![now; want.requests], now);
            }
            running.extend(std::iter::from_fn(|| lanes.next(now)).map(|job| (job, false)));
        }
        prop_assert!(running.is_empty());
        prop_assert_eq!(ended_at, offered);
        prop_assert!(lanes.lanes.is_empty() && lanes.clients.is_empty() && lanes.timers.is_empty());
    }
}
