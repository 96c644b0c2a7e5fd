//! Batches as columns: one array per column, for statements that `unnest` them.

use std::collections::BTreeMap;

/// The last value per key, in key order: one statement cannot change a row twice, and two that lock
/// their rows in one order cannot deadlock.
pub(super) fn last_by_key<K: Ord, V>(rows: impl IntoIterator<Item = (K, V)>) -> (Vec<K>, Vec<V>) {
    rows.into_iter()
        .collect::<BTreeMap<K, V>>()
        .into_iter()
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_rows_with_one_key_the_last_is_kept() {
        let rows = [("b", 1), ("a", 2), ("b", 3)];
        assert_eq!(last_by_key(rows), (vec!["a", "b"], vec![2, 3]));
    }
}
