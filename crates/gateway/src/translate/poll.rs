//! Polls, and votes in them.
//!
//! A vote is encrypted under a key of the poll's message, so that a pure function can say only that there
//! was one.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as proto;

use super::change::Target;
use super::content::{Content, flag, said};
use super::parties::Parties;
use super::time;

#[derive(Serialize)]
struct Poll<'a> {
    question: &'a str,
    options: Vec<&'a str>,
    /// How many may be chosen; 0 is any number.
    selectable: u32,
    quiz: Option<bool>,
    ends_at: Option<String>,
    /// Nobody sees who voted for what.
    hidden_voters: Option<bool>,
}

#[derive(Serialize)]
struct Vote<'a> {
    #[serde(flatten)]
    poll: Target<'a>,
    encrypted: bool,
    voted_at: Option<String>,
}

#[derive(Serialize)]
struct PollResult<'a> {
    question: &'a str,
    votes: Vec<OptionVotes<'a>>,
}

#[derive(Serialize)]
struct OptionVotes<'a> {
    option: &'a str,
    votes: i64,
}

pub(super) fn of<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    let created = [
        &message.poll_creation_message,
        &message.poll_creation_message_v2,
        &message.poll_creation_message_v3,
        &message.poll_creation_message_v5,
        &message.poll_creation_message_v6,
    ];
    if let Some(poll) = created.into_iter().find_map(|poll| poll.as_option()) {
        return Some(creation(poll));
    }
    if let Some(update) = message.poll_update_message.as_option() {
        let vote = Vote {
            poll: Target::of(&update.poll_creation_message_key, parties),
            encrypted: true,
            voted_at: time::millis(update.sender_timestamp_ms),
        };
        let mut content = Content::new("poll_vote", "").with("poll_vote", vote);
        content.keep_raw = true;
        return Some(content);
    }
    let result = message.poll_result_snapshot_message.as_option();
    let result = result.or(message.poll_result_snapshot_message_v3.as_option())?;
    let question = said(&result.name).unwrap_or_default();
    let votes = result.poll_votes.iter().map(|line| OptionVotes {
        option: said(&line.option_name).unwrap_or_default(),
        votes: line.option_vote_count.unwrap_or_default(),
    });
    let details = PollResult {
        question,
        votes: votes.collect(),
    };
    Some(Content::new("poll_result", question).with("poll_result", details))
}

fn creation(poll: &proto::PollCreationMessage) -> Content<'_> {
    let question = said(&poll.name).unwrap_or_default();
    let options = poll.options.iter();
    let details = Poll {
        question,
        options: options
            .map(|option| said(&option.option_name).unwrap_or_default())
            .collect(),
        selectable: poll.selectable_options_count.unwrap_or_default(),
        quiz: flag(poll.poll_type.map(|kind| kind == proto::PollType::QUIZ)),
        ends_at: time::seconds(poll.end_time.filter(|at| *at > 0)),
        hidden_voters: flag(poll.hide_participant_name),
    };
    Content::new("poll", question).with("poll", details)
}
