"""A statement as PDF: the same figures as the HTML page, the same bytes every time. Pure."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false
# reportlab has no types; what leaves this module is bytes.

import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

import reportlab
from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

from tallybook.reports.statement import Line, Statement

_INK, _GREY, _RULE = colors.HexColor("#1c2330"), colors.HexColor("#566073"), colors.HexColor("#d7dbe2")
_WIDTHS = (78 * mm, 32 * mm, 34 * mm, 26 * mm)
_MARGIN = 20 * mm - 6  # the page's frame has a padding of 6 points
Row = list[Paragraph | str]


@cache
def _styles() -> dict[str, ParagraphStyle]:
    """Styles, with fonts that come with reportlab and are embedded, so that every letter looks the same everywhere."""
    fonts = Path(reportlab.__file__).parent / "fonts"
    for name, file in (("Body", "Vera.ttf"), ("Strong", "VeraBd.ttf")):
        pdfmetrics.registerFont(TTFont(name, str(fonts / file)))
    body = ParagraphStyle("body", fontName="Body", fontSize=8.5, leading=12, textColor=_INK)
    return {
        "body": body,
        "right": ParagraphStyle("right", body, alignment=TA_RIGHT),
        "grey": ParagraphStyle("grey", body, textColor=_GREY),
        "head": ParagraphStyle("head", body, fontName="Strong"),
        "total": ParagraphStyle("total", body, fontName="Strong", fontSize=10, alignment=TA_RIGHT),
        "title": ParagraphStyle("title", body, fontName="Strong", fontSize=16, leading=22),
    }


def pdf(page: Statement) -> bytes:
    """The document."""
    buffer = io.BytesIO()
    title = f"Invoice {page.number}"
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=title,
        invariant=1,
    )
    test = [_text("Test mode: no payment is due.", "head")] if page.is_test else []
    document.build(
        [_text(title, "title"), _text(page.status.capitalize(), "grey"), *test, Spacer(0, 5 * mm), _facts(page), *_body(page)]
    )
    return buffer.getvalue()


def _text(text: str, style: str = "body") -> Paragraph:
    return Paragraph(escape(text), _styles()[style])


def _facts(page: Statement) -> Table:
    facts = (
        ("For", f"{page.customer} ({page.customer_reference})"),
        ("Plan", page.plan),
        ("Period", page.period),
        ("Issued", page.issued),
        ("Due", page.due),
    )
    rows = [[_text(name, "grey"), _text(text)] for name, text in facts if text]
    return Table(
        rows, colWidths=(22 * mm, 148 * mm), style=[("LEFTPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 1)]
    )


def _body(page: Statement) -> list[Flowable]:
    head: Row = [_text("Description", "grey"), *(_right_grey(name) for name in ("Quantity", "Unit price", "Amount"))]
    rows: list[Row] = [head, *_section("Plan", page.base), *_section("Usage", page.usage)]
    lines = len(rows)
    rows += [_sum("Subtotal", page.subtotal), _sum("Discounts", page.discount), _sum("Total", page.total, "total")]
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, lines - 1), 0.5, _RULE),
        ("LINEABOVE", (2, -1), (-1, -1), 1.2, _INK),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
    ]
    return [Spacer(0, 6 * mm), Table(rows, colWidths=_WIDTHS, repeatRows=1, style=style)]


def _right_grey(text: str) -> Paragraph:
    return Paragraph(escape(text), ParagraphStyle("grey-right", _styles()["grey"], alignment=TA_RIGHT))


def _section(title: str, lines: Iterable[Line]) -> list[Row]:
    rows: list[Row] = [
        [
            _text(line.description),
            _text(line.quantity, "right"),
            _text(f"×\u00a0{line.unit_price}", "right"),  # noqa: RUF001 - a sign of times
            _text(line.amount, "right"),
        ]
        for line in lines
    ]
    return [[_text(title, "head"), "", "", ""], *rows] if rows else []


def _sum(name: str, amount: str, style: str = "right") -> Row:
    return ["", "", _text(name, style), _text(amount, style)]
