"""A statement as one HTML page, with its style inside: it is mailed, printed and kept. Pure."""

from collections.abc import Iterable
from html import escape

from tallybook.reports.statement import Line, Statement

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2330; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
.head { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 1rem; }
.head { border-bottom: 2px solid #1c2330; padding-bottom: 1rem; }
.test { color: #8a1c1c; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0; } dt { color: #566073; } dd { margin: 0; }
.wide { overflow-x: auto; } table { width: 100%; border-collapse: collapse; }
th, td { text-align: left; padding: .45rem .5rem; border-bottom: 1px solid #d7dbe2; vertical-align: top; overflow-wrap: anywhere; }
th { color: #566073; font-weight: 600; } .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tfoot td { border: 0; } tfoot tr:last-child td { border-top: 2px solid #1c2330; font-weight: 700; font-size: 1.1rem; }
@media (max-width: 34rem) {
  table, tbody, tfoot { display: block; } thead { position: absolute; clip-path: inset(50%); }
  tr { display: flex; flex-wrap: wrap; justify-content: flex-end; border-bottom: 1px solid #d7dbe2; padding: .2rem 0; }
  tfoot tr { border: 0; } tbody td, tbody th { border: 0; padding: .2rem .3rem; }
  tbody td:first-child, tbody th { flex: 1 0 100%; box-sizing: border-box; }
  tbody .number { white-space: normal; }
}
@media print { body { margin: 0; max-width: none; } }
"""


def html(page: Statement) -> str:
    """The page."""
    test = '<p class="test">Test mode: no payment is due.</p>' if page.is_test else ""
    facts = (
        ("For", f"{page.customer} ({page.customer_reference})"),
        ("Plan", page.plan),
        ("Period", page.period),
        ("Issued", page.issued),
        ("Due", page.due),
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Invoice {escape(page.number)}</title><style>{STYLE}</style></head><body>
<header class="head"><h1>Invoice {escape(page.number)}</h1><strong>{escape(page.status.capitalize())}</strong></header>{test}
<dl>{"".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts if text)}</dl>
<div class="wide"><table><caption hidden>Lines of the invoice</caption>
<thead><tr><th scope="col">Description</th><th scope="col" class="number">Quantity</th>
<th scope="col" class="number">Unit price</th><th scope="col" class="number">Amount</th></tr></thead>
{_section("Plan", page.base)}{_section("Usage", page.usage)}
<tfoot>{_sum("Subtotal", page.subtotal)}{_sum("Discounts", page.discount)}{_sum("Total", page.total)}</tfoot>
</table></div></body></html>
"""


def _section(title: str, lines: Iterable[Line]) -> str:
    rows = "".join(
        f'<tr><td>{escape(line.description)}</td><td class="number">{line.quantity}</td>'
        f'<td class="number">× {line.unit_price}</td><td class="number">{line.amount}</td></tr>'  # noqa: RUF001 - a sign of times
        for line in lines
    )
    return f'<tbody><tr><th colspan="4" scope="rowgroup">{title}</th></tr>{rows}</tbody>' if rows else ""


def _sum(name: str, amount: str) -> str:
    return f'<tr><td colspan="3" class="number">{name}</td><td class="number">{amount}</td></tr>'
