"""The web page: one file, which contacts only this server."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Page:
    html: str
    policy: str


@cache
def page() -> Page:
    """The file, and a Content-Security-Policy that allows only the script and the style in it."""
    html = (Path(__file__).parent / "page.html").read_text("utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(html, 'script')}",
            f"style-src {_hash(html, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return Page(html, policy)


def _hash(html: str, tag: str) -> str:
    element = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    assert element is not None, f"page.html has no <{tag}>"
    digest = hashlib.sha256(element[1].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
