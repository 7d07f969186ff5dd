"""The README says what the program does: every name in it is held against the code, and the other way round."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import yaml

from reconciler import __version__
from reconciler.cli import options as settings
from reconciler.cli import output
from reconciler.cli.main import cli
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import Action, Evidence, Finding, Mode, Outcome, Result
from reconciler.core.reasons import Reason
from reconciler.demo import postgres as embedded
from reconciler.sources import api_client as wire
from reconciler.sources import cluster as kubernetes
from reconciler.sources import parse as tenant
from reconciler.views import findings as report

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

FENCED = re.findall(r"^```\w*\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
INDENTED = re.findall(r"^ {4,}(\S.*)$", PROSE, flags=re.MULTILINE)
COMMANDS = INDENTED + re.findall(r"`([^`\n]+)`", PROSE)
"""What a reader may type: lines of code, and code between backticks."""

OTHERS_OPTIONS = {"--rm", "--show-managed-fields", "--from", "--from-literal", "--field-selector"}
"""What docker and kubectl are given."""


def section(title: str) -> str:
    """Return the text under a heading."""
    _, _, rest = README.partition(f"\n## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def table(title: str, first: str) -> list[list[str]]:
    """Return the cells of the table of a section whose first column has that heading."""
    _, _, rest = section(title).partition(f"\n| {first} |")
    assert rest, first
    rows = [line for line in rest.splitlines()[2:] if line.startswith("|") or not line]
    rows = rows[: rows.index("")] if "" in rows else rows
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names(cell: str) -> list[str]:
    """Return what stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def options() -> dict[str, click.Option]:
    """Return the options of plan and run that are settings, by name."""
    return {
        parameter.opts[0]: parameter
        for command in (cli.commands["plan"], cli.commands["run"], cli.commands["serve"])
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.envvar
    }


def default(option: click.Option) -> str:
    """Return an option's default as the table writes it."""
    given = option.to_info_dict()["default"]
    if option.is_flag:
        return "on" if given is True else "off"
    return "" if given in {None, ()} else f"`{given}`"


# --- settings and commands ---------------------------------------------------------------------------------------


def test_the_settings_table_is_the_settings() -> None:
    """Each with its variable and its default, in their order; none is missing and none is made up."""
    documented = [row[:3] for row in table("Settings", "option")]
    assert documented == [
        *(["", f"`{name}`", ""] for name in (settings.DATABASE_URL, settings.NOTIFY_URLS, settings.HEARTBEAT_URL)),
        *([f"`{name}`", f"`{option.envvar}`", default(option)] for name, option in options().items()),
    ]


def test_every_setting_has_a_meaning() -> None:
    assert all(len(row) == 4 and row[3] for row in table("Settings", "option"))


def test_no_option_is_named_that_does_not_exist() -> None:
    own = {
        opt
        for command in cli.commands.values()
        for parameter in command.params
        for opt in (*parameter.opts, *parameter.secondary_opts)
    }
    named = {option for code in COMMANDS for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)}
    assert options().keys() <= named
    assert named <= own | OTHERS_OPTIONS | {"--help", "--version"}


def test_the_commands_table_is_the_commands() -> None:
    assert {names(row[0])[0] for row in table("Commands", "command")} == {f"reconciler {name}" for name in cli.commands}


def test_no_command_is_named_that_does_not_exist() -> None:
    named = {command for code in COMMANDS for command in re.findall(r"(?:^|\| |… )reconciler ([a-z]+)\b", code)}
    assert named == cli.commands.keys()


def test_the_make_targets_are_the_makefiles() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, flags=re.MULTILINE))
    assert {names(row[0])[0] for row in table("Tests and development", "command")} == {f"make {t}" for t in targets}
    assert {target for code in COMMANDS for target in re.findall(r"^make ([a-z]+)", code)} == targets


def test_the_tests_variables_are_those_that_the_tests_read() -> None:
    documented = {names(row[0])[0] for row in table("Tests and development", "variable")}
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")]
    read = {name for source in sources for name in re.findall(r"environ\.get\(\"(TEST_\w+)\"", source)}
    assert documented == read


def test_the_postgresql_versions_are_those_that_can_be_embedded() -> None:
    for version in re.findall(r"`(\d+)`", section("Tests and development")):
        assert embedded.installation(int(version)).is_dir()


# --- words of the program ----------------------------------------------------------------------------------------


def test_every_reason_stands_in_a_truth_table_and_no_other_does() -> None:
    rows = table("What is compared", "the custom resource is") + table("What is compared", "on a tenant that is")
    assert {name for row in rows for name in names(row[2])} == set(Reason)


def test_the_evidence_table_is_the_evidence_best_first() -> None:
    assert [names(row[0])[0] for row in table("When did it happen?", "evidence")] == list(Evidence)


def test_exit_codes_are_the_programs() -> None:
    codes = [int(row[0]) for row in table("Exit codes", "code")]
    assert codes == [0, Failure.exit_code, output.DRIFT, Refusal.exit_code, output.USAGE, output.INTERRUPTED]


def test_the_signs_are_the_tables() -> None:
    explained = section("Commands").partition("In front of each line")[2]
    assert set(re.findall(r"`([^`])`", explained)) == {sign for sign, _ in report.SIGNS.values()}


def test_limits_are_the_codes() -> None:
    for said in (
        f"longer than {tenant.MAX_ID_LENGTH} characters",
        f"a Retry-After of more than {wire.MAX_RETRY_AFTER:g} s",
        f"older than Kubernetes {'.'.join(map(str, wire.RELIABLE_WRITE_TIMES))}",
    ):
        assert said in " ".join(README.split())
    assert kubernetes.MAX_LIST_RESTARTS == 3
    assert "up to three times" in README


# --- the JSON document -------------------------------------------------------------------------------------------


def example() -> dict[str, Any]:
    """Return the document that the README shows."""
    (text,) = (block for block in FENCED if block.startswith("{"))
    document: dict[str, Any] = json.loads(text)
    return document


def test_the_example_has_the_documents_keys_in_their_order() -> None:
    finding = Finding(reason=Reason.ORG_MOVED, tenant="acme", org="1", action=Action.REPORT)
    outcome = Outcome(run_id=UUID(int=0), mode=Mode.PLAN, result=Result.DRIFT, findings=(finding,))
    document = json.loads(report.document(outcome))
    assert list(example()) == list(document)
    assert [list(shown) for shown in example()["findings"]] == [list(document["findings"][0])]


def test_every_outcome_and_action_is_explained() -> None:
    explained = names(section("The JSON document").partition("```\n")[2])
    assert {*Result, *Action} <= set(explained)


# --- files, links, examples --------------------------------------------------------------------------------------


def test_every_file_that_is_named_exists() -> None:
    files = {
        word
        for code in COMMANDS
        for word in re.findall(r"(?:^|(?<=[ @]))([\w./-]+\.(?:py|sql|yaml|toml|lock|md)|Dockerfile|Makefile)\b", code)
    }
    made_by_the_reader = {"tenants.yaml"}
    assert files - made_by_the_reader
    assert [name for name in sorted(files - made_by_the_reader) if not (ROOT / name).is_file()] == []


def test_the_rooms_are_the_modules() -> None:
    documented = [name for row in table("Architecture", "room") for name in names(row[0])]
    modules = [file for file in (ROOT / "reconciler").rglob("*.py") if file.name != "__init__.py"]
    assert sorted(documented) == sorted(file.relative_to(ROOT).as_posix() for file in modules)


def test_every_table_of_the_reconcilers_own_is_listed() -> None:
    schema = (ROOT / "sql" / "schema" / "002_reconciler.sql").read_text(encoding="utf-8")
    made = set(re.findall(r"CREATE TABLE IF NOT EXISTS (\S+)", schema))
    assert {names(row[0])[0] for row in table("What is kept", "table")} == made


def test_every_link_leads_to_a_heading() -> None:
    headings = re.findall(r"^## (.+)$", README, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) == anchors


def test_the_steps_fit_the_manifest() -> None:
    """The secret, its key, the namespace and the oldest Kubernetes are those of cronjob.yaml."""
    text = (ROOT / "cronjob.yaml").read_text(encoding="utf-8")
    (job,) = (document for document in yaml.safe_load_all(text) if document["kind"] == "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (secret,) = (env["valueFrom"]["secretKeyRef"] for env in container["env"] if env["name"] == "DATABASE_URL")
    namespace = job["metadata"]["namespace"]
    steps = section("Install in a cluster")
    assert f"create namespace {namespace}\n" in steps
    assert f"-n {namespace} create secret generic {secret['name']} " in steps
    assert f"--from-literal={secret['key']}=" in steps
    assert f"--from=cronjob/{job['metadata']['name']} " in steps
    assert "Needs Kubernetes 1.29 or newer" in text
    assert "Needs Kubernetes 1.29 or newer" in steps


def test_the_image_is_of_this_version() -> None:
    assert set(re.findall(r"reconciler:(\d\S+)", README)) == {__version__}


def test_the_excerpt_is_what_the_demo_prints() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "reconciler", "demo"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert without_amounts(FENCED[0]) in without_amounts(told)


def without_amounts(text: str) -> str:
    """Return text in which what is owed by today, and the room that it takes, stand as one word."""
    return re.sub(r" +", " ", re.sub(r"[+-]\d+\.\d\d", "CHF", text))


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\] - (unreleased|\d{{4}}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)


def test_prose_keeps_to_the_line_length() -> None:
    assert [line for line in PROSE.splitlines() if len(line) > 120 and not line.startswith("|")] == []
