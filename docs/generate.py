"""Write the parts of the documentation that repeat the code: `make docs`.

A page holds them between `<!-- generated: NAME -->` and `<!-- end -->`, where NAME is a function of `BLOCKS`. The rest
of a page is written by hand.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.alerts import alertmanager
from reconciler.cli.main import cli
from reconciler.core.reasons import CORRECTING, REPORTING, RUNBOOK, Reason
from tests.unit.test_architecture import EDGE, ROOMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from reconciler.core.reasons import Advice

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reconciler"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WIDTH = 120
MAX_CHOICES_SHOWN = 5


def settings() -> str:
    """Return the table of every option that has a variable."""
    commands: dict[tuple[str, ...], list[str]] = {}
    for name, command in cli.commands.items():
        for option in _options(command):
            if option.envvar:
                row = f"`{_names(option)}`", f"`{option.envvar}`", _default(option), _meaning(option)
                commands.setdefault(row, []).append(name)
    return table(
        ("option", "variable", "default", "meaning", "commands"),
        ([*row, ", ".join(names)] for row, names in commands.items()),
    )


def options() -> str:
    """Return the table of the options that have no variable."""
    return table(
        ("command", "option", "meaning"),
        (
            (f"`{command}`", f"`{_names(option)}`", _meaning(option) + " Required." * option.required)
            for command in cli.commands
            for option in _options(cli.commands[command])
            if not option.envvar
        ),
    )


def reasons() -> str:
    """Return the table of every reason and what a run does about it."""
    return table(
        ("reason", "in one sentence", "action", "table"),
        (
            (f"[`{reason}`]({_page(reason)}#{reason})", reason.summary, _action(reason), f"`{reason.table or '-'}`")
            for reason in Reason
        ),
    )


def runbook() -> str:
    """Return a section for each way to be stopped and for each reason that is left to a person."""
    stopped = [_section(result, f"`{alert}`", RUNBOOK[result]) for result, alert in alertmanager.STOPPED.items()]
    return "\n\n".join((*stopped, *_sections(REPORTING, alertmanager.REPORTED)))


def corrections() -> str:
    """Return a section for each reason that a run corrects."""
    return "\n\n".join(_sections(CORRECTING, alertmanager.CORRECTED))


def rooms() -> str:
    """Return the table of the rooms: what each is for, and what it may import."""
    rows = [(f"`{room}`", _of_room(room), ", ".join(sorted(allowed - {"__init__"}))) for room, allowed in ROOMS.items()]
    edge = [(f"`{room}`", _of_room(room), "everything") for room in sorted(EDGE)]
    return table(("room", "what it is for", "may import"), [*rows[1:], *edge])


def modules() -> str:
    """Return the table of every module with the first line of its docstring."""
    files = sorted(PACKAGE.rglob("*.py"), key=lambda file: (len(file.parts) > len(PACKAGE.parts) + 1, file))
    return table(
        ("module", "what it is for"),
        ((f"[{name(file)}](../reconciler/{name(file)})", summary(file)) for file in files if summary(file)),
    )


BLOCKS: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (settings, options, reasons, runbook, corrections, rooms, modules)
}


def render(text: str) -> str:
    """Return a page with each of its generated parts made again."""
    return re.sub(
        r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = tuple(heads)
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(file: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def name(file: Path) -> str:
    """Return a module's path inside the package."""
    return file.relative_to(PACKAGE).as_posix()


def _of_room(room: str) -> str:
    path = PACKAGE / room.replace(".", "/")
    return summary(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))


def _page(reason: Reason) -> str:
    return "corrections.md" if reason.corrects else "runbook.md"


def _sections(found: Iterable[Reason], alert: str) -> list[str]:
    return [_section(reason, f"`{alert}`. {reason.summary}", reason.advice) for reason in found]


def _section(what: str, alert: str, advice: Advice) -> str:
    return f"## {what}\n\n{_wrapped(alert)}\n\n{_wrapped(advice.meaning)}\n\n{_wrapped(f'**Remedy:** {advice.remedy}')}"


def _wrapped(text: str) -> str:
    """Return text in lines that never break inside a code span."""
    whole = re.sub(r"`[^`]+`", lambda span: span[0].replace(" ", "\0"), text)
    return textwrap.fill(whole, WIDTH, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def _action(reason: Reason) -> str:
    return f"{reason.action} `{reason.event_kind}`" if reason.event_kind else reason.action


def _options(command: click.Command) -> Iterator[click.Option]:
    return (parameter for parameter in command.params if isinstance(parameter, click.Option))


def _names(option: click.Option) -> str:
    return "/".join((*option.opts, *option.secondary_opts))


def _default(option: click.Option) -> str:
    value = option.to_info_dict()["default"]
    if option.is_flag:
        return "on" if value is True else "off"
    return "" if value in {None, ()} else f"`{value}`"


def _meaning(option: click.Option) -> str:
    """Return an option's help, with the values that it takes."""
    kind, values = option.type, ""
    if isinstance(kind, click.Choice) and len(kind.choices) <= MAX_CHOICES_SHOWN:
        values = "One of " + ", ".join(f"`{choice}`" for choice in kind.choices) + "."
    elif isinstance(kind, click.IntRange | click.FloatRange) and kind.max is not None:
        values = f"From {kind.min} to {kind.max}."
    return f"{option.help} {values}".strip()


def main() -> None:
    """Write every page that is stale, and name it."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        made = render(text)
        if made != text:
            page.write_text(made, encoding="utf-8")
            click.echo(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
