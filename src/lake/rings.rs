//! The key ring in force: how a lake gets the next version of it.
//!
//! ```text
//! next version ─▶ seal ─▶ open again ─▶ put keys/ring-N+1 (PutMode::Create) ─▶ read back ─▶ in force
//!                                                                             └▶ delete ring-1 … ring-N
//!                                                                                (another root key; a destroyed key)
//! ```
//!
//! The ring of the highest version is in force from the moment its object is there, and processes that have opened the lake
//! before go on with theirs. So it is opened again with its root key before it is put: a root key that seals and does not
//! open would lock everybody out. A crash at any point leaves the old ring or the new one in force, never none. Older versions
//! are deleted only where they must not stay, and after the new one is in force; doing the same again deletes what a crash
//! left.
//!
//! The restricted ring (`keys/restricted-N`) has versions of its own, which come about in the same way, under its own root key.
//!
//! Whoever uses the ring for writing holds a lease. A lease is refused to a process whose ring is not the newest any more
//! ([`check`]), so that nothing is written under a key that was destroyed meanwhile.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyRing, KeyState, RootKey, Series};
use crate::lake::store::{Missing, StoreSettings};
use crate::lake::{Inner, Lake, layout, store};

impl Lake {
    /// Tells whether there is a lake at `url`: whether the place has a key ring.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a URL that names no store.
    pub async fn exists(settings: &StoreSettings) -> Result<bool> {
        let store = match store::open(settings, Missing::Refuse) {
            Ok((store, _)) => store,
            Err(error) if error.message() == store::no_lake().message() => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(!versions(store.as_ref()).await?.is_empty())
    }

    /// Opens the restricted ring beside the ring, so that restricted columns can be read and written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the lake has no restricted ring; [`ErrorKind::Denied`] when `root` is not its root key;
    /// [`ErrorKind::Unavailable`] when the service that keeps the root key does not answer.
    pub async fn with_restricted(mut self, root: &RootKey) -> Result<Self> {
        let version = self.restricted_version().await?.ok_or_else(|| {
            Error::config("the lake has no restricted key ring")
                .with_context("url", &self.0.url)
                .with_hint("`counterfoil keys init --restricted` makes it, or take the setting `keys.restricted` out")
        })?;
        let sealed = layout::read_ring_of(self.0.store.as_ref(), Series::Restricted, version).await?;
        let sealed = sealed.ok_or_else(|| {
            Error::data("the restricted key ring has gone while it was opened").with_context("url", &self.0.url)
        })?;
        let restricted = KeyRing::open_restricted(&self.0.id, version, &sealed, root).await?;
        let inner = std::sync::Arc::get_mut(&mut self.0)
            .ok_or_else(|| Error::internal("the lake is in use already, without its restricted key ring"))?;
        inner.ring = inner.ring.with_restricted(&restricted)?;
        Ok(self)
    }

    /// Returns the version of the restricted ring in force, where the lake has one.
    pub async fn restricted_version(&self) -> Result<Option<u32>> {
        Ok(versions_of(self.0.store.as_ref(), Series::Restricted).await?.last().copied())
    }

    /// Makes the restricted ring, sealed by its own root key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when there is one already; those of [`rotate_keys`](Self::rotate_keys).
    pub async fn create_restricted(&self, root: &RootKey) -> Result<KeyRing> {
        if let Some(version) = self.restricted_version().await? {
            return Err(Error::config("the lake has a restricted key ring already; nothing was changed")
                .with_context("version", version)
                .with_hint(
                    "set `keys.restricted` to its root key; `counterfoil keys rotate --restricted` makes a new key",
                ));
        }
        put(&self.0, KeyRing::generate_restricted(&self.0.id, self.0.clock.now().as_millisecond())?, root).await
    }

    /// Makes another key of the restricted ring the primary one; otherwise as [`rotate_keys`](Self::rotate_keys).
    ///
    /// # Errors
    ///
    /// Those of [`rotate_keys`](Self::rotate_keys), and [`ErrorKind::Denied`] when the restricted ring is not open.
    pub async fn rotate_restricted(&self, root: &RootKey) -> Result<KeyRing> {
        let next = self.0.ring.restricted_ring()?.rotate(self.0.clock.now().as_millisecond())?;
        put(&self.0, next, root).await
    }

    /// Makes another key the primary one; the key so far goes on decrypting. Returns the ring that is in force now, which
    /// this lake opens with when it is opened anew.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when another process has made a ring meanwhile; those of the store and of the root key.
    pub async fn rotate_keys(&self, root: &RootKey) -> Result<KeyRing> {
        let next = self.0.ring.rotate(self.0.clock.now().as_millisecond())?;
        put(&self.0, next, root).await
    }

    /// Adds a key of pseudonyms to the ring, unless one waits already for the rewrite that brings it into force
    /// ([`rewrite_pseudonyms`](Self::rewrite_pseudonyms)); otherwise as [`rotate_keys`](Self::rotate_keys).
    ///
    /// # Errors
    ///
    /// Those of [`rotate_keys`](Self::rotate_keys), and of reading the newest version.
    pub async fn add_pseudonym_key(&self, root: &RootKey) -> Result<KeyRing> {
        let in_force = self.latest().await?.pseudonym_version();
        // The ring of this process may be older than the lake: then it must not make a key of a number that is taken.
        self.0.ring.pseudonym_keys(in_force)?;
        if self.0.ring.pseudonym_versions().iter().any(|key| key.version > in_force) {
            check(&self.0).await?;
            return Ok(self.0.ring.clone());
        }
        let next = self.0.ring.with_pseudonym_key(self.0.clock.now().as_millisecond())?;
        put(&self.0, next, root).await
    }

    /// Refuses the use of a key until it is enabled again; otherwise as [`rotate_keys`](Self::rotate_keys).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for the primary key, or one that the ring does not have.
    pub async fn disable_key(&self, root: &RootKey, id: &str) -> Result<KeyRing> {
        put(&self.0, self.0.ring.holder(id)?.disable(id)?, root).await
    }

    /// Allows a disabled key again; otherwise as [`rotate_keys`](Self::rotate_keys).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a key that is not disabled, or that the ring does not have.
    pub async fn enable_key(&self, root: &RootKey, id: &str) -> Result<KeyRing> {
        put(&self.0, self.0.ring.holder(id)?.enable(id)?, root).await
    }

    /// Seals the ring under another root key, and deletes the versions that the old one opens.
    ///
    /// # Errors
    ///
    /// Those of [`rotate_keys`](Self::rotate_keys). When older versions cannot be deleted, the new one is in force all the
    /// same, and the error says so.
    pub async fn rewrap_ring(&self, root: &RootKey) -> Result<KeyRing> {
        self.rewrap_series(&self.0.ring, root).await
    }

    /// Seals the restricted ring under another root key; otherwise as [`rewrap_ring`](Self::rewrap_ring).
    ///
    /// # Errors
    ///
    /// Those of [`rewrap_ring`](Self::rewrap_ring), and [`ErrorKind::Denied`] when the restricted ring is not open.
    pub async fn rewrap_restricted(&self, root: &RootKey) -> Result<KeyRing> {
        self.rewrap_series(self.0.ring.restricted_ring()?, root).await
    }

    async fn rewrap_series(&self, ring: &KeyRing, root: &RootKey) -> Result<KeyRing> {
        let ring = put(&self.0, ring.renewed()?, root).await?;
        delete_older(self.0.store.as_ref(), &ring).await.map_err(|error| {
            let hint = format!(
                "set `{1}` to {} and run `counterfoil keys rewrap --root {0}` again: it deletes what is left",
                root.reference(),
                ring.series().setting()
            );
            error.with_hint(hint)
        })?;
        Ok(ring)
    }

    /// Destroys a key: its bytes are in no ring any more, and what only it opens is lost.
    ///
    /// Of a key that was destroyed, the older rings that still hold it are deleted: so a crash is mended by doing it again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for the primary key, or one that the ring does not have; otherwise as
    /// [`rewrap_ring`](Self::rewrap_ring).
    pub async fn destroy_key(&self, root: &RootKey, id: &str) -> Result<KeyRing> {
        let holder = self.0.ring.holder(id)?;
        let ring = match holder.state(id)? {
            KeyState::Destroyed => holder.clone(),
            _ => put(&self.0, holder.destroy(id)?, root).await?,
        };
        delete_older(self.0.store.as_ref(), &ring).await.map_err(|error| {
            error.with_hint(format!(
                "the key may still stand in older rings: run `counterfoil keys destroy {id}` again, first with --dry-run"
            ))
        })?;
        Ok(ring)
    }

    /// Lists the versions of the key ring that the store has besides the one in use.
    pub async fn other_rings(&self) -> Result<Vec<u32>> {
        self.others_of(&self.0.ring).await
    }

    /// Lists the versions that the store has besides a ring in use, of the same series.
    pub async fn others_of(&self, ring: &KeyRing) -> Result<Vec<u32>> {
        let mut found = versions_of(self.0.store.as_ref(), ring.series()).await?;
        found.retain(|version| *version != ring.version());
        Ok(found)
    }
}

/// Refuses to go on with a ring that is not the newest any more.
pub(super) async fn check(lake: &Inner) -> Result<()> {
    for ring in [Some(&lake.ring), lake.ring.restricted()].into_iter().flatten() {
        let newest = versions_of(lake.store.as_ref(), ring.series()).await?.last().copied();
        if newest != Some(ring.version()) {
            return Err(changed(ring, newest));
        }
    }
    Ok(())
}

fn changed(ring: &KeyRing, newest: Option<u32>) -> Error {
    let error = Error::new(ErrorKind::Conflict, "key ring of the lake has changed since this process opened it")
        .with_context("opened", ring.version())
        .with_hint("start again: the lake is then opened with the newest ring");
    match newest {
        Some(newest) => error.with_context("newest", newest),
        None => error,
    }
}

/// Puts the next version of the ring, after the root key has opened it again.
async fn put(lake: &Inner, ring: KeyRing, root: &RootKey) -> Result<KeyRing> {
    check(lake).await?;
    let store = lake.store.as_ref();
    let version = ring.version();
    let sealed = Bytes::from(ring.seal(root).await?);
    ring.open_again(&sealed, root).await.map_err(|error| {
        Error::new(error.kind(), "the root key seals the key ring and does not open it; nothing was changed")
            .with_context("root", root.reference())
            .with_source(error)
    })?;
    let created = store::create(store, &layout::ring_of(ring.series(), version), sealed.clone()).await?;
    match layout::read_ring_of(store, ring.series(), version).await? {
        Some(found) if found == sealed => Ok(ring),
        // Another process made that version.
        Some(_) if !created => Err(changed(&ring, Some(version))),
        _ => Err(Error::data("key ring did not come back from the store as it was put")
            .with_context("object", layout::ring_of(ring.series(), version))
            .with_hint("do not go on: look at the store, and keep the older objects under `keys/`")),
    }
}

/// Deletes the rings before this one, oldest first.
async fn delete_older(store: &dyn ObjectStore, ring: &KeyRing) -> Result<()> {
    let version = ring.version();
    for older in versions_of(store, ring.series()).await?.into_iter().filter(|older| *older < version) {
        let object = layout::ring_of(ring.series(), older);
        match store.delete(&object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                return Err(store::failed("delete", &object, error).with_context("ring version in force", version));
            }
        }
    }
    Ok(())
}

/// Lists the versions of the key ring, ascending.
pub(super) async fn versions(store: &dyn ObjectStore) -> Result<Vec<u32>> {
    versions_of(store, Series::Main).await
}

/// Lists the versions of one of the two rings, ascending.
async fn versions_of(store: &dyn ObjectStore, series: Series) -> Result<Vec<u32>> {
    let folder = Path::from(layout::KEYS);
    let listed = store.list(Some(&folder));
    let rings = listed.try_filter_map(async |object| Ok(layout::ring_version_of(series, &object.location)));
    let mut versions: Vec<u32> = rings.try_collect().await.map_err(|error| store::failed("list", &folder, error))?;
    versions.sort_unstable();
    Ok(versions)
}
