//! `counterfoil attachment`: the bytes of one attachment on standard output.

mod shown;

use std::io::IsTerminal as _;

use clap::Args;

use self::shown::Shown;
use super::resolve::access::{Asked, Record};
use super::{Context, Ended, extract, grouped, interruption, say};
use crate::error::{Error, Result};
use crate::kustomer::Downloader;
use crate::lake::accesses::{Cost, Delivery};
use crate::model::ObjectId;
use crate::resolve::{AttachmentRequest, Delivered, stream_attachment};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    /// The ticket
    ticket: String,
    /// The attachment, as `attachments` of the ticket's line names it
    id: String,
    /// Refuse: the bytes of a file cannot be redacted
    #[arg(long)]
    redact: bool,
}

const HELP: &str = "Examples:
  counterfoil resolve 58228e05d4e96711004eccb7 --only attachments
  counterfoil attachment 58228e05d4e96711004eccb7 5e0e14c103a4e80018b374aa > receipt.jpg";

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<Ended> {
    let config = context.settings()?;
    let id = |text: &str, what: &'static str| {
        ObjectId::from_hex(text.as_bytes()).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Error::config("not an id, which has 24 hex digits").with_context(what, shown.escape_debug())
        })
    };
    let is_terminal = std::io::stdout().is_terminal();
    let request = AttachmentRequest {
        ticket_id: id(&arguments.ticket, "ticket")?,
        attachment_id: id(&arguments.id, "attachment")?,
        to_terminal: is_terminal,
    };
    if config.redact || arguments.redact {
        let wanted = if config.redact { "resolve.redact" } else { "--redact" };
        return Err(Error::denied("attachments cannot be redacted, and all details are to be redacted")
            .with_context("by", wanted)
            .with_hint("`counterfoil resolve TICKET --only attachments` names them, with type and size"));
    }
    let client = extract::client(context, &config)?;
    let downloader = Downloader::beside(&client)?;
    let asked = Asked {
        command: "attachment",
        ids: [request.ticket_id].into(),
        parts: "attachments".to_owned(),
        redacted: false,
        attachment_id: Some(request.attachment_id.to_string()),
    };
    let record = Record::new(context, &config, asked);
    let permit = async {
        record.permit().await?;
        record.delivered(request.ticket_id, Delivery::Partial);
        Ok(())
    };
    let mut out = Shown::new(context.watch.stdout(), is_terminal);
    let before = client.ledger();
    let ended = tokio::select! {
        ended = stream_attachment(&client, &downloader, &request, permit, &mut out) => Some(ended),
        () = interruption() => None,
    };
    if matches!(ended, Some(Ok(Delivered { reader_left: false, .. }))) {
        record.completed();
    }
    let requests = client.ledger().since(&before).total();
    let finished = record.finish(Cost { requests, several_customers: None }).await;
    let Some(ended) = ended else { return Ok(Ended::Interrupted) };
    let delivered = ended?;
    finished?;
    if !context.quiet && std::io::stderr().is_terminal() {
        say(&format!(
            "{} bytes; {} requests to the source, {} to the file host, which is outside the budget",
            grouped(delivered.bytes),
            grouped(delivered.requests),
            grouped(delivered.file_requests)
        ));
    }
    Ok(Ended::Done)
}
