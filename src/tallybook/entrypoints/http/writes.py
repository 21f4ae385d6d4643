"""A write, in order: once per Idempotency-Key, its response stored with its effect, the till told, and only then answered."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import cast

from tallybook.core import errors
from tallybook.entrypoints.http import decoding, shapes
from tallybook.entrypoints.http.routing import Call, Handler, Operation
from tallybook.flows import terms
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import sealing
from tallybook.tenancy.model import StoredResponse

ACQUIRE_TIMEOUT_S = 5.0


async def perform(operation: Operation, call: Call, fingerprint: bytes, api_key: str) -> bytes:
    """Do it, or find what was answered before. Returns plain JSON; raises what the handler raises, Conflict and Unavailable."""
    async with call.services.database.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection, connection.transaction():
        call.connection = connection
        body = await _recall(operation, call, fingerprint, api_key)
        if body is None:
            call.now = await tenancy.clock_now(connection, call.tenant, call.real_now)
            body = await run(operation, call)
            await _keep(operation, call, StoredResponse(fingerprint, operation.status, body), api_key)
    await terms.publish(call.services, call.tenant)
    return body


async def run(operation: Operation, call: Call) -> bytes:
    """Call the handler. Returns its result as plain JSON."""
    result = await cast("Handler", operation.handler)(call)
    return shapes.plain(result, livemode=call.tenant.livemode)


def fingerprint(
    operation: Operation, key_id: str, path: Mapping[str, str], query: Sequence[tuple[str, str]], body: bytes
) -> bytes:
    """What must be the same for an Idempotency-Key to be the same request. Who asks matters only where a secret is answered."""
    tree = decoding.strict_json(body) if body.strip() else None
    asker = key_id if operation.secret else ""
    return hashlib.sha256(decoding.canonical([operation.id, asker, dict(path), sorted(query), tree])).digest()


async def _recall(operation: Operation, call: Call, fingerprint: bytes, api_key: str) -> bytes | None:
    key = call.idempotency_key
    if key is None:
        return None
    stored = await tenancy.recall_response(call.connection, call.tenant, call.real_now, key, fingerprint)
    if stored is None:
        return None
    body = sealing.unseal(stored.body, api_key, key) if operation.secret else stored.body
    if body is None:
        message = "The response to this Idempotency-Key shows a secret and can only be read with the API key that asked for it."
        raise errors.Conflict("idempotency_key_mismatch", message)
    return body


async def _keep(operation: Operation, call: Call, response: StoredResponse, api_key: str) -> None:
    key = call.idempotency_key
    if key is None:
        return
    if operation.secret:
        response = StoredResponse(response.fingerprint, response.status, sealing.seal(response.body, api_key, key))
    await tenancy.keep_response(call.connection, call.tenant, call.real_now, key, response)
