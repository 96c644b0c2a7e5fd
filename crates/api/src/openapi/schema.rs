//! Schemas that no derive can know: those of types whose `Deserialize` is written by hand, which stand beside
//! it, and those of texts that are one of some words.

use serde_json::{Map, Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{Schema, SchemaType};
use utoipa::openapi::{Object, RefOr};

/// A schema as it is written.
pub(crate) fn verbatim(schema: Value) -> RefOr<Schema> {
    let Value::Object(keywords) = schema else {
        unreachable!("schemas are written as objects")
    };
    let mut object = Object::with_type(SchemaType::AnyValue);
    // What utoipa has no name for, it writes down as it is given.
    object.extensions = Some(keywords.into_iter().collect::<Extensions>());
    RefOr::T(Schema::Object(object))
}

/// A text that is one of these.
pub(crate) fn one_of(words: &[&str]) -> RefOr<Schema> {
    verbatim(json!({"type": "string", "enum": words}))
}

/// The same where null is as good as nothing.
pub(crate) fn one_of_or_null(words: &[&str]) -> RefOr<Schema> {
    let words = words.iter().copied().map(Some).chain([None]);
    verbatim(json!({"type": ["string", "null"], "enum": words.collect::<Vec<_>>()}))
}

/// Of these members of an object there is one that is not null.
pub(super) fn exactly_one(members: &[&str]) -> Value {
    let alternative = |member: &&str| {
        let there = Map::from_iter([((*member).to_owned(), json!({"not": {"type": "null"}}))]);
        json!({"required": [member], "properties": there})
    };
    members.iter().map(alternative).collect()
}

/// Gives a type of this crate its schema, under its own name.
macro_rules! schema {
    ($type:ident, $schema:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $crate::openapi::schema::verbatim($schema)
            }
        }

        impl utoipa::ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($type))
            }
        }
    };
}
pub(crate) use schema;
