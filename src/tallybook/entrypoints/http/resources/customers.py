"""Customers: create, get, update, list, and create many at once."""

from typing import Annotated, Any, cast

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.core import clock, cursors, errors
from tallybook.core.errors import TallybookError
from tallybook.customers import actions, model, rules, store
from tallybook.entrypoints.http import decoding
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page

BATCH_MAX = 100
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Email = Annotated[str, msgspec.Meta(min_length=3, max_length=rules.EMAIL_LENGTH_MAX)]
ExternalId = Annotated[str, msgspec.Meta(min_length=1, max_length=rules.EXTERNAL_ID_BYTES_MAX)]
Timezone = Annotated[str, msgspec.Meta(min_length=1, max_length=64, description="IANA time zone")]
Metadata = Annotated[dict[str, Any], msgspec.Meta(max_length=50)]


class Address(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a customer is billed."""

    line1: Text
    line2: Text | None = None
    city: Text
    state: Text | None = None
    postal_code: Text
    country: Text
    region: Text | None = None


class BatchCustomer(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A customer to create. `id` and `externalId` both are the caller's own id; either does."""

    email: Email
    id: ExternalId | None = None
    external_id: ExternalId | None = None
    full_name: Text | None = None
    tax_document: Text | None = None
    timezone: Timezone | None = None
    metadata: Metadata | None = None
    address: Address | None = None


class CreateCustomer(BatchCustomer, kw_only=True):
    """A customer to create. `addressId` is not supported yet."""

    address_id: Text | None = None


class BatchCreateCustomers(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Customers to create. Each is checked by itself: a broken one fails alone."""

    customers: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class UpdateCustomer(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to change of a customer; null removes. `metadata` replaces what was there."""

    email: Email | UnsetType = UNSET
    external_id: ExternalId | UnsetType | None = UNSET
    full_name: Text | UnsetType | None = UNSET
    tax_document: Text | UnsetType | None = UNSET
    timezone: Timezone | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    address: Address | UnsetType | None = UNSET


class CustomersQuery(ListQuery, kw_only=True):
    """Which customers to list: those with one external id, or with a text in their name, email or id."""

    external_id: ExternalId | None = None
    search: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Customer(msgspec.Struct, rename="camel", kw_only=True):
    """Who is billed."""

    object: str = "customer"
    id: str
    external_id: str | None
    full_name: str | None
    email: str
    tax_document: str | None
    document_type: str | None = None
    timezone: str | None
    metadata: dict[str, Any] | None
    created_at: str
    updated_at: str


class CreatedInBatch(msgspec.Struct, rename="camel", kw_only=True):
    """A customer that exists after the batch."""

    id: str
    external_id: str | None
    email: str


class FailedInBatch(msgspec.Struct, rename="camel", kw_only=True):
    """An item that made no customer: its place in the batch, why, and what was sent."""

    index: int
    error: str
    data: dict[str, Any]


class CustomerBatch(msgspec.Struct, rename="camel", kw_only=True):
    """What became of a batch."""

    object: str = "customer_batch"
    successful: list[CreatedInBatch]
    failed: list[FailedInBatch]


async def create(call: Call) -> Customer:
    """Create a customer, or answer with the one that has the id already."""
    body: CreateCustomer = call.body
    if body.address_id is not None:
        raise errors.invalid("addressId", "addressId is not supported yet; send address.")
    return _shown(await actions.create(call.connection, call.tenant, call.now, _new(body)))


async def create_batch(call: Call) -> CustomerBatch:
    """Create many customers, each for itself."""
    body: BatchCreateCustomers = call.body
    items = [_read_item(item) for item in body.customers]
    results = await actions.create_each(call.connection, call.tenant, call.now, items)
    batch = CustomerBatch(successful=[], failed=[])
    for index, result in enumerate(results):
        if isinstance(result, TallybookError):
            batch.failed.append(FailedInBatch(index=index, error=result.message, data=_as_sent(body.customers[index])))
        else:
            batch.successful.append(CreatedInBatch(id=result.public_id, external_id=result.external_id, email=result.email))
    return batch


async def get(call: Call) -> Customer:
    """The customer with this id of ours or of the caller's."""
    customer = await store.find(call.connection, call.tenant, call.path["id"])
    if customer is None:
        raise actions.not_found(call.path["id"])
    return _shown(customer)


async def update(call: Call) -> Customer:
    """Change what is given and leave the rest."""
    body: UpdateCustomer = call.body
    change = model.CustomerChange(
        email=body.email,
        external_id=body.external_id,
        full_name=body.full_name,
        tax_document=body.tax_document,
        timezone=body.timezone,
        metadata=body.metadata,
        address=_stored_address(body.address) if isinstance(body.address, Address) else body.address,
    )
    return _shown(await actions.update(call.connection, call.tenant, call.now, call.path["id"], change))


async def list_page(call: Call) -> Page:
    """Customers, newest first."""
    query: CustomersQuery = call.query
    before_id = None if query.cursor is None else cursors.decode(query.cursor)
    which = model.Filter(external_id=query.external_id, search=query.search, before_id=before_id)
    found = await store.page(call.connection, call.tenant, which, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda customer: customer.id)
    return Page([_shown(customer) for customer in page], next_cursor)


def _read_item(item: msgspec.Raw) -> model.NewCustomer | TallybookError:
    try:
        return _new(decoding.body(bytes(item), BatchCustomer))
    except TallybookError as error:
        return error


def _as_sent(item: msgspec.Raw) -> dict[str, Any]:
    sent: object = msgspec.json.decode(item)
    return {"email": "", **cast("dict[str, Any]", sent)} if isinstance(sent, dict) else {"email": ""}


def _new(body: BatchCustomer) -> model.NewCustomer:
    if body.id is not None and body.external_id not in (None, body.id):
        raise errors.invalid("externalId", f"id {body.id!r} and externalId {body.external_id!r} differ; both are your own id.")
    return model.NewCustomer(
        email=body.email,
        external_id=body.external_id if body.id is None else body.id,
        full_name=body.full_name,
        tax_document=body.tax_document,
        timezone=body.timezone,
        metadata=body.metadata,
        address=None if body.address is None else _stored_address(body.address),
    )


def _stored_address(address: Address) -> dict[str, str]:
    return msgspec.to_builtins(address)


def _shown(customer: model.Customer) -> Customer:
    return Customer(
        id=customer.public_id,
        external_id=customer.external_id,
        full_name=customer.full_name,
        email=customer.email,
        tax_document=customer.tax_document,
        timezone=customer.timezone,
        metadata=None if customer.metadata is None else dict(customer.metadata),
        created_at=clock.iso(customer.created_at),
        updated_at=clock.iso(customer.updated_at),
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/customers",
        id="create-customer",
        summary="Create a customer; with an id that exists already, get that customer unchanged.",
        permission="customer",
        handler=create,
        body=CreateCustomer,
        returns=Customer,
        example={"id": "user_123", "email": "user@example.com", "fullName": "Ada Example", "timezone": "Europe/Berlin"},
    ),
    Operation(
        method="POST",
        path="/customers/batch",
        id="batch-create-customers",
        summary="Create up to 100 customers, each for itself.",
        permission="customer",
        handler=create_batch,
        body=BatchCreateCustomers,
        returns=CustomerBatch,
        example={"customers": [{"id": "user_1", "email": "one@example.com"}, {"id": "user_2", "email": "two@example.com"}]},
    ),
    Operation(
        method="GET",
        path="/customers/{id}",
        id="get-customer",
        summary="Get a customer by its id or by your own id for it.",
        permission="customer",
        handler=get,
        returns=Customer,
    ),
    Operation(
        method="PATCH",
        path="/customers/{id}",
        id="update-customer",
        summary="Change what is given of a customer; null removes.",
        permission="customer",
        handler=update,
        body=UpdateCustomer,
        returns=Customer,
        example={"fullName": "Ada Example", "metadata": {"tier": "gold"}},
    ),
    Operation(
        method="GET",
        path="/customers",
        id="list-customers",
        summary="List customers, newest first.",
        permission="customer",
        handler=list_page,
        query=CustomersQuery,
        returns=Customer,
        is_list=True,
    ),
)
