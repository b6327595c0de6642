//! The tables `chats` and `chat_turns`, as one chat of one workspace sees them.

use rusqlite::{Connection, OptionalExtension, params};

use crate::workspace::WorkspaceId;

/// One chat's rows.
pub(super) struct Table<'a> {
    pub(super) db: &'a Connection,
    pub(super) workspace: &'a WorkspaceId,
    pub(super) chat: &'a str,
}

/// A prompt that went to a session, and so a place to go on from.
pub(super) struct Row {
    /// Its place in the order of its session.
    pub(super) seq: i64,
    pub(super) session: String,
    /// How many user messages were in the history that it answered.
    pub(super) users: u32,
    /// Whether the whole answer was given.
    pub(super) finished: bool,
}

impl Table<'_> {
    /// The latest prompt that wrote `answer`. An answer that was continued has several.
    pub(super) fn latest(&self, answer: &str) -> rusqlite::Result<Option<Row>> {
        let sql = "SELECT seq, session, users, finished FROM chat_turns
            WHERE workspace = ?1 AND chat = ?2 AND answer = ?3 ORDER BY seq DESC LIMIT 1";
        let row = |row: &rusqlite::Row<'_>| {
            Ok(Row {
                seq: row.get(0)?,
                session: row.get(1)?,
                users: row.get(2)?,
                finished: row.get(3)?,
            })
        };
        self.db
            .prepare_cached(sql)?
            .query_row(params![self.workspace.as_str(), self.chat, answer], row)
            .optional()
    }

    /// The prompt that came next in `session`.
    pub(super) fn prompt_after(&self, session: &str, seq: i64) -> rusqlite::Result<Option<String>> {
        let sql = "SELECT prompt FROM chat_turns
            WHERE workspace = ?1 AND session = ?2 AND seq > ?3 ORDER BY seq LIMIT 1";
        self.db
            .prepare_cached(sql)?
            .query_row(params![self.workspace.as_str(), session, seq], |row| row.get(0))
            .optional()
    }

    /// Adds a prompt at the end of `session` and makes the chat the latest used.
    pub(super) fn append(
        &self,
        session: &str,
        prompt: &str,
        answer: &str,
        users: u32,
    ) -> rusqlite::Result<i64> {
        let (workspace, chat) = (self.workspace.as_str(), self.chat);
        self.db.execute(
            "INSERT INTO chat_turns
                (workspace, chat, session, prompt, answer, users, finished)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)",
            params![workspace, chat, session, prompt, answer, users],
        )?;
        let seq = self.db.last_insert_rowid();
        self.db.execute(
            "INSERT INTO chats (workspace, chat, used) VALUES (?1, ?2, ?3)
            ON CONFLICT DO UPDATE SET used = excluded.used",
            params![workspace, chat, seq],
        )?;
        Ok(seq)
    }

    /// Marks the answer as given. `false` when the turn is not there any more.
    pub(super) fn finish(&self, seq: i64) -> rusqlite::Result<bool> {
        let sql = "UPDATE chat_turns SET finished = 1 WHERE seq = ?1 AND workspace = ?2";
        Ok(self.db.execute(sql, params![seq, self.workspace.as_str()])? == 1)
    }

    /// Makes sure that nothing goes on from the turn `seq`.
    pub(super) fn distrust(&self, seq: i64) -> rusqlite::Result<()> {
        self.db.execute("UPDATE chat_turns SET finished = 0 WHERE seq = ?1", [seq]).map(drop)
    }

    /// Removes the oldest turns of the chat beyond `turns` and the longest unused chats of the
    /// workspace beyond `chats`. Returns the sessions nothing refers to any more.
    pub(super) fn trim(&self, turns: usize, chats: usize) -> rusqlite::Result<Vec<String>> {
        let workspace = self.workspace.as_str();
        let limit = |n: usize| i64::try_from(n.max(1)).unwrap_or(i64::MAX);
        let mut gone = self.delete(
            "chat = ?2 AND seq <= (SELECT seq FROM chat_turns
                WHERE workspace = ?1 AND chat = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3)",
            params![workspace, self.chat, limit(turns)],
        )?;
        let mut unused = self.db.prepare_cached(
            "DELETE FROM chats WHERE workspace = ?1 AND used <= (SELECT used FROM chats
                WHERE workspace = ?1 ORDER BY used DESC LIMIT 1 OFFSET ?2) RETURNING chat",
        )?;
        let unused = unused
            .query_map(params![workspace, limit(chats)], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<String>>>()?;
        for chat in unused {
            gone.extend(self.delete("chat = ?2", params![workspace, chat])?);
        }
        self.orphans(gone)
    }

    /// Removes sessions of this chat in which no answer was ever finished, unless `in_use`.
    /// Returns them.
    pub(super) fn drop_failed(
        &self,
        in_use: impl Fn(&str) -> bool,
    ) -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT session FROM chat_turns WHERE workspace = ?1 AND chat = ?2
            GROUP BY session HAVING max(finished) = 0";
        let mut failed = self
            .db
            .prepare_cached(sql)?
            .query_map(params![self.workspace.as_str(), self.chat], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<String>>>()?;
        failed.retain(|session| !in_use(session));
        for session in &failed {
            let these = params![self.workspace.as_str(), self.chat, session];
            self.delete("chat = ?2 AND session = ?3", these)?;
        }
        self.orphans(failed)
    }

    /// Removes everything that went to `session`.
    pub(super) fn forget_session(&self, session: &str) -> rusqlite::Result<()> {
        self.delete("session = ?2", params![self.workspace.as_str(), session]).map(drop)
    }

    /// Deletes turns of the workspace `?1` and returns their sessions, perhaps repeatedly.
    fn delete(
        &self,
        condition: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<Vec<String>> {
        let sql = format!(
            "DELETE FROM chat_turns WHERE workspace = ?1 AND {condition} RETURNING session"
        );
        self.db.prepare_cached(&sql)?.query_map(values, |row| row.get(0))?.collect()
    }

    /// Those of `sessions` that no turn is left of, each once.
    fn orphans(&self, mut sessions: Vec<String>) -> rusqlite::Result<Vec<String>> {
        sessions.sort_unstable();
        sessions.dedup();
        let sql = "SELECT 1 FROM chat_turns WHERE workspace = ?1 AND session = ?2";
        let mut left = self.db.prepare_cached(sql)?;
        let mut orphans = Vec::new();
        for session in sessions {
            if !left.exists(params![self.workspace.as_str(), session])? {
                orphans.push(session);
            }
        }
        Ok(orphans)
    }
}
