"""Values in, text out: what people and programs read."""

import msgspec


def as_json(content: object) -> str:
    """Return one indented JSON document: times in RFC 3339, decimals as text."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
