//! How many of all sessions are one gateway's share.

use domain::gateway::Peer;

/// More than its share, by less than this, is no reason to move sessions.
const TOLERANCE: usize = 2;
/// The same, as a part of the share.
const TOLERANCE_PART: usize = 10;

/// What a gateway makes of the others that run. The default: it should hold nothing, and nobody would take it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// How many sessions it should hold; it claims no more.
    pub(super) sessions: usize,
    /// How many it may hold before it gives some up.
    pub(super) tolerated: usize,
    /// How many sessions a second those start together who would take what it gives up. 0: there are none.
    pub(super) takers_rate: usize,
}

impl Share {
    /// Of a gateway that is among these or about to be, while so many connections have no owner. Everybody
    /// who stays gets the same, up to what they can hold.
    pub(super) fn of(me: &Peer, peers: &[Peer], free: usize) -> Self {
        let others = || peers.iter().filter(|peer| peer.id != me.id);
        let total = others().map(sessions).sum::<usize>() + sessions(me) + free;
        let capacities: Vec<usize> = others()
            .chain(std::iter::once(me))
            .filter(|peer| !peer.draining)
            .map(capacity)
            .collect();
        let level = level(&capacities, total);
        let share = match me.draining {
            true => 0,
            false => capacity(me).min(level),
        };
        let takers = others().filter(|peer| !peer.draining && sessions(peer) < capacity(peer));
        Self {
            sessions: share,
            tolerated: match me.draining {
                true => 0,
                false => share + TOLERANCE.max(share / TOLERANCE_PART),
            },
            takers_rate: takers.map(|peer| count(peer.connect_rate)).sum(),
        }
    }
}

/// The least that each may hold, up to its capacity, so that all of them together hold the total.
fn level(capacities: &[usize], total: usize) -> usize {
    let mut sorted = capacities.to_vec();
    sorted.sort_unstable();
    let (mut left, mut level) = (total, 0);
    for (done, capacity) in sorted.iter().enumerate() {
        let gateways = sorted.len() - done;
        level = left.div_ceil(gateways);
        if level <= *capacity {
            break;
        }
        left = left.saturating_sub(*capacity);
    }
    level
}

fn sessions(peer: &Peer) -> usize {
    count(peer.sessions)
}

fn capacity(peer: &Peer) -> usize {
    count(peer.capacity)
}

fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn peer(id: u128, capacity: i32, sessions: i32) -> Peer {
        Peer {
            id: Uuid::from_u128(id),
            capacity,
            connect_rate: 5,
            sessions,
            draining: false,
        }
    }

    fn share(me: &Peer, others: &[Peer], free: usize) -> usize {
        Share::of(me, others, free).sessions
    }

    #[test]
    fn a_gateway_alone_takes_what_it_can_hold() {
        assert_eq!(share(&peer(1, 100, 0), &[], 7), 7);
        assert_eq!(share(&peer(1, 100, 0), &[], 1000), 100);
        assert_eq!(
            share(&peer(1, 100, 60), &[peer(1, 100, 58)], 0),
            60,
            "what it knows of itself counts"
        );
    }

    #[test]
    fn gateways_share_evenly_and_the_larger_take_what_the_smaller_cannot() {
        let (small, large) = (peer(1, 10, 0), peer(2, 500, 200));
        assert_eq!(share(&small, std::slice::from_ref(&large), 0), 10);
        assert_eq!(share(&large, &[small], 0), 190);
        let all = [peer(1, 100, 0), peer(2, 100, 31), peer(3, 100, 0)];
        let shares: Vec<_> = all.iter().map(|me| share(me, &all, 0)).collect();
        assert_eq!(shares, [11, 11, 11], "together no less than there are");
    }

    #[test]
    fn a_few_more_than_the_share_stay_where_they_are() {
        let others = [peer(2, 500, 90)];
        let even = Share::of(&peer(1, 500, 110), &others, 0);
        assert_eq!((even.sessions, even.tolerated), (100, 110));
        let newcomer = [peer(2, 500, 0)];
        let full = Share::of(&peer(1, 500, 200), &newcomer, 0);
        assert_eq!(
            (full.sessions, full.tolerated, full.takers_rate),
            (100, 110, 5)
        );
    }

    #[test]
    fn who_drains_keeps_nothing_and_those_who_are_full_take_nothing() {
        let mut me = peer(1, 500, 200);
        me.draining = true;
        let drained = Share::of(&me, &[peer(2, 500, 0)], 0);
        assert_eq!(
            (drained.sessions, drained.tolerated, drained.takers_rate),
            (0, 0, 5)
        );
        let full = Share::of(&me, &[peer(2, 50, 50)], 0);
        assert_eq!(full.takers_rate, 0);
        let other = Share::of(&peer(2, 500, 0), &[me], 0);
        assert_eq!(other.sessions, 200);
    }
}
