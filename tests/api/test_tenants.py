"""Who is not meant to see a thing is told what he would be told if it did not exist, by every operation, and changes nothing."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import pytest

from tallybook.core import clock
from tallybook.storage import postgres
from tallybook.tenancy import actions as tenancy
from tests.api import furnishing, matrix, watching
from tests.api.furnishing import Known
from tests.api.matrix import Json, Place, Row
from tests.support.service import Account, Answer, Service

ROWS = matrix.rows()
_OTHERWISE: Mapping[tuple[str, str], int] = dict.fromkeys((("query", name) for name in ("externalId", "model", "planCode")), 200)
"""What a list is filtered by: none of its rows is there."""
_BATCH = "track-usage-batch"
"""Says it for each event."""
_SHARED = frozenset({"ai-models", "lines"})
"""What every organization has alike."""


@dataclass(frozen=True, slots=True)
class Organization:
    """A furnished organization and its tenant's number."""

    account: Account
    tenant_id: int
    known: Known


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who asks; whose things are asked for; and somebody new who calls his own things by their names."""

    service: Service
    asker: Organization
    owners: Mapping[str, Organization]
    newcomer: Account
    before: Mapping[str, str]

    def changed(self) -> set[str]:
        """The tables in which anything differs from what it was at first."""
        return {table for table, digest in self.fingerprint().items() if digest != self.before[table]}

    def fingerprint(self) -> dict[str, str]:
        """Of all that the owners own."""
        return asyncio.run(watching.fingerprint(self.service, [owner.tenant_id for owner in self.owners.values()]))


@pytest.fixture(scope="module")
def neighbours(service: Service) -> Neighbours:
    (sandbox, number), (live, live_number) = asyncio.run(_accounts(service))
    (other, other_number), _ = asyncio.run(_accounts(service))
    (newcomer, _), _ = asyncio.run(_accounts(service))
    owners = {
        "the sibling mode": Organization(live, live_number, furnishing.furnish(live, "sibling", has_clock=False)),
        "another organization": Organization(other, other_number, furnishing.furnish(other, "stranger")),
    }
    asker = Organization(sandbox, number, furnishing.furnish(sandbox, "own"))
    asyncio.run(watching.settled(service, [number]))
    before = asyncio.run(watching.settled(service, [live_number, other_number]))
    return Neighbours(service, asker, owners, newcomer, before)


@pytest.mark.parametrize("row", [row for row in ROWS if row.places], ids=lambda row: row.operation.id)
def test_what_belongs_to_others_is_not_there(neighbours: Neighbours, row: Row) -> None:
    for name, owner in neighbours.owners.items():
        for place, foreign in _attempts(row, owner):
            unknown = _like(foreign)
            told, told_of_unknown = (_ask(neighbours.asker, row, place, named) for named in (foreign, unknown))
            where = f"{row.operation.id}: {place.name} of {name}"
            expected = 200 if row.operation.id == _BATCH else _OTHERWISE.get((place.part, place.name), 404)
            assert told.status == expected, (where, told)
            assert told.status == told_of_unknown.status, where
            assert _without(told, foreign) == _without(told_of_unknown, unknown), where
    assert neighbours.changed() == set()


@pytest.mark.parametrize("row", [row for row in ROWS if row.operation.method == "GET"], ids=lambda row: row.operation.id)
def test_no_answer_shows_what_belongs_to_others(neighbours: Neighbours, row: Row) -> None:
    path, query, body = row.request(neighbours.asker.known, None, "")
    answer = _send(neighbours.asker.account, row, path, query, body)
    assert answer.status == 200, answer
    text = json.dumps(answer.body)
    for owner in neighbours.owners.values():
        ids = [one for collection, them in owner.known.items() if collection not in _SHARED for one in them if not one.isdigit()]
        assert [one for one in ids if one in text] == []


@pytest.mark.parametrize(
    "row", [row for row in ROWS if matrix.NAMELESS.get(row.operation.id) == "create"], ids=lambda row: row.operation.id
)
def test_what_is_made_under_a_name_that_others_use_is_another_thing(neighbours: Neighbours, row: Row) -> None:
    theirs = neighbours.owners["another organization"].known
    body = matrix.body_of(row.operation)
    for one in body.get("customers", [body]):
        for name in {"id", "code"} & one.keys():
            one[name] = theirs[row.operation.path.split("/")[1]][-1]
    answer = neighbours.newcomer.call(row.operation.method, row.operation.path, body)
    assert answer.status == row.operation.status, answer
    assert not set(theirs["customers"]) & {answer.body.get("id")}
    assert neighbours.changed() <= watching.WITHOUT_TENANT


def test_a_clock_is_its_organizations_own(neighbours: Neighbours) -> None:
    neighbours.newcomer.advance(advanceDays=40)
    assert neighbours.changed() <= watching.WITHOUT_TENANT


def test_every_operation_is_in_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    places = sum(len(_tried(row)) for row in ROWS)
    covered = sum(bool(_tried(row)) or row.operation.id in matrix.NAMELESS for row in ROWS)
    with capsys.disabled():
        print(f"\ntenant matrix: {covered} of {len(ROWS)} operations, {places} places that name something")
    assert covered == len(ROWS)


def _tried(row: Row) -> list[Place]:
    return [place for place in row.places if place.collection not in _SHARED]


def _attempts(row: Row, owner: Organization) -> Iterator[tuple[Place, str]]:
    """Each place with what the owner has for it: by the system's id, and by the owner's own name."""
    for place in _tried(row):
        has = owner.known[place.collection]
        assert has, f"furnish {place.collection}"
        names = has[-1:] if place.name.endswith("Code") else [*has[:1], *has[-1:]]
        yield from ((place, named) for named in dict.fromkeys(names))


def _ask(asker: Organization, row: Row, place: Place, named: str) -> Answer:
    return _send(asker.account, row, *row.request(asker.known, place, quote(named, safe="") if place.part == "path" else named))


def _send(account: Account, row: Row, path: str, query: Json, body: object) -> Answer:
    words = f"?{urlencode(query)}" if query else ""
    return account.call(row.operation.method, path + words, body)


def _like(name: str) -> str:
    """A name of nothing that looks like this one."""
    return name + "000000" if name.isdigit() else name[:-1] + ("1" if name[-1] == "0" else "0")


def _without(answer: Answer, name: str) -> str:
    return json.dumps(answer.body).replace(name, "…")


async def _accounts(service: Service) -> list[tuple[Account, int]]:
    """Both modes of a new organization: the sandbox first."""
    connection = await postgres.connect_one(service.postgres_url)
    try:
        async with connection.transaction():
            live, sandbox = await tenancy.create_organization(connection, "Tenant")
            made: list[tuple[Account, int]] = []
            for tenant in (sandbox, live):
                key = await tenancy.create_api_key(connection, tenant, clock.real_clock(), "test", expires_in_days=None)
                made.append((Account(service, tenant.organization_id, key.text), tenant.id))
            return made
    finally:
        await connection.close()
