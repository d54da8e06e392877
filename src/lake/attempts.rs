//! The attempts of one commit: each follows the newest version, and one that loses its race is followed by another.
//!
//! ```text
//! begin ─▶ plan on base() ─▶ put ─▶ the new version, and its snapshot when one is due
//!              ▲               │ another writer made that version
//!              └── newer base ─┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::commit::{Action, Commit};
use crate::lake::log::Appended;
use crate::lake::manifest::Manifest;
use crate::lake::{Inner, WRITER, layout};
use crate::policy::Rules;
use crate::retry::SplitMix64;

/// How often a commit is tried. Each loss means that another writer won, so only a crowd of writers gets here.
const ATTEMPTS: usize = 10;

/// The longest pause after the first loss; one longer after each further one.
const PAUSE: Duration = Duration::from_millis(20);

/// One commit on its way into the log.
pub(super) struct Attempts<'a> {
    lake: &'a Inner,
    /// The commit's own id, the same in every attempt.
    id: String,
    base: Arc<Manifest>,
    lost: usize,
    random: SplitMix64,
    policy: Option<Arc<Rules>>,
}

impl<'a> Attempts<'a> {
    /// Begins at the newest version.
    pub(super) async fn begin(lake: &'a Inner) -> Result<Self> {
        let id = layout::new_uuid(lake.clock.as_ref());
        let random = SplitMix64::new(id.as_u64_pair().1);
        Ok(Self { lake, id: id.to_string(), base: lake.log.latest().await?, lost: 0, random, policy: None })
    }

    /// Names the writer's policy in the commit, with its rules if the lake does not have them.
    pub(super) fn under(self, policy: Option<Arc<Rules>>) -> Self {
        Self { policy, ..self }
    }

    /// Returns the version that the next attempt follows.
    pub(super) fn base(&self) -> &Arc<Manifest> {
        &self.base
    }

    /// Commits actions that were planned on [`base`](Self::base); `None` when another writer was faster: plan them anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when other writers won every attempt; [`ErrorKind::Unavailable`] when the store fails: the
    /// commit may then have been made or not.
    pub(super) async fn put(&mut self, mut actions: Vec<Action>) -> Result<Option<Arc<Manifest>>> {
        let lake = self.lake;
        if let Some(rules) = self.policy.as_ref().filter(|rules| !self.base.policies.contains_key(&rules.digest)) {
            actions.insert(0, Action::Policy(Arc::clone(rules)));
        }
        let commit = Commit {
            version: self.base.version + 1,
            id: self.id.clone(),
            committed_ms: lake.clock.now().as_millisecond().max(self.base.committed_ms),
            writer: WRITER.to_owned(),
            policy: self.policy.as_ref().map(|rules| rules.digest.as_str().into()),
            actions,
        };
        if let Appended::Done(manifest) = lake.log.append(&self.base, commit).await? {
            lake.log.snapshot_if_due(&manifest, self.id.clone(), WRITER.to_owned()).await;
            return Ok(Some(manifest));
        }
        self.lost += 1;
        if self.lost < ATTEMPTS {
            // Rivals that work in step would keep their order, and one of them would always lose: chance parts them.
            lake.clock.sleep(self.random.below(PAUSE * self.lost as u32)).await;
            self.base = lake.log.latest().await?;
            return Ok(None);
        }
        Err(Error::new(ErrorKind::Conflict, "other writers won every attempt to commit")
            .with_context("attempts", ATTEMPTS)
            .with_context("version", self.base.version)
            .with_hint("run it again when fewer writers are at work"))
    }
}
