//! A model of the claim protocol: one webhook, one or two events of one chat, two dispatchers that crash and
//! are paused at any moment, a client that requeues, a circuit. [`explored`] visits every state that there is;
//! [`in_sql`] walks at random through the real statements beside it.
//!
//! Time is what may have happened: a wait is over or not. What bounds it is the rule that a dispatcher which
//! runs has posted before its claim's deadline.

mod explored;
mod in_sql;

/// Attempts in all.
pub(crate) const ATTEMPTS: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Status {
    Pending,
    Delivered,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Due {
    /// The poller may take it.
    Now,
    /// In a backoff, or claimed until a deadline.
    Later,
    /// Parked.
    Never,
}

pub(crate) type Token = u8;

/// The name of a token until [`State::forget_names`] has given it another: more than claims there can be.
const NEW: Token = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    pub(crate) status: Status,
    pub(crate) due: Due,
    pub(crate) token: Option<Token>,
    pub(crate) attempts: u8,
    /// It waits for its turn in the chat, and is to be called.
    pub(crate) waits: bool,
    /// How often its receiver may still get it: once, and once more for each request of the client, and for
    /// each time that it was received and the outcome died with its dispatcher, or came after the deadline.
    owed: i8,
}

impl Event {
    fn owe(&mut self) {
        self.owed = (self.owed + 1).min(4);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Work {
    Idle,
    /// Claimed, not begun.
    Holds(Claim),
    /// The request is under way.
    Posts(Claim),
    /// The outcome is known here only, or it is not known whether it was written.
    Knows(Claim, bool),
    /// The outcome was written, and the answer to that was lost.
    Wrote(Claim, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) event: usize,
    pub(crate) token: Token,
    pub(crate) probe: bool,
}

impl Work {
    fn claim_mut(&mut self) -> Option<&mut Claim> {
        match self {
            Self::Idle => None,
            Self::Holds(claim) | Self::Posts(claim) => Some(claim),
            Self::Knows(claim, _) | Self::Wrote(claim, _) => Some(claim),
        }
    }

    pub(crate) fn claim(self) -> Option<Claim> {
        match self {
            Self::Idle => None,
            Self::Holds(claim) | Self::Posts(claim) => Some(claim),
            Self::Knows(claim, _) | Self::Wrote(claim, _) => Some(claim),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Dispatcher {
    pub(crate) work: Work,
    pub(crate) paused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// How many of the events there are.
    pub(crate) count: usize,
    pub(crate) events: [Event; 2],
    pub(crate) dispatchers: [Dispatcher; 2],
    pub(crate) open: bool,
    /// When what is parked is looked at; `Never` where nothing is.
    pub(crate) look: Due,
    /// Tokens under which an outcome has been written.
    written: u8,
    crashes: u8,
    pauses: u8,
    requeues: u8,
    outages: u8,
}

/// How much may go wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) events: usize,
    pub(crate) crashes: u8,
    pub(crate) pauses: u8,
    pub(crate) requeues: u8,
    /// How often the circuit opens.
    pub(crate) outages: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A ring, which may be late or a replay.
    Ring(usize, usize),
    Poll(usize, usize),
    Probe(usize, usize),
    Post(usize),
    /// The request ends, well or not.
    Answer(usize, bool),
    Record(usize),
    /// It is recorded, and the connection lost before the answer.
    RecordUnheard(usize),
    GiveBack(usize),
    Park(usize),
    Crash(usize),
    Pause(usize),
    Wake(usize),
    /// A backoff is over, or a claim's deadline passes.
    Wait(usize),
    WaitForLook,
    Requeue(usize),
    Open,
    SetAside,
    Follow,
    Flow,
}

/// A protocol with one rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// An outcome is written whatever token stands.
    NoTokenCheck,
    /// A claim is given back whatever token stands.
    NoTokenCheckOnRelease,
    /// The deadline may pass while a dispatcher that runs is posting.
    ShortDeadline,
    /// A claim is no longer due by itself.
    NoDeadline,
    /// A ring takes what is claimed or in a backoff.
    RingTakesAll,
    /// An outcome is written without spending its token, nor looking for the attempt on record.
    NothingSpent,
    /// Who parks sets no time to look.
    NoLook,
    /// Nobody is called when the one before is through, nor looked at later.
    NoCall,
    /// A probe that fails uses up nothing, and is parked without a look to come.
    ProbeForgets,
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        let event = Event {
            status: Status::Pending,
            due: Due::Later,
            token: None,
            attempts: 0,
            waits: false,
            owed: 1,
        };
        let none = Event {
            status: Status::Delivered,
            due: Due::Never,
            ..event
        };
        let second = if limits.events == 2 { event } else { none };
        let dispatcher = Dispatcher {
            work: Work::Idle,
            paused: false,
        };
        Self {
            count: limits.events,
            events: [event, second],
            dispatchers: [dispatcher; 2],
            open: false,
            look: Due::Never,
            written: 0,
            crashes: limits.crashes,
            pauses: limits.pauses,
            requeues: limits.requeues,
            outages: limits.outages,
        }
    }

    /// Every step that can be tried here; [`State::after`] says which of them do anything.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = vec![
            Step::WaitForLook,
            Step::Open,
            Step::Flow,
            Step::SetAside,
            Step::Follow,
        ];
        for event in 0..self.count {
            steps.extend([Step::Wait(event), Step::Requeue(event)]);
        }
        for who in 0..2 {
            for event in 0..self.count {
                steps.extend([
                    Step::Ring(who, event),
                    Step::Poll(who, event),
                    Step::Probe(who, event),
                ]);
            }
            steps.extend([
                Step::Post(who),
                Step::Answer(who, true),
                Step::Answer(who, false),
                Step::Record(who),
                Step::RecordUnheard(who),
                Step::GiveBack(who),
                Step::Park(who),
                Step::Crash(who),
                Step::Pause(who),
                Step::Wake(who),
            ]);
        }
        steps
    }

    /// Whether no earlier event of the chat is to be delivered before.
    pub(crate) fn in_turn(&self, event: usize) -> bool {
        self.events[..event]
            .iter()
            .all(|earlier| earlier.status != Status::Pending)
    }

    pub(crate) fn parked(&self) -> bool {
        self.events
            .iter()
            .any(|event| event.status == Status::Pending && event.due == Due::Never)
    }

    /// Tokens are drawn anew: all that is known of them is which are the same.
    fn forget_names(&mut self) {
        let held = self
            .dispatchers
            .map(|d| d.work.claim().map(|claim| claim.token));
        let mut known: Vec<Token> = Vec::with_capacity(4);
        for token in self.events.iter().map(|e| e.token).chain(held).flatten() {
            if !known.contains(&token) {
                known.push(token);
            }
        }
        let name = |token: Token| {
            let place = known.iter().position(|known| *known == token);
            place.expect("it is known") as Token
        };
        for event in &mut self.events {
            event.token = event.token.map(name);
        }
        for dispatcher in &mut self.dispatchers {
            if let Some(claim) = dispatcher.work.claim_mut() {
                claim.token = name(claim.token);
            }
        }
        let written = known.iter().enumerate();
        self.written = written
            .filter(|(_, token)| self.written & (1 << **token) != 0)
            .fold(0, |bits, (place, _)| bits | 1 << place);
    }

    /// What holds after a step; `None` where it can't be taken, or does nothing. Which dispatcher is which is
    /// forgotten: they are alike.
    pub(crate) fn after(&self, step: Step, flaw: Flaw) -> Option<Self> {
        let mut next = self.beside(step, flaw)?;
        next.dispatchers.sort();
        Some(next)
    }

    /// The same, with each dispatcher in its place.
    pub(crate) fn beside(&self, step: Step, flaw: Flaw) -> Option<Self> {
        let mut next = *self;
        let done = match step {
            Step::Ring(who, event) => next.ring(who, event, flaw),
            Step::Poll(who, event) => {
                self.events[event].due == Due::Now && !self.open && next.claim(who, event, flaw)
            }
            Step::Probe(who, event) => next.probe(who, event, flaw),
            Step::Post(who) => next.post(who),
            Step::Answer(who, well) => next.answer(who, well),
            Step::Record(who) => next.record(who, flaw, Heard::Yes),
            Step::RecordUnheard(who) => next.record(who, flaw, Heard::No),
            Step::GiveBack(who) => next.give_back(who, flaw, Due::Now),
            Step::Park(who) => next.give_back(who, flaw, Due::Never),
            Step::Crash(who) => next.crash(who),
            Step::Pause(who) => next.pause(who),
            Step::Wake(who) => std::mem::take(&mut next.dispatchers[who].paused),
            Step::Wait(event) => next.wait(event, flaw),
            Step::WaitForLook => {
                next.look = Due::Now;
                self.look == Due::Later
            }
            Step::Requeue(event) => next.requeue(event),
            Step::Open => {
                (next.open, next.look) = (true, Due::Later);
                next.outages = next.outages.saturating_sub(1);
                !self.open && self.outages > 0
            }
            Step::SetAside => next.set_aside(flaw),
            Step::Follow => next.follow(flaw),
            Step::Flow => next.flow(),
        };
        next.forget_names();
        (done && next != *self).then_some(next)
    }

    fn ring(&mut self, who: usize, event: usize, flaw: Flaw) -> bool {
        let rung = self.events[event];
        let fresh = rung.attempts == 0 && rung.token.is_none() && rung.due != Due::Never;
        let takes = fresh || rung.due == Due::Now || flaw == Flaw::RingTakesAll;
        takes && !self.open && self.claim(who, event, flaw)
    }

    fn claim(&mut self, who: usize, event: usize, flaw: Flaw) -> bool {
        let idle = self.dispatchers[who].work == Work::Idle && !self.dispatchers[who].paused;
        let pending = self.events[event].status == Status::Pending;
        if !idle || !pending || !self.in_turn(event) {
            return false;
        }
        self.dispatchers[who].work = Work::Holds(Claim {
            event,
            token: NEW,
            probe: self.open,
        });
        let claimed = &mut self.events[event];
        claimed.token = Some(NEW);
        claimed.waits = false;
        claimed.due = match flaw {
            Flaw::NoDeadline => Due::Never,
            _ => Due::Later,
        };
        true
    }

    fn probe(&mut self, who: usize, event: usize, flaw: Flaw) -> bool {
        let parked = self.events[event].due == Due::Never;
        let looks = self.open && self.look == Due::Now;
        if !looks || !parked || !self.claim(who, event, flaw) {
            return false;
        }
        self.look = Due::Later;
        true
    }

    fn runs(&self, who: usize) -> bool {
        !self.dispatchers[who].paused
    }

    /// A dispatcher that runs has looked at the claim's deadline; one that was paused had looked before.
    fn post(&mut self, who: usize) -> bool {
        let Work::Holds(claim) = self.dispatchers[who].work else {
            return false;
        };
        self.dispatchers[who].work = Work::Posts(claim);
        self.runs(who) && self.stands(claim)
    }

    /// Whether a claim's deadline is still to come.
    fn stands(&self, claim: Claim) -> bool {
        let event = self.events[claim.event];
        event.token == Some(claim.token) && event.due == Due::Later
    }

    fn answer(&mut self, who: usize, well: bool) -> bool {
        let Work::Posts(claim) = self.dispatchers[who].work else {
            return false;
        };
        self.events[claim.event].owed -= i8::from(well);
        self.dispatchers[who].work = Work::Knows(claim, well);
        self.runs(who)
    }

    fn record(&mut self, who: usize, flaw: Flaw, heard: Heard) -> bool {
        let (claim, well, again) = match self.dispatchers[who].work {
            Work::Knows(claim, well) => (claim, well, false),
            Work::Wrote(claim, well) => (claim, well, true),
            _ => return false,
        };
        self.dispatchers[who].work = match heard {
            Heard::Yes => Work::Idle,
            Heard::No => Work::Wrote(claim, well),
        };
        let stands = self.events[claim.event].token == Some(claim.token);
        // The attempt that is on record already changes nothing.
        let again = again && flaw != Flaw::NothingSpent;
        if !again && (stands || flaw == Flaw::NoTokenCheck) {
            self.written |= 1 << claim.token;
            self.write(claim, well, flaw);
        }
        if !again {
            self.health(claim, well, flaw);
        }
        self.runs(who) && !(again && heard == Heard::No)
    }

    fn write(&mut self, claim: Claim, well: bool, flaw: Flaw) {
        let event = &mut self.events[claim.event];
        if flaw != Flaw::NothingSpent {
            event.token = None;
        }
        if well {
            (event.status, event.due) = (Status::Delivered, Due::Never);
            event.attempts = (event.attempts + 1).min(ATTEMPTS);
        } else if claim.probe {
            event.due = Due::Never;
        } else {
            event.attempts = (event.attempts + 1).min(ATTEMPTS);
            (event.status, event.due) = match event.attempts {
                ATTEMPTS => (Status::Failed, Due::Never),
                _ => (Status::Pending, Due::Later),
            };
        }
        if self.events[claim.event].status != Status::Pending && flaw != Flaw::NoCall {
            self.call_next();
        }
    }

    /// What an attempt says of the receiver, it does also when its claim was lost.
    fn health(&mut self, claim: Claim, well: bool, flaw: Flaw) {
        if well {
            if std::mem::take(&mut self.open) {
                self.look = Due::Now;
            }
        } else if claim.probe {
            self.look = match (flaw, self.open, self.look) {
                (Flaw::ProbeForgets, ..) => Due::Never,
                (_, true, _) => Due::Later,
                (_, false, Due::Never) => Due::Now,
                (_, false, look) => look,
            };
        }
    }

    /// The first that is in nobody's hands, where it waits for its turn or was never tried.
    fn call_next(&mut self) {
        let next = self
            .events
            .iter_mut()
            .find(|event| event.status == Status::Pending && event.token.is_none());
        if let Some(next) = next
            && next.due != Due::Never
            && (next.waits || next.attempts == 0)
        {
            (next.due, next.waits) = (Due::Now, false);
        }
    }

    fn give_back(&mut self, who: usize, flaw: Flaw, due: Due) -> bool {
        let Work::Holds(claim) = self.dispatchers[who].work else {
            return false;
        };
        self.dispatchers[who].work = Work::Idle;
        let event = &mut self.events[claim.event];
        let stands = event.token == Some(claim.token);
        if stands || (flaw == Flaw::NoTokenCheckOnRelease && event.status == Status::Pending) {
            (event.token, event.due) = (None, due);
            if due == Due::Never && self.look == Due::Never && flaw != Flaw::NoLook {
                self.look = Due::Now;
            }
        }
        self.runs(who)
    }

    /// Another process takes its place. What it posted may have arrived: then it crashes right after that.
    fn crash(&mut self, who: usize) -> bool {
        if self.crashes == 0 {
            return false;
        }
        self.crashes -= 1;
        if let Work::Knows(claim, true) = self.dispatchers[who].work {
            self.events[claim.event].owe();
        }
        self.dispatchers[who] = Dispatcher {
            work: Work::Idle,
            paused: false,
        };
        true
    }

    fn pause(&mut self, who: usize) -> bool {
        if self.pauses == 0 || !self.runs(who) || self.dispatchers[who].work == Work::Idle {
            return false;
        }
        self.pauses -= 1;
        // At the worst moment: it has just looked at the clock, and goes on to post when it wakes.
        if let Work::Holds(claim) = self.dispatchers[who].work
            && self.stands(claim)
        {
            self.dispatchers[who].work = Work::Posts(claim);
        }
        self.dispatchers[who].paused = true;
        true
    }

    fn wait(&mut self, event: usize, flaw: Flaw) -> bool {
        let waiting = self.events[event];
        let held = |d: &Dispatcher| {
            let claim = d.work.claim();
            claim.is_some_and(|claim| claim.event == event && waiting.token == Some(claim.token))
        };
        let busy = self.dispatchers.iter().position(held);
        if let Some(who) = busy {
            match self.dispatchers[who].work {
                // The deadline is longer than a request and its recording take. One that is cut off from
                // PostgreSQL meanwhile is as good as paused.
                Work::Posts(_) if self.runs(who) && flaw != Flaw::ShortDeadline => return false,
                Work::Knows(..) if self.runs(who) => return false,
                Work::Posts(_) | Work::Knows(_, true) if !self.runs(who) => {
                    self.events[event].owe();
                }
                _ => {}
            }
        }
        self.events[event].due = Due::Now;
        waiting.status == Status::Pending && waiting.due == Due::Later
    }

    fn requeue(&mut self, event: usize) -> bool {
        if self.requeues == 0 {
            return false;
        }
        self.requeues -= 1;
        let requeued = &mut self.events[event];
        requeued.owe();
        (requeued.status, requeued.attempts) = (Status::Pending, 0);
        (requeued.token, requeued.waits) = (None, false);
        requeued.due = Due::Now;
        if self.open {
            (requeued.due, self.look) = (Due::Never, Due::Now);
        }
        true
    }

    fn set_aside(&mut self, flaw: Flaw) -> bool {
        let open = self.open;
        let due = |event: &&mut Event| event.status == Status::Pending && event.due == Due::Now;
        for aside in self.events.iter_mut().filter(due) {
            (aside.due, aside.token, aside.waits) = (Due::Never, None, false);
            if self.look == Due::Never && flaw != Flaw::NoLook {
                self.look = Due::Now;
            }
        }
        open
    }

    fn follow(&mut self, flaw: Flaw) -> bool {
        for event in 0..self.count {
            let waiting = self.events[event];
            if self.in_turn(event) || waiting.status != Status::Pending || waiting.due != Due::Now {
                continue;
            }
            let follower = &mut self.events[event];
            (follower.token, follower.waits) = (None, true);
            follower.due = match flaw {
                Flaw::NoCall => Due::Never,
                _ => Due::Later,
            };
        }
        true
    }

    fn flow(&mut self) -> bool {
        if self.look != Due::Now {
            return false;
        }
        let parked = self.parked();
        if self.open {
            // A probe takes the look, where there is one to send.
            let ready = (0..self.count).any(|event| {
                let waiting = self.events[event];
                waiting.status == Status::Pending
                    && waiting.due == Due::Never
                    && self.in_turn(event)
            });
            if ready {
                return false;
            }
        } else {
            for event in &mut self.events {
                if event.status == Status::Pending && event.due == Due::Never {
                    event.due = Due::Now;
                }
            }
        }
        self.look = if parked { Due::Later } else { Due::Never };
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Yes,
    No,
}
