//! The device's id as a write names it: PostgreSQL gives it only while the session's lease stands.

use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error, QueryResult};
use diesel::sql_types::{BigInt, Integer, Uuid as SqlUuid};
use domain::lease::{self, Lease};

/// Stands for `device_id`, or fails the statement: see `lease_stands` in the migrations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fenced {
    pub(super) lease: Lease,
    pub(super) device_id: i32,
}

impl QueryFragment<Pg> for Fenced {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // As a query of its own it is answered once for the statement, and an index can use the answer.
        out.push_sql("(SELECT CASE WHEN lease_stands(");
        out.push_bind_param::<SqlUuid, _>(&self.lease.connection_id)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.lease.epoch)?;
        out.push_sql(") THEN ");
        out.push_bind_param::<Integer, _>(&self.device_id)?;
        out.push_sql(" END)");
        Ok(())
    }
}

impl QueryId for Fenced {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Expression for Fenced {
    type SqlType = Integer;
}

impl<T> AppearsOnTable<T> for Fenced {}
impl<T> SelectableExpression<T> for Fenced {}

impl<GroupBy> ValidGrouping<GroupBy> for Fenced {
    type IsAggregate = is_aggregate::Never;
}

/// Whether a statement failed because its lease is lost.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(DatabaseErrorKind::CheckViolation, info)
        if info.constraint_name() == Some(lease::CONSTRAINT))
}
