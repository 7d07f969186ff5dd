"""How text fits a terminal: escaped, counted, in tables."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from rich.console import Console, RenderableType
    from rich.text import Text

WIDTH_OF_A_FILE = 10_000
"""Columns of a table that is not printed on a terminal: wide enough that nothing is folded."""

DRAWN = dict(zip("━·╺╸╍◆▸╰┄╯┬─…▁▂▃▄▅▆▇█", "=.[]x*>(-)+-~12345678", strict=True)) | {"→": "->", "≥": ">="}
"""What stands for the characters of pictures and tables where an encoding lacks them."""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 tenant`, `2 tenants`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """Escape everything that could steer a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def encodable(text: str, encoding: str) -> str:
    """Return text that an encoding holds: drawings become ASCII of the same width, other characters are escaped."""
    if _holds(encoding, text):
        return text
    replaced = {char: char if _holds(encoding, char) else DRAWN.get(char) or _escaped(char) for char in set(text)}
    return "".join(replaced[char] for char in text)


def _holds(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(char: str) -> str:
    return char.encode("ascii", "backslashreplace").decode()


def printed(draw: Callable[[Console], None]) -> str:
    """Return what `draw` prints as it fits standard output: its width and colours on a terminal, neither in a file."""
    console = _console()
    with console.capture() as captured:
        draw(console)
    return _without_trailing_blanks(captured.get())


def printed_in_parts(drawn: Iterable[RenderableType]) -> Iterator[str]:
    """Yield each of these as `printed` does, so that not all of them are in memory at once; text is left as it is."""
    console = _console()
    for each in drawn:
        if isinstance(each, str):
            yield each
        else:
            with console.capture() as captured:
                console.print(each)
            yield _without_trailing_blanks(captured.get())


def _console() -> Console:
    from rich.console import Console

    # rich writes to its file even while it captures, and that may be a disk that is full
    is_terminal = Console().is_terminal
    width = None if is_terminal else WIDTH_OF_A_FILE
    return Console(file=StringIO(), force_terminal=is_terminal, highlight=False, width=width)


def _without_trailing_blanks(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


class Row(NamedTuple):
    """A row of a table, and the lines that replace it on a terminal too narrow for its columns."""

    cells: Sequence[Text | str]
    stacked: Text | None = None
    style: str = ""


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    right: Container[str] = (),
    header_style: str = "bold",
) -> None:
    """Print a table in columns where they fit or its rows cannot be stacked, else as stacked lines."""
    from rich.table import Table as Grid

    rows = tuple(rows)
    grid = Grid(box=None, pad_edge=False, header_style=header_style)
    for column in columns:
        grid.add_column(column, overflow="fold", justify="right" if column in right else "left")
    for row in rows:
        grid.add_row(*row.cells, style=row.style)
    stacked = [row.stacked for row in rows if row.stacked is not None]
    wide = console.options.update(width=WIDTH_OF_A_FILE)
    if not stacked or console.width >= WIDTH_OF_A_FILE or console.measure(grid, options=wide).maximum <= console.width:
        console.print(grid)
    else:
        for lines in stacked:
            console.print(lines, soft_wrap=True)
