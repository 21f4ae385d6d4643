"""What all pages have in common, and those that have no figures: signing in, and what went wrong. Pure."""

from tallybook.core import errors
from tallybook.entrypoints.http.dashboard import files, markup
from tallybook.entrypoints.http.dashboard.markup import Child, Markup, element
from tallybook.entrypoints.http.dashboard.security import PATH

_SKIP_TO = "main"


def page(title: str, header: Child, main: Child, *, with_charts: bool = False) -> bytes:
    """A page with a link past its header, a header, and its main part."""
    styles = ["uPlot.min.css", "dashboard.css"] if with_charts else ["dashboard.css"]
    scripts = ["uPlot.iife.min.js", "dashboard.js"] if with_charts else ["dashboard.js"]
    head = [
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", type="image/svg+xml", href=files.path("tallybook.svg")),
        [element("link", rel="stylesheet", href=files.path(name)) for name in styles],
        [element("script", src=files.path(name), defer=True) for name in scripts],
    ]
    body = [
        element("a", "Skip to the figures" if with_charts else "Skip to the form", href=f"#{_SKIP_TO}", class_="skip"),
        element("header", header, class_="top"),
        element("main", main, id=_SKIP_TO, tabindex="-1"),
    ]
    return markup.page(f"{title} · Tallybook", head, body)


def brand() -> Markup:
    """The name of the product."""
    return element("span", "Tallybook", class_="brand")


def hidden(name: str, value: str) -> Markup:
    """A field of a form that nobody sees."""
    return element("input", type="hidden", name=name, value=value)


def sign_in(form_token: str, problem: str | None) -> bytes:
    """The form that takes an API key, and what was wrong with the last one."""
    alert = None if problem is None else element("p", problem, class_="problem", role="alert", id="problem")
    key = element(
        "input",
        type="password",
        id="key",
        name="key",
        required=True,
        autofocus=True,
        autocomplete="current-password",
        spellcheck="false",
        maxlength=128,
        aria_describedby="key-help problem" if problem else "key-help",
        aria_invalid="true" if problem else None,
    )
    help_text = element(
        "p",
        "One that may read usage is enough. It is not kept in the browser: the cookie holds a random number that ends with the key, "
        "when you sign out, or after 12 hours. ",
        "Make a key with ",
        element("code", "tallybook keys create"),
        " or ",
        element("code", "POST /api-keys"),
        ".",
        id="key-help",
        class_="quiet",
    )
    form = element(
        "form",
        element("h1", "Sign in"),
        alert,
        element("label", "API key", for_="key"),
        key,
        help_text,
        hidden("token", form_token),
        hidden("zone", ""),
        element("button", "Sign in", type="submit"),
        method="post",
        action=f"{PATH}/sign-in",
        class_="card sign-in",
    )
    return page("Sign in", brand(), form)


def failure(problem: errors.TallybookError, request_id: str) -> bytes:
    """A page that says what went wrong."""
    main = element(
        "div",
        element("h1", "That did not work"),
        element("p", problem.message, role="alert"),
        element("p", "Request ", element("code", request_id), class_="quiet"),
        element("p", element("a", "Back to the dashboard", href=PATH)),
        class_="card sign-in",
    )
    return page("Something went wrong", brand(), main)
