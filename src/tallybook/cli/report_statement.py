"""`tallybook report statement`: an invoice as a page for people, HTML or PDF by the file's name."""

import argparse
from pathlib import Path

from tallybook.cli import keys
from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.reports import statement, statement_html, statement_pdf
from tallybook.storage.postgres import Connection


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    keys.add_tenant(parser)
    parser.add_argument("invoice", help="inv_…")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="ends in .html or .pdf")


async def page(connection: Connection, tenant: Tenant, arguments: argparse.Namespace) -> tuple[Path, bytes]:
    """The file to write and what is in it. Raises NotFound and ValidationError."""
    path: Path = arguments.output
    if path.suffix not in (".html", ".pdf"):
        raise errors.invalid("--output", f"{path.name} ends neither in .html nor in .pdf.")
    found = await statement.find(connection, tenant, arguments.invoice)
    if found is None:
        raise errors.NotFound("invoice_not_found", f"There is no invoice {arguments.invoice}.")
    return path, statement_pdf.pdf(found) if path.suffix == ".pdf" else statement_html.html(found).encode()
