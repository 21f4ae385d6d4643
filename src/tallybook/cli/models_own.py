"""`tallybook models alias` and `tallybook models override`: an organization's own words and prices for models."""

import argparse
import sys
from pathlib import Path

import msgspec

from tallybook.ai_models import actions, decimals, price_codec
from tallybook.ai_models.decimals import UnreadablePriceError
from tallybook.ai_models.price_codec import BandUsd, PriceUsd
from tallybook.cli import dates
from tallybook.core import clock, errors
from tallybook.core.tenant import Tenant
from tallybook.pricing.overrides import Override
from tallybook.pricing.rates import Price
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection, Pool
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import store as tenancy_store

COMMANDS = frozenset({"alias", "override"})
_RATES = ("input", "output", "cache-read", "cache-write", "cache-write-1h")


def configure_alias(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `alias`."""
    _configure_tenant(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = verbs.add_parser("set", help="let a word mean a model")
    made.add_argument("alias")
    made.add_argument("model")
    verbs.add_parser("remove", help="forget a word").add_argument("alias")
    verbs.add_parser("list", help="list the words")


def configure_override(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `override`."""
    _configure_tenant(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = verbs.add_parser("set", help="set a price; one under the same pattern ends")
    made.add_argument("pattern", help="a model id, a glob (anthropic/*), or the id of an own model")
    for name in _RATES:
        made.add_argument(f"--{name}", metavar="USD", help="per million tokens")
    made.add_argument("--web-search", metavar="USD", help="per 1,000 calls")
    made.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="bands and service tiers, as JSON in the API's form of `price`; - reads standard input",
    )
    made.add_argument("--from", dest="begins", type=dates.moment, metavar="DATE", help="since when it holds; default: now")
    ended = verbs.add_parser("end", help="end a price")
    ended.add_argument("id", type=int)
    ended.add_argument("--at", type=dates.moment, metavar="DATE", help="when it ends; default: now")
    verbs.add_parser("list", help="list the prices, ended ones too")


def _configure_tenant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--organization", required=True, metavar="ORG_ID")
    parser.add_argument("--live", action="store_true", help="live mode; default: the sandbox")


async def run(arguments: argparse.Namespace, database: Pool) -> int:
    """Do it, in one transaction. Returns the exit code."""
    work = _alias if arguments.models_command == "alias" else _override
    async with postgres.transaction(database) as connection:
        tenant = await tenancy_store.find_tenant(connection, arguments.organization, livemode=arguments.live)
        if tenant is None:
            raise errors.NotFound("organization_not_found", f"there is no organization {arguments.organization}")
        await work(arguments, connection, tenant)
        if arguments.verb != "list":
            # Events that were priced without it are stale then; a worker tells the till within a second.
            await tenancy.bump_tenant_terms(connection, tenant)
    return 0


async def _alias(arguments: argparse.Namespace, connection: Connection, tenant: Tenant) -> None:
    if arguments.verb == "set":
        meant = await actions.set_alias(connection, tenant, arguments.alias, arguments.model, clock.real_clock())
        _say(f"{arguments.alias} means {meant}")
    elif arguments.verb == "remove":
        await actions.remove_alias(connection, tenant, arguments.alias, clock.real_clock())
        _say(f"{arguments.alias} means nothing of its own any more")
    else:
        for each in await actions.list_aliases(connection, tenant):
            _say(f"{each.alias} means {each.model_id}")


async def _override(arguments: argparse.Namespace, connection: Connection, tenant: Tenant) -> None:
    now = clock.real_clock()
    # A sandbox may have a clock of its own: its events happen then.
    tenant_now = await tenancy.clock_now(connection, tenant, now)
    if arguments.verb == "set":
        price = _price(arguments)
        made = await actions.set_override(
            connection, tenant, arguments.pattern, price, now, arguments.begins, tenant_now=tenant_now
        )
        _say(_shown(made))
    elif arguments.verb == "end":
        _say(_shown(await actions.end_override(connection, tenant, arguments.id, now, arguments.at, tenant_now=tenant_now)))
    else:
        for each in await actions.list_overrides(connection, tenant):
            _say(_shown(each))


def _price(arguments: argparse.Namespace) -> Price:
    text = _flat(arguments) if arguments.prices is None else _from_file(arguments)
    try:
        return price_codec.from_json(text)
    except UnreadablePriceError as error:
        raise errors.invalid("price", str(error)) from error


def _flat(arguments: argparse.Namespace) -> object:
    if arguments.input is None:
        raise errors.invalid("input", "name a price with --input, or a file of prices with --prices")
    band = BandUsd(
        input=arguments.input,
        output=arguments.output,
        cache_read=arguments.cache_read,
        cache_write=arguments.cache_write,
        cache_write_1h=arguments.cache_write_1h,
    )
    return msgspec.to_builtins(PriceUsd(standard=(band,), web_search_per_thousand=arguments.web_search))


def _from_file(arguments: argparse.Namespace) -> object:
    given = [name for name in (*_RATES, "web-search") if getattr(arguments, name.replace("-", "_")) is not None]
    if given:
        raise errors.invalid("prices", f"--prices says all there is to say; leave out {', '.join(f'--{name}' for name in given)}")
    try:
        body = sys.stdin.buffer.read() if arguments.prices == Path("-") else arguments.prices.read_bytes()
        return msgspec.json.decode(body)
    except OSError as error:
        raise errors.invalid("prices", f"{arguments.prices}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.invalid("prices", f"{arguments.prices} is no JSON: {error}") from error


def _shown(each: Override) -> str:
    start = clock.iso(clock.from_ms(each.effective_from_ms))
    end = "on" if each.effective_to_ms is None else f"to {clock.iso(clock.from_ms(each.effective_to_ms))}"
    return f"{each.id}  {each.pattern}  {decimals.input_and_output(each.price)}  from {start} {end}"


def _say(line: str) -> None:
    print(line)
