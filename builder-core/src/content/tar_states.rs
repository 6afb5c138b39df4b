//! States of the digests of tars: what begins like one that was hashed before need not be hashed from the start.
//!
//! Their table is made with the first of them: a store that has none is still one of an earlier version.

use rusqlite::{OptionalExtension, params};

use super::{ContentError, Database};

/// States that are kept; beyond that the oldest go. Each is about 200 bytes.
const MOST: i64 = 16_384;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS tar_states(
    age INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, state BLOB NOT NULL) STRICT";

/// Bytes of the checksum after a state.
const CHECK: usize = 16;

impl Database {
    /// Remembers the states of a digest. Each has as its key a digest of everything that decides the bytes before it.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn put_tar_states(&self, states: &[([u8; 32], Vec<u8>)]) -> Result<(), ContentError> {
        if states.is_empty() {
            return Ok(());
        }
        let put = || {
            self.write(|connection| {
                connection.execute_batch(TABLE)?;
                let mut insert =
                    connection.prepare_cached("INSERT OR REPLACE INTO tar_states(key, state) VALUES(?1, ?2)")?;
                for (key, state) in states {
                    insert.execute(params![key, [state.as_slice(), &check(key, state)].concat()])?;
                }
                let oldest = "DELETE FROM tar_states WHERE age <= (SELECT max(age) FROM tar_states) - ?1";
                connection.prepare_cached(oldest)?.execute([MOST]).map(drop)
            })
        };
        match put() {
            Err(error) if error.is_read_only() => Ok(()),
            other => other,
        }
    }

    /// Says whether there can be any state.
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn has_tar_states(&self) -> Result<bool, ContentError> {
        self.with(|connection| connection.table_exists(None, "tar_states"))
    }

    /// The state with a key; `None` if it is not known, or damaged. Only if [`Database::has_tar_states`].
    ///
    ///
    /// # Errors
    /// [`ContentError::Database`].
    pub fn tar_state(&self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, ContentError> {
        let found: Option<Vec<u8>> = self.with(|connection| {
            connection
                .prepare_cached("SELECT state FROM tar_states WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })?;
        Ok(found.and_then(|mut state| {
            let sum = state.split_off(state.len().checked_sub(CHECK)?);
            (sum == check(key, &state)).then_some(state)
        }))
    }
}

fn check(key: &[u8; 32], state: &[u8]) -> [u8; CHECK] {
    let whole = blake3::keyed_hash(key, state);
    *whole.as_bytes().first_chunk().expect("it is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_and_damaged_ones_do_not() {
        let state = tempfile::tempdir().expect("temporary directory");
        let database = Database::new(state.path());
        let key = |number: i64| *blake3::hash(&number.to_le_bytes()).as_bytes();
        assert!(!database.has_tar_states().expect("asks"));
        database.put_tar_states(&[]).expect("nothing to do");
        assert!(!database.has_tar_states().expect("asks"));
        database.put_tar_states(&[(key(1), vec![1; 40]), (key(2), vec![])]).expect("written");
        database.put_tar_states(&[(key(1), vec![3; 40])]).expect("written");
        assert_eq!(database.tar_state(&key(1)).expect("asks"), Some(vec![3; 40]));
        assert_eq!(database.tar_state(&key(2)).expect("asks"), Some(vec![]));
        assert_eq!(database.tar_state(&key(3)).expect("asks"), None);
        for damage in ["zeroblob(56)", "x'00'", "substr(state, 1, 55)", "(SELECT state FROM tar_states WHERE age = 2)"]
        {
            database.put_tar_states(&[(key(1), vec![3; 40])]).expect("written");
            let statement = format!("UPDATE tar_states SET state = {damage} WHERE key = ?1");
            database.with(|connection| connection.execute(&statement, [key(1)])).expect("written");
            assert_eq!(database.tar_state(&key(1)).expect("asks"), None, "{damage}");
        }
    }

    #[test]
    fn the_oldest_go() {
        let state = tempfile::tempdir().expect("temporary directory");
        let database = Database::new(state.path());
        let key = |number: i64| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let states: Vec<_> = (0..MOST + 5).map(|number| (key(number), vec![7])).collect();
        database.put_tar_states(&states).expect("written");
        let known = |number| database.tar_state(&key(number)).expect("asks").is_some();
        assert!(!known(0) && !known(4) && known(5) && known(MOST + 4));
    }
}
