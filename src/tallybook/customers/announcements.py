"""What customers tell the outside about themselves: the customer as the API shows it, with empty metadata where it has none."""

from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.customers.model import Customer
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy


async def created(connection: Connection, tenant: Tenant, customer: Customer) -> None:
    """A customer exists now."""
    await tenancy.announce(connection, tenant, "customer.created", _shown(customer))


async def updated(connection: Connection, tenant: Tenant, customer: Customer) -> None:
    """Some detail of a customer is another than before."""
    await tenancy.announce(connection, tenant, "customer.updated", _shown(customer))


def _shown(customer: Customer) -> dict[str, object]:
    return {
        "id": customer.public_id,
        "externalId": customer.external_id,
        "fullName": customer.full_name,
        "email": customer.email,
        "taxDocument": customer.tax_document,
        "documentType": None,
        "timezone": customer.timezone,
        "metadata": customer.metadata or {},
        "createdAt": clock.iso(customer.created_at),
        "updatedAt": clock.iso(customer.updated_at),
    }
