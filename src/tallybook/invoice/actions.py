"""What can be done with invoices. Each verb runs inside the caller's transaction."""

from datetime import datetime

from tallybook.core import clock, ids
from tallybook.core.tenant import Tenant
from tallybook.invoice import store
from tallybook.invoice.model import Draft, Invoice
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy


async def issue(connection: Connection, tenant: Tenant, now: datetime, draft: Draft) -> Invoice | None:
    """Issue an invoice and announce it, once for a subscription and boundary: a repeat returns the first one.

    None when the draft has no lines. The caller holds the subscription's lock.
    """
    if not draft.lines:
        return None
    issued = await store.at_boundary(connection, draft.subscription_id, draft.billed_at)
    if issued is not None:
        return issued
    invoice = await store.insert(connection, tenant, now, ids.new("inv"), draft)
    await tenancy.announce(connection, tenant, "invoice.created", _announcement(invoice))
    return invoice


def _announcement(invoice: Invoice) -> dict[str, object]:
    return {
        "invoiceId": invoice.public_id,
        "invoiceNumber": invoice.number_text,
        "invoiceStatus": invoice.status,
        "periodStart": clock.iso(invoice.period_start),
        "periodEnd": clock.iso(invoice.period_end),
        "issueDate": clock.iso(invoice.issued_at),
        "dueDate": clock.iso(invoice.due_at),
        "currency": invoice.currency,
        "subtotal": invoice.total_cents,
        "total": invoice.total_cents,
        "customerId": invoice.customer_external_id or invoice.customer_public_id,
        "subscriptionId": invoice.subscription_public_id,
    }
