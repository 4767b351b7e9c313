"""A mail (.eml) -> Markdown: its subject is the title. Attachments are named, not read."""

from __future__ import annotations

import email
from email import policy
from email.message import EmailMessage
from typing import Any

from m3index.documents.html import markdown_of
from m3index.documents.kinds import BadFileError, Extracted, known


def read(data: bytes) -> Extracted:
    """Raises BadFileError."""
    message: Any = email.message_from_bytes(data, _class=EmailMessage, policy=policy.default)
    if not any(message.get(name) for name in ("from", "date", "subject", "to", "received", "message-id")):
        raise BadFileError("it is not a mail: it has no headers")
    body = message.get_body(("plain", "html"))
    if body is None:
        raise BadFileError("it has no text, only attachments")
    content = body.get_content()
    date = getattr(message["date"], "datetime", None)
    metadata = known({
        "from": str(message["from"] or ""),
        "to": str(message["to"] or ""),
        "date": date.isoformat() if date else "",
        "attachments": [str(name) for part in message.iter_attachments() if (name := part.get_filename())],
    })  # fmt: skip
    text = (
        markdown_of(content)
        if body.get_content_subtype() == "html"
        else content.replace("\r\n", "\n").strip()
    )
    return Extracted(text, str(message["subject"] or "").strip(), metadata)
