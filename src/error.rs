//! The one error of the crate: a kind, a message, context, a cause.
//!
//! The kind tells the operator what to do and decides the exit code, by one table ([`ErrorKind::exit_code`]).
//! The message names the object and the values; the cause is printed once, by `main`, through the chain.
//! Messages carry ids, counts and paths, never personal data, and URLs lose their query string before they get here.

use std::error::Error as StdError;
use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the operator can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Usage, settings or policy are wrong: correct them.
    Config,
    /// The source or the store does not answer: try later.
    Unavailable,
    /// A credential, a role or a key is missing or refused: get the right.
    Denied,
    /// Stored or received bytes are damaged or were tampered with: restore them.
    Data,
    /// An SQL text is wrong: correct it.
    Query,
    /// A run ended without proof that it is complete: run it again.
    Incomplete,
    /// The lake is older than the query allows: extract first.
    Stale,
    /// Another run holds the lease, or a commit lost a race: wait, then try again.
    Conflict,
    /// A defect of this program: report it.
    Internal,
}

impl ErrorKind {
    /// Returns the process exit code of this kind (DESIGN.md, section 7).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Config => 2,
            Self::Unavailable => 3,
            Self::Denied => 4,
            Self::Data => 5,
            Self::Query => 6,
            Self::Incomplete => 7,
            Self::Stale => 8,
            Self::Conflict => 9,
        }
    }

    /// Returns the kind's name as reports and JSON logs print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Config => "config",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::Data => "data",
            Self::Query => "query",
            Self::Incomplete => "incomplete",
            Self::Stale => "stale",
            Self::Conflict => "conflict",
        }
    }
}

/// An error of any part of the crate; one pointer wide.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error from its kind and message (lower case, no full stop, object and values named).
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: Vec::new(), hint: None, source: None }))
    }

    /// Makes a [`ErrorKind::Config`] error.
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Makes an [`ErrorKind::Unavailable`] error.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Makes a [`ErrorKind::Denied`] error.
    #[must_use]
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    /// Makes a [`ErrorKind::Data`] error.
    #[must_use]
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Makes a [`ErrorKind::Query`] error.
    #[must_use]
    pub fn query(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Query, message)
    }

    /// Makes an [`ErrorKind::Internal`] error.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds a named value, printed after the message.
    #[must_use]
    pub fn with_context(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Adds the way out, printed on a `hint:` line of its own.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the hint, when there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the named values, in the order in which they are printed.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Returns the message without context, hint and cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (index, (name, value)) in self.0.context.iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { ", " })?;
            write!(f, "{name}: {value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("context", &self.0.context)
            .field("hint", &self.0.hint)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Returns the one of the known words that was probably meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(written, word), word))
        .filter(|(distance, word)| *distance <= word.len().max(3) / 2)
        .min()
        .map(|(_, word)| word)
}

/// Says which of the known words was probably meant, or lists them all when none is near: the hint of many errors.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(written, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_prints_message_and_context_but_not_the_cause() {
        let error = Error::config("unknown key")
            .with_context("key", "sorce")
            .with_context("file", "counterfoil.toml")
            .with_source(std::io::Error::other("inner"));
        assert_eq!(error.to_string(), "unknown key (key: sorce, file: counterfoil.toml)");
        assert_eq!(error.source().map(ToString::to_string), Some("inner".to_owned()));
    }

    #[test]
    fn near_word_is_suggested_and_a_far_one_is_answered_with_all() {
        let known = ["source", "lake", "keys"];
        assert_eq!(did_you_mean("sorce", known), "did you mean `source`?");
        assert_eq!(did_you_mean("something", known), "known are: source, lake, keys");
    }

    #[test]
    fn error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
