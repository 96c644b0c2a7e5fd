//! Statements that the query builder has no words for, such as one `unnest` over many arrays.
//!
//! `diesel::sql_query` is planned anew at every call; a [`Statement`] is prepared once on a connection
//! and found again by its text.

use diesel::expression::{AsExpression, Expression};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::{Error, QueryResult};
use diesel::sql_types::{SingleValue, SqlType, Untyped};

/// The part of a statement that picks the events `e` whose ids a CTE holds.
///
/// PostgreSQL would join them by reading whole partitions, when it expects many of them or knows of many
/// partitions. Elements of an array it looks up in each partition's index, and only between these bounds.
macro_rules! among {
    ($cte:literal) => {
        concat!(
            "e.id = ANY(ARRAY(SELECT id FROM ",
            $cte,
            ")) AND e.id >= (SELECT id FROM ",
            $cte,
            " ORDER BY id LIMIT 1) AND e.id <= (SELECT id FROM ",
            $cte,
            " ORDER BY id DESC LIMIT 1)"
        )
    };
}
pub(crate) use among;

/// That nobody holds a claim on the event of this alias which could still bring an outcome.
macro_rules! unclaimed {
    ($event:literal) => {
        concat!(
            "(",
            $event,
            ".claimed_until IS NULL OR ",
            $event,
            ".claimed_until <= now())"
        )
    };
}
pub(crate) use unclaimed;

/// SQL whose every `?` is a bind, in order. A text must not hold a `?` that is anything else.
pub struct Statement<'a> {
    text: &'static str,
    binds: Vec<Box<dyn QueryFragment<Pg> + Send + 'a>>,
}

impl<'a> Statement<'a> {
    pub fn new(text: &'static str) -> Self {
        Self {
            text,
            binds: Vec::new(),
        }
    }

    /// Binds the next `?`.
    #[must_use]
    pub fn bind<ST, V>(mut self, value: V) -> Self
    where
        ST: SqlType + SingleValue,
        V: AsExpression<ST>,
        V::Expression: Expression<SqlType = ST> + QueryFragment<Pg> + Send + 'a,
    {
        self.binds.push(Box::new(value.as_expression()));
        self
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut parts = self.text.split('?');
        out.push_sql(parts.next().unwrap_or_default());
        let mut binds = self.binds.iter();
        for part in parts {
            let bind = binds.next().ok_or_else(|| {
                Error::QueryBuilderError("a statement has more `?` than binds".into())
            })?;
            bind.walk_ast(out.reborrow())?;
            out.push_sql(part);
        }
        match binds.next() {
            None => Ok(()),
            Some(_) => Err(Error::QueryBuilderError(
                "a statement has more binds than `?`".into(),
            )),
        }
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}
