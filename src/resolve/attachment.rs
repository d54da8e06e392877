//! The bytes of one attachment: its link comes fresh from the source, its bytes go straight to the reader.
//!
//! ```text
//! list of the ticket's attachments ─▶ link ─▶ file opened, sizes compared ─▶ permit ─▶ pieces ─▶ standard output
//! ```
//!
//! What can be known before the first byte is checked before it; then nothing is written. The link stays in here: it opens
//! the file to anyone who has it. A piece is cleared once it is written, as far as nobody else holds the same memory.

use std::future::Future;
use std::io;

use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

use super::fetch::listing::next_path;
use super::page::{Attachment, Page, related_links};
use super::source::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::kustomer::{Download, Downloader, Endpoint, Link, Step};
use crate::model::ObjectId;

/// Pages of a ticket's attachments that are followed: 10,000 files.
const MOST_PAGES: usize = 100;

/// Ids that the error of an unknown attachment names.
const MOST_NAMED: usize = 20;

/// Which attachment, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct AttachmentRequest {
    /// The ticket.
    pub ticket_id: ObjectId,
    /// The attachment.
    pub attachment_id: ObjectId,
    /// Whether the bytes go to a terminal: only text may.
    pub to_terminal: bool,
}

/// What was delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Bytes written.
    pub bytes: u64,
    /// Requests to the source, within its budget.
    pub requests: u64,
    /// Requests to the host of the file, which has no budget of ours.
    pub file_requests: u64,
    /// Whether the reader left before the end; that is its right and no error.
    pub reader_left: bool,
}

/// An attachment and its link.
struct Found {
    file: Attachment,
    link: Link,
}

/// Where an attachment is looked for, with which clients.
struct Search<'a, S> {
    source: &'a S,
    downloader: &'a Downloader,
    request: &'a AttachmentRequest,
}

/// Writes the bytes of one attachment; the first one not before `permit` has ended well.
///
/// # Errors
///
/// [`Config`](ErrorKind::Config) for a terminal that is to show what is no text; [`Incomplete`](ErrorKind::Incomplete) when the
/// ticket, or the attachment in it, does not exist or its content was taken away; [`Denied`](ErrorKind::Denied) for a missing
/// role and for a link that is refused also when it is fresh; [`Data`](ErrorKind::Data) for a size that is not the announced one;
/// [`Unavailable`](ErrorKind::Unavailable) when the end did not come or cannot be written; that of `permit`.
pub async fn stream_attachment(
    source: &impl Source,
    downloader: &Downloader,
    request: &AttachmentRequest,
    permit: impl Future<Output = Result<()>>,
    out: &mut (impl io::Write + Send),
) -> Result<Delivered> {
    let before = source.sent();
    let search = Search { source, downloader, request };
    let Found { file, link } = search.find().await?;
    search.check(&file)?;
    let mut download = downloader.download(link, file.content_length);
    // How far the file was when a link was last refused.
    let mut refused_at = None;
    let named = |error| search.named(error);
    while !download.open().await.map_err(named)? {
        search.renew(&mut download, &file, &mut refused_at).await?;
    }
    permit.await?;
    let reader_left = loop {
        match download.next().await.map_err(named)? {
            Step::Piece(piece) => {
                let written = out.write_all(&piece);
                clear(piece);
                if is_left(written, &download)? {
                    break true;
                }
            }
            Step::End => break is_left(out.flush(), &download)?,
            Step::Expired => search.renew(&mut download, &file, &mut refused_at).await?,
        }
    };
    let delivered = Delivered {
        bytes: download.received(),
        requests: source.sent() - before,
        file_requests: download.requests(),
        reader_left,
    };
    tracing::debug!(ticket = %request.ticket_id, attachment = %request.attachment_id, bytes = delivered.bytes, "delivered");
    Ok(delivered)
}

impl<S: Source> Search<'_, S> {
    /// Finds the attachment in the list of its ticket. There is a shorter way by its message; it would lead to a file of any
    /// ticket, and the record of the access would name the wrong one.
    async fn find(&self) -> Result<Found> {
        let mut ids = Vec::new();
        match self.list(&mut ids).await? {
            Some(found) => Ok(found),
            None => Err(self.unknown(&ids)),
        }
    }

    /// Goes through the ticket's list up to the attachment; of the others the ids are noted.
    async fn list(&self, ids: &mut Vec<String>) -> Result<Option<Found>> {
        let first = format!("/v1/conversations/{}/attachments?page=1&pageSize=100", self.request.ticket_id);
        let mut path = first.clone();
        for _ in 0..MOST_PAGES {
            let Some(body) = self.source.fetch(Endpoint::Attachments, &path).await? else {
                return Err(Error::new(ErrorKind::Incomplete, "ticket does not exist at the source")
                    .with_context("ticket", self.request.ticket_id)
                    .with_hint("the id may be of another organisation, or the ticket was deleted or merged"));
            };
            let page = self.read(&body)?;
            let known = ids.len();
            for (place, file) in page.attachments.into_iter().enumerate() {
                if self.is_meant(&file) {
                    return self.found(file, &body, place).map(Some);
                }
                ids.extend(file.id.clone().filter(|id| !ids.contains(id)));
            }
            let Some(next) = page.next.filter(|_| ids.len() > known) else { return Ok(None) };
            match next_path(&first, &next) {
                Some(next) if next != path => path = next,
                _ => {
                    return Err(Error::data("list of attachments goes on elsewhere, and that is not followed")
                        .with_context("ticket", self.request.ticket_id));
                }
            }
        }
        Ok(None)
    }

    fn read(&self, body: &[u8]) -> Result<Page> {
        Page::decode_attachments(body).map_err(|error| error.with_context("ticket", self.request.ticket_id))
    }

    fn is_meant(&self, file: &Attachment) -> bool {
        let id = file.id.as_ref().and_then(|id| ObjectId::from_hex(id.as_bytes()));
        id == Some(self.request.attachment_id)
    }

    fn found(&self, file: Attachment, body: &[u8], place: usize) -> Result<Found> {
        let link: Option<Zeroizing<String>> = related_links(body)?.into_iter().nth(place).flatten();
        if file.redacted == Some(true) {
            return Err(
                self.named(Error::new(ErrorKind::Incomplete, "content of the attachment was taken away at the source"))
            );
        }
        let Some(link) = link else {
            return Err(self.named(Error::data("source gives no link to the attachment")));
        };
        let link = self.downloader.link(&link).map_err(|error| self.named(error))?;
        Ok(Found { file, link })
    }

    /// Refuses what a terminal must not show.
    fn check(&self, file: &Attachment) -> Result<()> {
        if !self.request.to_terminal || file.content_type.as_deref().is_some_and(is_text) {
            return Ok(());
        }
        let AttachmentRequest { ticket_id, attachment_id, .. } = self.request;
        Err(self.named(Error::config("attachment is no text, and standard output is a terminal")).with_hint(format!(
            "send it to a file, `counterfoil attachment {ticket_id} {attachment_id} > FILE`, or into a program"
        )))
    }
}

impl<S: Source> Search<'_, S> {
    /// Takes a fresh link in the place of one that was refused, unless nothing came with that either.
    async fn renew(&self, download: &mut Download<'_>, file: &Attachment, refused_at: &mut Option<u64>) -> Result<()> {
        let received = download.received();
        if refused_at.replace(received) == Some(received) {
            return Err(self
                .named(Error::denied("file host refuses a link that was signed this moment"))
                .with_context("host", download.host())
                .with_context("bytes", received)
                .with_hint("compare this machine's clock with the source's: `counterfoil doctor`"));
        }
        tracing::info!(attachment = %self.request.attachment_id, received, "link was refused; asking for a fresh one");
        let fresh = self.find().await?;
        if fresh.file.content_length != file.content_length {
            return Err(self.named(Error::data("file changed while it was read")));
        }
        download.renew(fresh.link);
        Ok(())
    }

    fn unknown(&self, ids: &[String]) -> Error {
        let error = self.named(Error::new(ErrorKind::Incomplete, "ticket has no such attachment"));
        if ids.is_empty() {
            return error.with_hint("it has no attachments at all");
        }
        let named: Vec<&str> = ids.iter().take(MOST_NAMED).map(String::as_str).collect();
        let more = if ids.len() > MOST_NAMED { format!(" and {} more", ids.len() - MOST_NAMED) } else { String::new() };
        error.with_hint(format!("its attachments are {}{more}", named.join(", ")))
    }

    fn named(&self, error: Error) -> Error {
        error.with_context("ticket", self.request.ticket_id).with_context("attachment", self.request.attachment_id)
    }
}

/// Tells whether a media type is one that a terminal can show.
fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/") || kind == "application/json"
}

/// Clears what was written, unless another piece shares its memory.
fn clear(piece: Bytes) {
    if let Ok(mut piece) = piece.try_into_mut() {
        piece.as_mut().zeroize();
    }
}

/// Tells whether the reader left.
fn is_left(written: io::Result<()>, download: &Download<'_>) -> Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(source) if source.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(source) => Err(Error::unavailable("failed to write the attachment")
            .with_context("bytes", download.received())
            .with_source(source)),
    }
}
