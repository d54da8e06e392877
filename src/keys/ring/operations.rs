//! What can be done to a ring: each operation makes the next version and leaves the old one as it was.
//!
//! ```text
//!            rotate                 disable              destroy
//! primary ───────────▶ enabled ◀───────────▶ disabled ───────────▶ destroyed
//!                         │      enable                                ▲
//!                         └────────────────────────────────────────────┘
//! ```
//!
//! Nothing here is stored: a version counts once it is sealed and put as `keys/ring-N`.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::keys::gcm;
use crate::keys::ring::{KeyRing, KeyState, Master, Pseudonym, Ring};
use crate::secret::{PseudonymKey, SecretKey};

impl KeyRing {
    /// Adds a primary key, made at a time in milliseconds since 1970; the primary key so far stays enabled.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the ring is full.
    pub fn rotate(&self, created_ms: i64) -> Result<Self> {
        let mut next = self.copied()?;
        if next.masters.len() >= usize::from(u16::MAX) {
            return Err(Error::config("key ring is full").with_context("keys", next.masters.len()));
        }
        for master in next.masters.iter_mut().filter(|master| master.state == KeyState::Primary) {
            master.state = KeyState::Enabled;
        }
        let last = next.masters.iter().map(|master| master.number).max().unwrap_or(0);
        let number = last.checked_add(1).ok_or_else(|| {
            Error::config("key ring has a key of the highest number").with_context("lake", self.lake_id())
        })?;
        let (series, state, key) = (next.series, KeyState::Primary, gcm::random_key()?);
        next.masters.push(Master { series, number, state, created_ms, key });
        Ok(Self(Arc::new(next)))
    }

    /// Adds a key of pseudonyms, made at a time in milliseconds since 1970; the keys so far stay, for the new one goes on from
    /// what they make.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the ring is full.
    pub fn with_pseudonym_key(&self, created_ms: i64) -> Result<Self> {
        let mut next = self.copied()?;
        let newest = next.pseudonyms.last().map_or(0, |pseudonym| pseudonym.key.version);
        if next.pseudonyms.len() >= usize::from(u16::MAX) {
            return Err(Error::config("key ring is full").with_context("pseudonym keys", next.pseudonyms.len()));
        }
        let key = Arc::new(PseudonymKey { version: newest + 1, key: gcm::random_key()? });
        next.pseudonyms.push(Pseudonym { created_ms, key });
        Ok(Self(Arc::new(next)))
    }

    /// Makes the next version with the same keys, for sealing them under another root key.
    pub fn renewed(&self) -> Result<Self> {
        self.copied().map(|ring| Self(Arc::new(ring)))
    }

    /// Lets a disabled key decrypt again.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the ring does not have the key or it is not disabled.
    pub fn enable(&self, id: &str) -> Result<Self> {
        self.with_state(id, KeyState::Enabled, |state| state == KeyState::Disabled)
    }

    /// Keeps a key and refuses its use.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the ring does not have the key or it is not enabled; the primary key
    /// cannot be disabled.
    pub fn disable(&self, id: &str) -> Result<Self> {
        self.with_state(id, KeyState::Disabled, |state| state == KeyState::Enabled)
    }

    /// Forgets the bytes of a key.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the ring does not have the key; the primary key cannot be destroyed.
    pub fn destroy(&self, id: &str) -> Result<Self> {
        self.with_state(id, KeyState::Destroyed, |state| state != KeyState::Primary)
    }

    /// Returns the state of a key.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the ring does not have the key.
    pub fn state(&self, id: &str) -> Result<KeyState> {
        let found = self.0.masters.iter().find(|master| master.id() == id).map(|master| master.state);
        found.ok_or_else(|| {
            let ids: Vec<String> = self.0.masters.iter().map(Master::id).collect();
            Error::config("key ring has no such key")
                .with_context("key", id.escape_debug())
                .with_context("ring version", self.version())
                .with_hint(format!("its keys are {}", ids.join(", ")))
        })
    }

    fn with_state(&self, id: &str, state: KeyState, may: impl Fn(KeyState) -> bool) -> Result<Self> {
        let present = self.state(id)?;
        if !may(present) {
            let error = Error::config("key of the ring is in a state that does not allow this")
                .with_context("key", id)
                .with_context("state", present.name())
                .with_context("wanted", state.name());
            return Err(match present {
                KeyState::Primary => {
                    error.with_hint("`counterfoil keys rotate` makes another key the primary one first")
                }
                _ => error,
            });
        }
        let mut next = self.copied()?;
        for master in next.masters.iter_mut().filter(|master| master.id() == id) {
            master.state = state;
            if state == KeyState::Destroyed {
                master.key = SecretKey::new([0; 32]);
            }
        }
        Ok(Self(Arc::new(next)))
    }

    /// Copies the ring as its next version.
    fn copied(&self) -> Result<Ring> {
        let failed = || Error::internal("failed to copy the key ring").with_context("ring version", self.version());
        let version = self.version().checked_add(1).ok_or_else(failed)?;
        let copied = Ring::read_body(self.0.series, self.lake_id(), version, &self.0.write_body());
        Ok(Ring { restricted: self.0.restricted.clone(), ..copied.ok_or_else(failed)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    fn states(ring: &KeyRing) -> Vec<(String, KeyState)> {
        ring.keys().into_iter().map(|key| (key.id, key.state)).collect()
    }

    #[test]
    fn rotation_adds_a_primary_key_and_keeps_the_old_one_for_reading() {
        let first = KeyRing::generate("lake", 1).unwrap();
        let second = first.rotate(2).unwrap();
        assert_eq!(second.version(), 2);
        assert_eq!(
            states(&second),
            [("ring-1".to_owned(), KeyState::Enabled), ("ring-2".to_owned(), KeyState::Primary)]
        );
        assert_eq!(states(&first), [("ring-1".to_owned(), KeyState::Primary)], "the old version is as it was");
        assert_eq!(first.export("ring-1").unwrap().expose(), second.export("ring-1").unwrap().expose());
        assert_ne!(second.export("ring-1").unwrap().expose(), second.export("ring-2").unwrap().expose());
        assert_eq!(second.pseudonym_versions(), first.pseudonym_versions(), "pseudonyms stay the same");
        let (old, new) = (first.pseudonym_keys(1).unwrap(), second.pseudonym_keys(1).unwrap());
        assert_eq!(old.keys()[0].key.expose(), new.keys()[0].key.expose());
    }

    #[test]
    fn pseudonym_keys_are_added_and_kept_by_every_other_operation() {
        let first = KeyRing::generate("lake", 1).unwrap();
        let second = first.with_pseudonym_key(2).unwrap();
        let listed: Vec<_> = second.pseudonym_versions().iter().map(|key| (key.version, key.created_ms)).collect();
        assert_eq!((second.version(), listed), (2, vec![(1, 1), (2, 2)]));
        let bytes = |ring: &KeyRing| {
            ring.pseudonym_keys(2).unwrap().keys().iter().map(|key| *key.key.expose()).collect::<Vec<_>>()
        };
        assert_ne!(bytes(&second)[0], bytes(&second)[1]);
        assert_eq!(second.pseudonym_keys(1).unwrap().version(), 1, "an older version takes the older keys only");
        let rotated = second.rotate(3).unwrap();
        for next in [second.renewed(), Ok(rotated.clone()), rotated.destroy("ring-1"), rotated.disable("ring-1")] {
            assert_eq!(bytes(&next.unwrap()), bytes(&second));
        }
    }

    #[test]
    fn pseudonyms_of_a_later_key_say_that_the_process_is_to_be_started_again() {
        let ring = KeyRing::generate("lake", 0).unwrap();
        for version in [0, 2] {
            let error = ring.pseudonym_keys(version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.hint().unwrap().contains("start it again"), "{:?}", error.hint());
        }
    }

    #[test]
    fn primary_key_cannot_be_disabled_or_destroyed_and_unknown_keys_are_named() {
        let ring = KeyRing::generate("lake", 0).unwrap().rotate(0).unwrap();
        for refused in [ring.disable("ring-2"), ring.destroy("ring-2"), ring.enable("ring-1"), ring.enable("ring-9")] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
        }
        let error = ring.destroy("ring-9").unwrap_err();
        assert!(error.to_string().contains("ring-9") && error.hint().unwrap().contains("ring-1, ring-2"), "{error}");
        let gone = ring.disable("ring-1").unwrap().destroy("ring-1").unwrap();
        assert_eq!(gone.version(), 4);
        assert_eq!(gone.enable("ring-1").unwrap_err().kind(), ErrorKind::Config, "nothing brings it back");
        assert_eq!(gone.0.masters[0].key.expose(), &[0; 32]);
    }

    #[test]
    fn object_of_a_later_key_says_that_the_process_is_to_be_started_again() {
        let old = KeyRing::generate("lake", 0).unwrap();
        let sealed = old.rotate(0).unwrap().seal_object("commit/1", b"x").unwrap();
        let error = old.open_object("commit/1", &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("ring-2"), "{error}");
        assert!(error.hint().unwrap().contains("start it again"), "{:?}", error.hint());
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_one_primary_and_the_bytes_of_every_key_that_is_not_destroyed(
            steps in proptest::collection::vec((0..5_u8, 1..6_u32), 0..24)
        ) {
            let mut ring = KeyRing::generate("lake", 0).unwrap();
            let mut bytes = vec![*ring.export("ring-1").unwrap().expose()];
            for (step, number) in steps {
                let id = format!("ring-{number}");
                let next = match step {
                    0 => ring.rotate(0),
                    1 => ring.disable(&id),
                    2 => ring.enable(&id),
                    3 => ring.destroy(&id),
                    _ => ring.renewed(),
                };
                let Ok(next) = next else { continue };
                prop_assert_eq!(next.version(), ring.version() + 1);
                ring = next;
                if step == 0 {
                    bytes.push(*ring.primary().unwrap().1.expose());
                }
                let primaries = ring.keys().iter().filter(|key| key.state == KeyState::Primary).count();
                prop_assert_eq!(primaries, 1);
                for (master, bytes) in ring.0.masters.iter().zip(&bytes) {
                    let expected = if master.state == KeyState::Destroyed { &[0; 32] } else { bytes };
                    prop_assert_eq!(master.key.expose(), expected);
                }
            }
        }
    }
}
