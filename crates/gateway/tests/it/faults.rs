//! What a server can do to a session: it recovers by itself or says why it does not, and no other session
//! notices.

mod bulk;
mod endings;
mod nonsense;
mod scene;
mod silence;
mod steps;
