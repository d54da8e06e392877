//! Buckets of S3, Google Cloud Storage and Azure Blob Storage.
//!
//! ```text
//! s3://BUCKET/PREFIX     If-None-Match: *               (S3 itself and whatever speaks its language, by `endpoint`)
//! gs://BUCKET/PREFIX     x-goog-if-generation-match: 0
//! az://CONTAINER/PREFIX  If-None-Match: *               (the account by `account` or AZURE_STORAGE_ACCOUNT_NAME)
//! ```
//!
//! Credentials are those of the settings, or else the provider's usual ones: environment variables, the identity of the
//! machine or of the pod. Profiles in `~/.aws` are not read. TLS is always verified, and plain http goes to this machine only.
//!
//! An object is put in one request, also one of a hundred megabytes, so that it is there whole or not at all. What is
//! larger than [`LARGE_BYTES`] goes through a client that waits longer: a silent store should end a small call soon.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RetryConfig,
};
use url::{Host, Url};

use crate::error::{Error, Result};
use crate::lake::store::StoreSettings;
use crate::lake::store::answer::Answer;
use crate::secret::{SecretRef, SecretString};

/// Objects above this may take as long as [`PATIENCE`].
const LARGE_BYTES: usize = 1 << 20;

/// The longest a small call may take, so that a store that accepts and stays silent is told within a minute.
const CALL: Duration = Duration::from_mins(1);

/// The longest a large put may take: a hundred megabytes at 1.5 Mbit/s.
const PATIENCE: Duration = Duration::from_mins(10);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// No further attempt begins after this.
const RETRY: Duration = Duration::from_secs(30);

/// Attempts after the first: some ten seconds of pauses.
const RETRIES: usize = 5;

/// Attempts at a put that the store refuses because of another one in progress (S3's `ConditionalRequestConflict`).
const RACES: usize = 5;

/// Which provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    S3,
    Google,
    Azure,
}

impl Provider {
    /// Finds the provider of a URL's scheme.
    pub(super) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Google),
            "az" => Some(Self::Azure),
            _ => None,
        }
    }

    const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }

    /// The settings that it understands besides `endpoint`.
    const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["region", "access_key_id", "secret_access_key", "session_token"],
            Self::Google => &["service_account"],
            Self::Azure => &["account", "account_key", "sas_token"],
        }
    }
}

/// Opens a bucket; `rest` is the URL after its scheme and colon.
pub(super) fn open(provider: Provider, rest: &str, settings: &StoreSettings) -> Result<(Arc<dyn ObjectStore>, String)> {
    let place = Place::parse(provider, rest)?;
    refuse_foreign(provider, settings)?;
    let shown = place.to_string();
    let build = |timeout| build(provider, &place.bucket, settings, timeout);
    let cloud = Cloud {
        quick: PrefixStore::new(build(CALL)?, place.prefix.clone()),
        patient: PrefixStore::new(build(PATIENCE)?, place.prefix.clone()),
        shown: shown.clone(),
    };
    Ok((Arc::new(cloud), shown))
}

/// A bucket and a folder in it.
#[derive(Debug)]
struct Place {
    provider: Provider,
    bucket: String,
    prefix: Path,
}

impl Place {
    fn parse(provider: Provider, rest: &str) -> Result<Self> {
        let form = format!("write {}://BUCKET/PREFIX", provider.scheme());
        let Some(rest) = rest.strip_prefix("//") else {
            return Err(Error::config("lake URL names no bucket").with_hint(form));
        };
        if rest.contains(['?', '#', '@']) {
            return Err(Error::config("lake URL has more than a bucket and a prefix")
                .with_hint(format!("{form}; credentials have settings of their own under [lake]")));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_known) {
            return Err(Error::config("lake URL has no valid bucket name")
                .with_context("bucket", bucket)
                .with_hint(format!("{form}; a name has lower-case letters, digits, hyphens, dots and underscores")));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let wrong = || {
            Error::config("prefix of the lake URL is no plain folder")
                .with_context("prefix", prefix)
                .with_hint("write names between single slashes, without `.` and `..`")
        };
        // What another program may read as another folder is refused: `.`, `..`, empty parts, control characters.
        if prefix.starts_with('/') || prefix.ends_with('/') {
            return Err(wrong());
        }
        let parsed = Path::parse(prefix).map_err(|error| wrong().with_source(error))?;
        Ok(Self { provider, bucket: bucket.to_owned(), prefix: parsed })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.bucket)?;
        if self.prefix.as_ref().is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Refuses settings of another provider: whoever wrote them expects them to count.
fn refuse_foreign(provider: Provider, settings: &StoreSettings) -> Result<()> {
    let written = [
        ("region", settings.region.is_some()),
        ("access_key_id", settings.access_key_id.is_some()),
        ("secret_access_key", settings.secret_access_key.is_some()),
        ("session_token", settings.session_token.is_some()),
        ("service_account", settings.service_account.is_some()),
        ("account", settings.account.is_some()),
        ("account_key", settings.account_key.is_some()),
        ("sas_token", settings.sas_token.is_some()),
    ];
    let known = provider.settings();
    match written.iter().find(|(name, is_set)| *is_set && !known.contains(name)) {
        None => Ok(()),
        Some((name, _)) => Err(Error::config(format!("setting `lake.{name}` is not for this store"))
            .with_context("store", provider.scheme())
            .with_hint(format!("for {}: there are endpoint, {}", provider.scheme(), known.join(", ")))),
    }
}

fn build(
    provider: Provider,
    bucket: &str,
    settings: &StoreSettings,
    timeout: Duration,
) -> Result<Arc<dyn ObjectStore>> {
    let secret = |reference: &Option<SecretRef>| -> Result<Option<SecretString>> {
        reference.as_ref().map(|reference| reference.read(&settings.base)).transpose()
    };
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(3), ..BackoffConfig::default() },
        max_retries: RETRIES,
        retry_timeout: RETRY,
    };
    match provider {
        Provider::S3 => {
            let mut builder = AmazonS3Builder::from_env();
            match (secret(&settings.access_key_id)?, secret(&settings.secret_access_key)?) {
                (Some(id), Some(key)) => {
                    // A token in the environment belongs to the keys in the environment.
                    let token = secret(&settings.session_token)?;
                    builder = AmazonS3Builder::from_env_without_keys()
                        .with_access_key_id(id.expose())
                        .with_secret_access_key(key.expose());
                    if let Some(token) = token {
                        builder = builder.with_token(token.expose());
                    }
                }
                (None, None) if settings.session_token.is_none() => {}
                _ => {
                    return Err(Error::config(
                        "a key of S3 needs both `lake.access_key_id` and `lake.secret_access_key`",
                    )
                    .with_hint("set both, or neither to use the environment's credentials"));
                }
            }
            if let Some(region) = &settings.region {
                builder = builder.with_region(region);
            }
            let known = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
            let inherited = known.iter().find_map(|key| builder.get_config_value(key));
            let endpoint = endpoint(settings.endpoint.as_ref().or(inherited.as_ref()))?;
            if let Some(endpoint) = &endpoint {
                builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint.text());
            }
            let built = builder
                .with_bucket_name(bucket)
                .with_conditional_put(S3ConditionalPut::ETagMatch)
                .with_client_options(client(timeout, endpoint.as_ref()))
                .with_retry(retry)
                .build();
            Ok(Arc::new(built.map_err(|error| refused(&error))?))
        }
        Provider::Google => {
            let mut builder = GoogleCloudStorageBuilder::from_env();
            if let Some(account) = secret(&settings.service_account)? {
                builder = GoogleCloudStorageBuilder::new().with_service_account_key(account.expose());
            }
            let inherited = builder.get_config_value(&GoogleConfigKey::BaseUrl);
            let endpoint = endpoint(settings.endpoint.as_ref().or(inherited.as_ref()))?;
            if let Some(endpoint) = &endpoint {
                builder = builder.with_base_url(endpoint.text());
            }
            let built = builder
                .with_bucket_name(bucket)
                .with_client_options(client(timeout, endpoint.as_ref()))
                .with_retry(retry)
                .build();
            Ok(Arc::new(built.map_err(|error| refused(&error))?))
        }
        Provider::Azure => {
            let mut builder = match (secret(&settings.account_key)?, secret(&settings.sas_token)?) {
                (None, None) => MicrosoftAzureBuilder::from_env(),
                (Some(key), None) => MicrosoftAzureBuilder::new().with_access_key(key.expose()),
                (None, Some(token)) => MicrosoftAzureBuilder::new().with_config(AzureConfigKey::SasKey, token.expose()),
                (Some(_), Some(_)) => {
                    return Err(Error::config("both `lake.account_key` and `lake.sas_token` are set")
                        .with_hint("keep one of them"));
                }
            };
            let inherited = MicrosoftAzureBuilder::from_env();
            let account = settings.account.clone().or(inherited.get_config_value(&AzureConfigKey::AccountName));
            let Some(account) = account else {
                return Err(Error::config("missing setting `lake.account`")
                    .with_hint("account = \"NAME\" under [lake], the storage account, or AZURE_STORAGE_ACCOUNT_NAME"));
            };
            let is_known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            if account.is_empty() || !account.chars().all(is_known) {
                return Err(Error::config("setting `lake.account` is not the name of a storage account")
                    .with_context("value", account)
                    .with_hint("lower-case letters and digits, the part before .blob.core.windows.net"));
            }
            let inherited = inherited.get_config_value(&AzureConfigKey::Endpoint);
            let endpoint = endpoint(settings.endpoint.as_ref().or(inherited.as_ref()))?;
            if let Some(endpoint) = &endpoint {
                builder = builder.with_endpoint(endpoint.text().to_owned());
            }
            let built = builder
                .with_account(account)
                .with_container_name(bucket)
                // An emulator is reached by `endpoint`; this switch would bring a key that everybody knows.
                .with_use_emulator(false)
                .with_client_options(client(timeout, endpoint.as_ref()))
                .with_retry(retry)
                .build();
            Ok(Arc::new(built.map_err(|error| refused(&error))?))
        }
    }
}

/// What the builder of S3 takes from the environment, but its keys.
trait WithoutKeys {
    fn from_env_without_keys() -> Self;
}

impl WithoutKeys for AmazonS3Builder {
    fn from_env_without_keys() -> Self {
        let inherited = Self::from_env();
        let kept = [
            AmazonS3ConfigKey::Region,
            AmazonS3ConfigKey::DefaultRegion,
            AmazonS3ConfigKey::S3Endpoint,
            AmazonS3ConfigKey::Endpoint,
            AmazonS3ConfigKey::VirtualHostedStyleRequest,
        ];
        kept.into_iter().fold(Self::new(), |builder, key| match inherited.get_config_value(&key) {
            Some(value) => builder.with_config(key, value),
            None => builder,
        })
    }
}

/// An address that credentials may be sent to.
#[derive(Debug)]
struct Endpoint {
    url: Url,
    is_plain: bool,
}

impl Endpoint {
    /// The address without a slash at its end, to which paths are added.
    fn text(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }
}

fn endpoint(written: Option<&String>) -> Result<Option<Endpoint>> {
    let Some(written) = written else { return Ok(None) };
    let wrong = |reason: &'static str| Error::config(reason).with_context("setting", "lake.endpoint");
    let url = Url::parse(written).map_err(|error| wrong("address of the store is not a URL").with_source(error))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("address of the store has more than a scheme, a host and a path")
            .with_hint("credentials have settings of their own under [lake]"));
    }
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(wrong("address of the store has no host").with_context("value", url)),
    };
    match url.scheme() {
        "https" => Ok(Some(Endpoint { url, is_plain: false })),
        "http" if is_loopback => Ok(Some(Endpoint { url, is_plain: true })),
        "http" => {
            Err(wrong("plain http is allowed to this machine only: requests could be read and changed on the way")
                .with_context("value", url)
                .with_hint("write https:// in `lake.endpoint`"))
        }
        _ => Err(wrong("address of the store is neither https nor http").with_context("value", url)),
    }
}

/// The options of a client; they replace what the environment says, which could turn the checks of TLS off.
fn client(timeout: Duration, endpoint: Option<&Endpoint>) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(timeout)
        .with_connect_timeout(CONNECT)
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.is_plain))
}

/// The error of settings that a builder does not accept.
fn refused(error: &object_store::Error) -> Error {
    Error::config("settings of the lake's store do not work")
        .with_source(Answer::of(error))
        .with_hint("look at the section [lake], and at the provider's environment variables")
}

/// A bucket, through two clients.
struct Cloud {
    quick: PrefixStore<Arc<dyn ObjectStore>>,
    patient: PrefixStore<Arc<dyn ObjectStore>>,
    shown: String,
}

impl fmt::Debug for Cloud {
    /// Prints the place only: the clients hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cloud").field(&self.shown).finish()
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[async_trait]
impl ObjectStore for Cloud {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let client = if payload.content_length() > LARGE_BYTES { &self.patient } else { &self.quick };
        for race in 1..RACES {
            match client.put_opts(location, payload.clone(), options.clone()).await {
                // Nothing is there yet: another put of the name was on its way, or a deletion.
                Err(error @ object_store::Error::AlreadyExists { .. })
                    if Answer::of(&error).has_code("ConditionalRequestConflict") =>
                {
                    tokio::time::sleep(Duration::from_millis(100) * race as u32).await;
                }
                outcome => return outcome,
            }
        }
        client.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Err(self.unsupported("put in parts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.quick.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.quick.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.quick.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.quick.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.quick.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.quick.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> object_store::Result<()> {
        Err(self.unsupported("copy"))
    }
}

impl Cloud {
    fn unsupported(&self, operation: &str) -> object_store::Error {
        object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: self.shown.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use object_store::ObjectStoreExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::error::ErrorKind;
    use crate::lake::store::{Missing, StoreSettings, create, failed, open, probe, read};

    /// A server on loopback that gives every request the same answer and keeps the requests' heads.
    struct Service {
        address: String,
        heads: Arc<Mutex<Vec<String>>>,
    }

    impl Service {
        async fn start(status: &str, body: &str) -> Self {
            Self::with_answers(vec![(status.to_owned(), body.to_owned())]).await
        }

        /// Answers in turn; the last answer stays.
        async fn with_answers(answers: Vec<(String, String)>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let heads = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&heads);
            tokio::spawn(async move {
                let mut turn = 0;
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut head = Vec::new();
                    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { break };
                        head.push(byte);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let length = head
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
                    let mut body = vec![0; length.unwrap_or(0)];
                    let _ = stream.read_exact(&mut body).await;
                    seen.lock().unwrap().push(head);
                    let (status, body) = &answers[turn.min(answers.len() - 1)];
                    turn += 1;
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
            Self { address, heads }
        }

        fn first_line(&self) -> String {
            self.heads.lock().unwrap()[0].lines().next().unwrap().to_owned()
        }
    }

    /// Settings of each provider with its bucket at an address, credentials in files of `folder`.
    fn settings(folder: &std::path::Path, address: &str) -> [StoreSettings; 3] {
        let secret = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            Some(SecretRef::File(name.into()))
        };
        let account = r#"{"private_key":"k","private_key_id":"k","client_email":"e","disable_oauth":true}"#;
        let endpoint = Some(format!("http://{address}"));
        [
            StoreSettings {
                endpoint: endpoint.clone(),
                region: Some("eu-west-1".to_owned()),
                access_key_id: secret("id", "AKIDNEEDLE"),
                secret_access_key: secret("key", "secret-needle"),
                ..StoreSettings::new("s3://bucket/some/prefix/", folder)
            },
            StoreSettings {
                endpoint: endpoint.clone(),
                service_account: secret("account", account),
                ..StoreSettings::new("gs://bucket/some/prefix", folder)
            },
            StoreSettings {
                endpoint,
                account: Some("acme".to_owned()),
                sas_token: secret("sas", "sv=2024-01-01&sig=secret-needle"),
                ..StoreSettings::new("az://bucket/some/prefix", folder)
            },
        ]
    }

    #[tokio::test]
    async fn requests_go_to_the_endpoint_and_name_bucket_and_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let object = Path::from("log/1");
        let expected = [
            ("s3://bucket/some/prefix", "/bucket/some/prefix/log/1", "if-none-match: *"),
            ("gs://bucket/some/prefix", "/bucket/some%2Fprefix%2Flog%2F1", "x-goog-if-generation-match: 0"),
            ("az://bucket/some/prefix", "/bucket/some/prefix/log/1", "if-none-match: *"),
        ];
        for (index, (place, path, condition)) in expected.into_iter().enumerate() {
            let service = Service::start("404 Not Found", "").await;
            let settings = &settings(folder.path(), &service.address)[index];
            let (store, shown) = open(settings, Missing::Refuse).unwrap();
            assert_eq!((shown.as_str(), format!("{store}").as_str()), (place, place));
            assert!(!format!("{store:?}").contains("NEEDLE"));
            assert_eq!(read(store.as_ref(), &object, 9).await.unwrap(), None, "{place}");
            let line = service.first_line();
            assert!(line.starts_with("GET ") && line.contains(path), "{line}");

            // Two puts of a name: one that the store refuses as a second one, whatever its word for that is.
            for status in ["412 Precondition Failed", "409 Conflict"] {
                let service = Service::start(status, "").await;
                let settings = &self::settings(folder.path(), &service.address)[index];
                let (store, _) = open(settings, Missing::Refuse).unwrap();
                assert!(!create(store.as_ref(), &object, Bytes::from_static(b"x")).await.unwrap(), "{place} {status}");
                let head = service.heads.lock().unwrap()[0].to_lowercase();
                assert!(head.starts_with("put ") && head.contains(condition), "{head}");
            }
        }
    }

    #[tokio::test]
    async fn answers_end_in_the_kind_that_tells_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let xml = |code: &str, message: &str| {
            format!(
                "<Error><Code>{code}</Code><Message>{message}</Message><StringToSign>secret-needle</StringToSign></Error>"
            )
        };
        let region = xml("AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'");
        let cases = [
            (
                0,
                "403 Forbidden",
                xml("AccessDenied", "Access Denied"),
                ErrorKind::Denied,
                "AccessDenied: Access Denied",
            ),
            (0, "403 Forbidden", xml("SignatureDoesNotMatch", "differs"), ErrorKind::Denied, "SignatureDoesNotMatch"),
            (0, "400 Bad Request", xml("ExpiredToken", "expired"), ErrorKind::Denied, "ExpiredToken"),
            (0, "404 Not Found", xml("NoSuchBucket", "none"), ErrorKind::Config, "NoSuchBucket"),
            (0, "400 Bad Request", region, ErrorKind::Config, "expecting 'eu-west-1'"),
            (0, "301 Moved Permanently", String::new(), ErrorKind::Config, "another region"),
            (0, "501 Not Implemented", xml("NotImplemented", "header"), ErrorKind::Config, "NotImplemented"),
            (1, "403 Forbidden", "{\"message\": \"no\"}".to_owned(), ErrorKind::Denied, "403"),
            (1, "401 Unauthorized", String::new(), ErrorKind::Denied, "401"),
            (1, "404 Not Found", xml("NoSuchBucket", "none"), ErrorKind::Config, "NoSuchBucket"),
            (2, "403 Forbidden", xml("AuthenticationFailed", "failed"), ErrorKind::Denied, "AuthenticationFailed"),
            (2, "404 Not Found", xml("ContainerNotFound", "none"), ErrorKind::Config, "ContainerNotFound"),
        ];
        for (index, status, body, kind, part) in cases {
            let service = Service::start(status, &body).await;
            let (store, _) = open(&settings(folder.path(), &service.address)[index], Missing::Refuse).unwrap();
            let object = Path::from("lake.json");
            let error = read(store.as_ref(), &object, 9).await.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(error.kind(), kind, "{status} {body}: {error:?}");
            assert!(source.contains(part), "{status} {body}: {source}");
            assert!(error.hint().is_some(), "{status}");
            assert!(!format!("{error:?}").to_lowercase().contains("needle"), "{error:?}");
            let put = create(store.as_ref(), &object, Bytes::from_static(b"x")).await.unwrap_err();
            assert_eq!(put.kind(), kind, "put: {status} {body}: {put:?}");
            let listed = futures::TryStreamExt::try_collect::<Vec<_>>(store.list(None)).await.unwrap_err();
            let listed = failed("list", &object, listed);
            assert_eq!(listed.kind(), kind, "list: {status} {body}: {listed:?}");
            assert!(!format!("{listed:?}").to_lowercase().contains("needle"), "{listed:?}");
        }
    }

    #[tokio::test]
    async fn store_that_takes_a_second_object_of_a_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let service = Service::start("200 OK\r\netag: \"1\"", "").await;
        let (store, _) = open(&settings(folder.path(), &service.address)[0], Missing::Create).unwrap();
        let clock = crate::lake::simulation::clock();
        let error = probe(store.as_ref(), clock.as_ref()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("does not refuse a second object"), "{error}");
    }

    #[tokio::test]
    async fn put_that_meets_another_on_its_way_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let answer = |status: &str, body: &str| (status.to_owned(), body.to_owned());
        let conflict = answer("409 Conflict", "<Error><Code>ConditionalRequestConflict</Code></Error>");
        let service =
            Service::with_answers(vec![conflict.clone(), conflict, answer("200 OK\r\netag: \"1\"", "")]).await;
        let (store, _) = open(&settings(folder.path(), &service.address)[0], Missing::Create).unwrap();
        assert!(create(store.as_ref(), &Path::from("a"), Bytes::from_static(b"x")).await.unwrap());
        assert_eq!(service.heads.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn silent_address_is_unavailable_and_named_without_its_query() {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (store, _) = open(&settings(folder.path(), &free)[2], Missing::Refuse).unwrap();
        let error = read(store.as_ref(), &Path::from("lake.json"), 9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("refused"), "{source}");
        assert!(!format!("{error:?}").contains("secret-needle"), "{error:?}");
    }

    #[tokio::test]
    async fn calls_that_nobody_makes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&settings(folder.path(), "127.0.0.1:1")[0], Missing::Refuse).unwrap();
        assert!(store.copy(&Path::from("a"), &Path::from("b")).await.is_err());
        assert!(store.put_multipart(&Path::from("b")).await.is_err());
    }

    #[test]
    fn wrong_settings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let [s3, google, azure] = settings(folder.path(), "127.0.0.1:1");
        let endpoint = |text: &str| StoreSettings { endpoint: Some(text.to_owned()), ..s3.clone() };
        std::fs::write(folder.path().join("bad"), "secret-needle").unwrap();
        let bad = Some(SecretRef::File("bad".into()));
        let cases = [
            (endpoint("http://s3.example.com"), "plain http"),
            (endpoint("ftp://127.0.0.1"), "neither https nor http"),
            (endpoint("s3.example.com"), "not a URL"),
            (endpoint("https://user:secret-needle@s3.example.com"), "more than a scheme"),
            (endpoint("https://s3.example.com/?sig=secret-needle"), "more than a scheme"),
            (StoreSettings { secret_access_key: None, ..s3.clone() }, "needs both"),
            (
                StoreSettings {
                    access_key_id: None,
                    secret_access_key: None,
                    session_token: bad.clone(),
                    ..s3.clone()
                },
                "needs both",
            ),
            (StoreSettings { account: Some("acme".to_owned()), ..s3.clone() }, "`lake.account` is not for this store"),
            (StoreSettings { region: Some("x".to_owned()), ..google.clone() }, "`lake.region` is not for this store"),
            (StoreSettings { service_account: bad.clone(), ..google }, "do not work"),
            (StoreSettings { account: None, ..azure.clone() }, "missing setting `lake.account`"),
            (
                StoreSettings { account: Some("acme.blob".to_owned()), ..azure.clone() },
                "not the name of a storage account",
            ),
            (
                StoreSettings { account_key: bad.clone(), ..azure.clone() },
                "both `lake.account_key` and `lake.sas_token`",
            ),
            (StoreSettings { account_key: bad.clone(), sas_token: None, ..azure.clone() }, "do not work"),
            (StoreSettings { sas_token: bad, ..azure }, "do not work"),
            (StoreSettings { access_key_id: Some(SecretRef::File("none".into())), ..s3 }, "secret's file"),
        ];
        for (settings, part) in cases {
            let error = open(&settings, Missing::Refuse).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{part}");
            assert!(error.to_string().contains(part), "{part}: {error}");
            assert!(!format!("{error:?}").contains("secret-needle"), "{error:?}");
        }
        let secure = endpoint_of("https://s3.example.com/path/");
        assert_eq!((secure.text(), secure.is_plain), ("https://s3.example.com/path", false));
        assert!(endpoint_of("http://[::1]:9000").is_plain && endpoint_of("http://LOCALHOST:9000").is_plain);
    }

    fn endpoint_of(text: &str) -> Endpoint {
        super::endpoint(Some(&text.to_owned())).unwrap().unwrap()
    }
}
