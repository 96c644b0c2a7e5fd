//! Files of messages that are sent. The gateway fetches them; here it is checked what can be before.

use diesel_async::AsyncPgConnection;
use domain::media::{File, Kind};
use domain::outbox::{Attachment, Source};
use domain::upload::Upload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::sending::checked;
use crate::address::OutsideUrl;
use crate::disposition;
use crate::error::ApiError;
use crate::state::State;

const LONGEST_CAPTION: usize = 4096;
const LONGEST_NAME: usize = 255;

/// By `url` or by `media_id`.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(as = File)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct Attached {
    /// Where it is fetched from.
    url: Option<OutsideUrl>,
    /// An upload's, or a message's with a file.
    media_id: Option<Uuid>,
    /// If it is not what the file says of itself.
    #[schema(
        pattern = "^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+ *(;[ -~]*)?$",
        max_length = 255
    )]
    mimetype: Option<String>,
    /// Of a document.
    #[schema(min_length = 1, max_length = 255)]
    file_name: Option<String>,
    /// Of anything but sound.
    #[schema(min_length = 1, max_length = 4_096)]
    caption: Option<String>,
    /// Sound only: as if it were spoken into the phone.
    voice: Option<bool>,
}

impl Attached {
    /// Whether its URL may be fetched, as far as can be told now. Looks its host up, so no connection to the
    /// database is to be held meanwhile.
    pub(super) async fn check_url(&self, state: &State, kind: Kind) -> Result<(), ApiError> {
        let Some(url) = self.url.clone() else {
            return Ok(());
        };
        let field = format!("{}.url", kind.as_str());
        url.permitted(&state.receivers, &field).await.map(drop)
    }

    pub(super) async fn checked(
        &self,
        state: &State,
        conn: &mut AsyncPgConnection,
        client_id: i32,
        kind: Kind,
    ) -> Result<Attachment, ApiError> {
        let field = |name: &str| format!("{}.{name}", kind.as_str());
        let text = |name: &str, text: &Option<String>, longest| {
            let text = text.as_deref();
            text.map(|text| checked(&field(name), text, longest))
                .transpose()
        };
        if self.caption.is_some() && kind == Kind::Audio {
            return Err(ApiError::field(field("caption"), "sound has none"));
        }
        if self.voice.is_some() && kind != Kind::Audio {
            return Err(ApiError::field(field("voice"), "is for audio only"));
        }
        if self.file_name.is_some() && kind != Kind::Document {
            return Err(ApiError::field(field("file_name"), "is for documents only"));
        }
        let mimetype = self.mimetype.as_deref();
        if !mimetype.is_none_or(disposition::is_media_type) {
            return Err(ApiError::field(field("mimetype"), "is not a media type"));
        }
        if kind.media_type(mimetype).is_none() {
            let detail = format!("must begin with {}/", kind.as_str());
            return Err(ApiError::field(field("mimetype"), detail));
        }
        Ok(Attachment {
            kind,
            source: self.source(state, conn, client_id, kind).await?,
            mimetype: self.mimetype.clone(),
            file_name: text("file_name", &self.file_name, LONGEST_NAME)?,
            caption: text("caption", &self.caption, LONGEST_CAPTION)?,
            voice: self.voice.unwrap_or_default(),
        })
    }

    async fn source(
        &self,
        state: &State,
        conn: &mut AsyncPgConnection,
        client_id: i32,
        kind: Kind,
    ) -> Result<Source, ApiError> {
        let field = |name: &str| format!("{}.{name}", kind.as_str());
        let id = match (&self.url, self.media_id) {
            (Some(url), None) => return Ok(Source::Url(url.as_str().to_owned())),
            (None, Some(id)) => id,
            _ => {
                let detail = "there must be either url or media_id";
                return Err(ApiError::field(field("url"), detail));
            }
        };
        let field = field("media_id");
        if let Some(upload) = Upload::find(conn, client_id, id).await? {
            let said = self.mimetype.as_deref().unwrap_or(&upload.mimetype);
            return match kind.media_type(Some(said)) {
                Some(_) => Ok(Source::Upload(id)),
                None => {
                    let detail = format!("the upload is no {}: it is {said}", kind.as_str());
                    Err(ApiError::field(field, detail))
                }
            };
        }
        let Some(sealed) = File::find_sealed(conn, client_id, id).await? else {
            let detail = "you have no upload of that id, and no message with a file";
            return Err(ApiError::field(field, detail));
        };
        let found = File::open(&state.keyring, id, &sealed)?.kind;
        match found == kind {
            true => Ok(Source::Message(id)),
            false => {
                let detail = format!(
                    "the message's file can only be sent as what it is: {}",
                    found.as_str()
                );
                Err(ApiError::field(field, detail))
            }
        }
    }
}
