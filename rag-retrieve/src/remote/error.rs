/// Errors of a knowledge base that a database keeps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// A database failed at what it was asked for as long as it was asked.
    #[error("{engine} could not {doing}; see its error")]
    Database {
        /// Its name.
        engine: &'static str,
        /// The request.
        doing: &'static str,
        /// Its last error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address of a database that cannot be parsed.
    #[error("expected the address of a database as {expected}; {found}")]
    Address {
        /// The form of an address.
        expected: &'static str,
        /// The problem.
        found: String,
    },
    /// A name for a table or collection that some database refuses.
    #[error(
        "{name:?} cannot name a table: expected a letter, then letters of a to z, digits and underscores, 40 at most"
    )]
    TableName {
        /// The name.
        name: String,
    },
    /// A table or collection that is not there.
    #[error("the database has no knowledge base {table:?}; make one with create")]
    NoTable {
        /// Its name.
        table: String,
    },
    /// A table that holds another knowledge base than was expected.
    #[error(
        "{table:?} has {what} {found}, expected {expected}; take another name, or drop the table first"
    )]
    OtherTable {
        /// Its name.
        table: String,
        /// The property that differs.
        what: &'static str,
        /// As it is.
        found: String,
        /// As it should be.
        expected: String,
    },
    /// A passage that the database cannot store.
    #[error("the passage {id:?} cannot be stored: {reason}; change its text or metadata")]
    Unkept {
        /// Its id.
        id: String,
        /// Why.
        reason: &'static str,
    },
    /// Two passages whose hashes begin alike, both in the database.
    #[error(
        "two passages of the database have the same position, which is a hash of them; change a character of one of them"
    )]
    SharedPosition,
    /// A shard outside its count.
    #[error("there is no shard {index} of {count}; expected 0 to below their count")]
    Shard {
        /// The shard.
        index: usize,
        /// How many there are.
        count: usize,
    },
}
