//! `counterfoil lake erase`: erase customers and tickets from every version; the receipt goes to standard output.

use clap::Args;

use crate::cli::{Context, print, say};
use crate::error::{Error, Result};
use crate::lake::EraseRequest;
use crate::model::ObjectId;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A customer, with all tickets; may be repeated
    #[arg(long, value_name = "ID", required_unless_present = "ticket")]
    customer: Vec<ObjectId>,
    /// A ticket; may be repeated
    #[arg(long, value_name = "ID")]
    ticket: Vec<ObjectId>,
    /// What tickets hold in place of the customer's id, where the policy changes it; may be repeated
    #[arg(long, value_name = "VALUE", requires = "customer")]
    customer_value: Vec<String>,
    /// Print what would go, and erase nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let lake = context.lake(&context.settings()?).await?;
    let request = EraseRequest {
        customers: arguments.customer.iter().copied().collect(),
        tickets: arguments.ticket.iter().copied().collect(),
        customer_values: arguments.customer_value.iter().cloned().collect(),
    };
    let note = |line: &str| {
        if !context.quiet {
            say(line);
        }
    };
    if arguments.dry_run {
        let plan = lake.plan_erasure(&request).await?;
        if plan.tables.is_empty() && plan.runs == 0 && plan.recordings == 0 {
            note("the lake holds nothing of it");
        }
        return print(&plan.to_string());
    }
    let receipt = lake.erase(&request, &format!("lake erase, process {}", std::process::id())).await?;
    if receipt.is_empty() {
        note("the lake held nothing of it: check the ids");
    }
    if receipt.tickets_not_followed > 0 {
        note(&format!(
            "{} tickets name a customer that was deleted or merged and were not followed yet: `counterfoil extract`, then erase again",
            receipt.tickets_not_followed
        ));
    }
    note(
        "not reached: backups, object versions that the store keeps, exported results; a later extract brings back what the source still has",
    );
    let text = serde_json::to_string_pretty(&receipt)
        .map_err(|error| Error::internal("failed to write the receipt").with_source(error))?;
    print(&(text + "\n"))
}
