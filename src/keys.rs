//! The keys: a root key wraps the key ring, the ring wraps the key of each file, and all of it is AES-256-GCM.
//!
//! ```text
//! root key ──wraps──▶ key ring ──wraps──▶ file keys (DEK, one per data file)
//! file: env:            │  └──encrypts──▶ commits, snapshots (sealed objects)
//! passphrase:           └─────HMAC──────▶ pseudonyms
//! aws-kms: vault:
//! ```
//!
//! The root key is asked once per process, when the ring is opened, which may mean a request to a key service; everything
//! after that is local and synchronous, as the Parquet reader wants it. Exchanging the root key seals the ring anew and touches no file; exchanging a master key
//! adds one to the ring, and older files keep theirs. A file that PyArrow or Spark is to open needs one exported master
//! key, so its key metadata follow the format that their key tools read ([`metadata`]).
//!
//! Key bytes live in [`SecretKey`](crate::secret::SecretKey): they are zeroized, print as `[redacted]`, cannot be cloned
//! and appear in no error. This module alone uses the operating system's random numbers.

mod block;
mod gcm;
pub mod metadata;
mod object;
mod ring;
mod root;

pub use block::{BLOCK_OVERHEAD, BlockKey};
pub use metadata::FileKey;
pub use object::{OBJECT_HEADER_BYTES, object_key_id};
pub use ring::{KeyRing, KeyState, PseudonymVersion, Right, RingKey, Series};
pub use root::{KeySettings, RootKey};
