"""A document as one HTML file that needs nothing else: no server, no network, no library.

Everything in the document is text from runs, which anybody may have written. It travels as JSON that cannot end its
element, the script only ever makes text nodes of it, and the page's own policy forbids every script but that one and
all that would be fetched.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from lamdagent.report.document import Document


def page(document: Document, links: str = "") -> str:
    """The page of one search.

    Args:
        document: From `data.document`.
        links: What comes before `#/experiments/...` in a link to MLflow's UI, such as `https://host/` or `../`; empty:
            run ids stand where links would.
    """
    content = {"__TITLE__": _text(document["search"]["name"]), "__DATA__": _embed(document | {"links": links})}
    return _fill("page.html", content)


def index(searches: Sequence[Mapping[str, str]]) -> str:
    """The list of searches: `name`, `href`, `experiment`, `status`, `score` and `when` of each, any text."""
    rows = [
        f'<tr><td><a href="{_text(one["href"])}"><bdi>{_text(one["name"])}</bdi></a></td>'
        + "".join(f"<td><bdi>{_text(one[cell])}</bdi></td>" for cell in ("experiment", "status", "score", "when"))
        + "</tr>"
        for one in searches
    ]
    return _fill("index.html", {"__ROWS__": "\n".join(rows) or '<tr><td colspan="5">No search yet.</td></tr>'})


def policy() -> str:
    """The content security policy of every page: its one style, its one script, and nothing from anywhere."""
    style, script = _hash(_asset("page.css")), _hash(_asset("page.js"))
    return f"default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"


def _fill(template: str, content: Mapping[str, str]) -> str:
    """The template with its style, script, policy and content; what is filled in is not looked at again."""
    parts = {"__STYLE__": _asset("page.css"), "__SCRIPT__": _asset("page.js"), "__POLICY__": policy(), **content}
    return re.sub("|".join(parts), lambda match: parts[match[0]], _asset(template))


def _text(text: str) -> str:
    """HTML that shows `text`, in ASCII: halves of letters, which no file can hold, included."""
    return escape(text).encode("ascii", "xmlcharrefreplace").decode()


def _embed(document: Document) -> str:
    """JSON in ASCII without the letters that HTML reads: no text can end the element or start a comment."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _asset(name: str) -> str:
    return files("lamdagent.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
