"""Decodes YAML and JSON documents, and refuses a key that stands twice in a mapping: which one counts is not said."""

from __future__ import annotations

import codecs
import json
import math
from typing import TYPE_CHECKING, Any, cast

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 500
"""Levels of a YAML document. libyaml would crash the process on a document of some 50,000."""
MAX_NUMBER_LENGTH = 100
"""Characters. Longer integers are read as infinite: no field can hold one, and Python reads 4300 digits at most."""

_MERGE, _VALUE, _TIMESTAMP, _INTEGER, _FLOAT, _BOOLEAN = (
    f"tag:yaml.org,2002:{name}" for name in ("merge", "value", "timestamp", "int", "float", "bool")
)
_BETWEEN = " \t\r\n\ufeff\x1e"
"""What may stand between two JSON documents: white space, the mark of a file's beginning, or of a record's."""


class DoubledKey(ValueError):  # noqa: N818 - what is wrong with a document
    """A key stands twice in one mapping."""


class TooDeep(ValueError):  # noqa: N818 - what is wrong with a document
    """A document is nested too deeply."""


def decode(text: bytes) -> list[Any]:
    """Return the documents of a file: JSON, one or more after another, or else YAML.

    Raises:
        ValueError: it is neither; DoubledKey and TooDeep are.
        yaml.YAMLError: likewise.
    """
    try:
        decoded = _text(text)
        if not decoded.lstrip(_BETWEEN).startswith("{"):
            return list(_yaml(decoded))
        try:
            return list(_json(decoded))
        except json.JSONDecodeError as error:
            try:
                # YAML has mappings in braces too
                return list(_yaml(decoded))
            except (yaml.YAMLError, TooDeep):
                raise error from None
    except RecursionError:
        raise TooDeep("it is nested more deeply than Python can read") from None


def refuse_doubled_keys(text: bytes) -> None:
    """Raise DoubledKey if a key stands twice in a mapping of a JSON document: most decoders take the last one."""
    try:
        json.loads(text, object_pairs_hook=_count, parse_int=len, parse_float=len)
    except DoubledKey:
        raise _doubled_key(text.decode("utf-8", "replace")) from None


def _text(text: bytes) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if text.startswith(mark):
            return text.decode(encoding).removeprefix("\ufeff")
    return text.decode()


def _json(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(object_pairs_hook=_mapping, parse_int=_integer)
    end = 0
    while (start := _skip(text, end)) < len(text):
        try:
            document, end = decoder.raw_decode(text, start)
        except DoubledKey:
            raise _doubled_key(text[start:], before=text.count("\n", 0, start)) from None
        yield document


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start] in _BETWEEN:
        start += 1
    return start


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise DoubledKey
    return mapping


def _count(pairs: list[tuple[str, Any]]) -> None:
    # nothing is kept: a page may be large
    if len(dict(pairs)) != len(pairs):
        raise DoubledKey


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_NUMBER_LENGTH else math.inf


class _Pairs(list[tuple[str, Any]]):
    """A mapping with every key that was written."""


def _doubled_key(text: str, before: int = 0) -> DoubledKey:
    """Return what says which key stands twice, and where; `before` is how many lines precede the text."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=_integer)
    document, _ = decoder.raw_decode(text.lstrip(_BETWEEN))
    found = [("", document)]
    while found:
        path, value = found.pop()
        if isinstance(value, _Pairs):
            keys = [key for key, _ in value]
            if len(set(keys)) < len(keys):
                key = next(key for number, key in enumerate(keys) if key in keys[:number])
                line = f" (a document that begins on line {before + 1})" if before else ""
                return DoubledKey(f"the key {key!r} stands twice in {path.lstrip('.') or 'the top level'}{line}")
            found += [(f"{path}.{key}", inner) for key, inner in value]
        elif isinstance(value, list):
            found += [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
    raise AssertionError(document)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # chosen at run time
    """A YAML loader that takes what kubectl prints without quotes as text: times, and `=`."""

    def construct_document(self, node: yaml.Node) -> Any:
        self._flattened: set[yaml.Node] = set()
        return super().construct_document(node)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what `<<` names, once; before that, each key must stand once."""
        if node in self._flattened:
            return
        self._flattened.add(node)
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise DoubledKey(f"line {_line(key)}: the key {key.value!r} stands twice in a mapping")
                keys.add(key.value)
        super().flatten_mapping(node)

    def construct_number(self, node: yaml.ScalarNode) -> int | float | str:
        """Return the number, or the text of what only looks like one, such as `0b_`."""
        text = cast("str", self.construct_scalar(node))
        if len(text) > MAX_NUMBER_LENGTH:
            return math.inf
        try:
            read = self.construct_yaml_int if node.tag == _INTEGER else self.construct_yaml_float
            return cast("int | float", read(node))
        except (ValueError, OverflowError, IndexError):
            return text

    def construct_boolean(self, node: yaml.ScalarNode) -> bool | str:
        """Return the truth value, or the text that a tag only calls one."""
        text = cast("str", self.construct_scalar(node))
        return cast("bool | str", self.bool_values.get(text.lower(), text))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in {_TIMESTAMP, _VALUE}]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
for _tag in (_MERGE, _VALUE, _TIMESTAMP):
    _Loader.add_constructor(_tag, yaml.constructor.SafeConstructor.construct_yaml_str)
for _tag in (_INTEGER, _FLOAT):
    _Loader.add_constructor(_tag, _Loader.construct_number)
_Loader.add_constructor(_BOOLEAN, _Loader.construct_boolean)


def _yaml(text: str) -> Iterator[Any]:
    if _may_be_deep(text):
        _refuse_depth(text)
    yield from yaml.load_all(text, _Loader)


def _may_be_deep(text: str) -> bool:
    """Return False if no node can lie at MAX_DEPTH: each level takes an opening bracket, or two columns of a line."""
    brackets = text.count("[") + text.count("{") - text.count("[]") - text.count("{}")
    return brackets + max(map(len, text.splitlines()), default=0) > MAX_DEPTH


def _refuse_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise TooDeep(f"line {_line(event)}: more than {MAX_DEPTH} levels deep")


def _line(part: Any) -> int:
    return cast("int", part.start_mark.line) + 1
