"""The README and the docs say what the program does: every name in them is checked against the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import click
import pytest
import yaml
from kubernetes_validate.utils import latest_version

from docs import generate
from reconciler import __version__
from reconciler.cli import options as settings
from reconciler.cli import output
from reconciler.cli.main import cli
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import Action, Evidence, Finding, Mode, Outcome, Result
from reconciler.core.reasons import Reason
from reconciler.sources import api_client, cluster, parse
from reconciler.views import findings
from tests.support import postgres_versions
from tests.support.pages import PAGES, ROOT, anchors, code, fenced, names, prose, section, table

README = PAGES["README.md"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
COMMANDS = [line for text in PAGES.values() for line in code(text)]

OTHERS_OPTIONS = {
    "--rm",
    "--show-managed-fields",
    "--from",
    "--from-literal",
    "--field-selector",
    "--help",
    "--version",
}
"""What docker and kubectl take, and what click adds."""
PLANNED_COMMANDS = {"join", "retire"}
"""Named in the design for many clusters, which is not built."""

each_page = pytest.mark.parametrize("page", PAGES)


def options() -> dict[str, click.Option]:
    """Return the options of plan, run and serve that are settings, by name."""
    return {
        parameter.opts[0]: parameter
        for command in (cli.commands["plan"], cli.commands["run"], cli.commands["serve"])
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.envvar
    }


def default(option: click.Option) -> str:
    """Return an option's default as the table writes it."""
    value = option.to_info_dict()["default"]
    if option.is_flag:
        return "on" if value is True else "off"
    return "" if value in {None, ()} else f"`{value}`"


# --- what `make docs` writes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", generate.PAGES, ids=lambda page: page.name)
def test_no_page_is_stale(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.render(text) == text, f"{page.relative_to(ROOT)} is stale: run `make docs`"


def test_every_generated_part_stands_on_a_page() -> None:
    used = re.findall(r"<!-- generated: (\w+) -->", "".join(PAGES.values()))
    assert sorted(used) == sorted(generate.BLOCKS)


# --- settings and commands ---------------------------------------------------------------------------------------


def test_the_settings_table_has_every_setting_and_default() -> None:
    documented = {names(row[0])[0].partition("/")[0]: row for row in table("docs/configuration.md", "option")}
    for name, option in options().items():
        if name != "--output":
            assert documented[name][1:3] == [f"`{option.envvar}`", default(option)]
    assert options().keys() == documented.keys()


def test_the_secrets_table_has_every_variable_without_an_option() -> None:
    documented = [names(row[0])[0] for row in table("docs/configuration.md", "variable")]
    assert documented == [settings.DATABASE_URL, settings.NOTIFY_URLS, settings.HEARTBEAT_URL]


def test_every_setting_has_a_meaning() -> None:
    rows = [*table("docs/configuration.md", "option"), *table("docs/configuration.md", "variable")]
    assert all(row[3] if len(row) > 2 else row[1] for row in rows)
    assert all(row[2] for row in table("docs/configuration.md", "command"))


def test_every_option_of_every_command_is_documented() -> None:
    documented = {
        (command, names(row[0])[0].partition("/")[0])
        for row in table("docs/configuration.md", "option")
        for command in row[4].split(", ")
    } | {(names(row[0])[0], names(row[1])[0]) for row in table("docs/configuration.md", "command")}
    assert documented == {
        (name, parameter.opts[0])
        for name, command in cli.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }


def test_no_option_is_named_that_does_not_exist() -> None:
    own = {
        opt
        for command in cli.commands.values()
        for parameter in command.params
        for opt in (*parameter.opts, *parameter.secondary_opts)
    }
    benchmark = (ROOT / "tests" / "bench" / "bench.py").read_text(encoding="utf-8")
    own |= {"--help", "--version", *re.findall(r"(?<![\w-])--[a-z][a-z-]+", benchmark)}
    named = {option for line in COMMANDS for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
    assert options().keys() <= named
    assert named <= own | OTHERS_OPTIONS


def test_the_commands_table_is_the_commands() -> None:
    assert {names(row[0])[0] for row in table("README.md", "command")} == {
        f"reconciler {name}" for name in cli.commands
    }


def test_no_command_is_named_that_does_not_exist() -> None:
    named = {name for line in COMMANDS for name in re.findall(r"(?:^|\| |… )reconciler ([a-z]+)\b", line)}
    assert named - PLANNED_COMMANDS == cli.commands.keys()


def test_the_make_targets_are_the_makefiles() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, flags=re.MULTILINE))
    assert {names(row[0])[0] for row in table("CONTRIBUTING.md", "command")} == {f"make {name}" for name in targets}
    assert {target for line in COMMANDS for target in re.findall(r"^make ([a-z]+)", line)} == targets


def test_the_tests_variables_are_those_that_the_tests_read() -> None:
    documented = {names(row[0])[0] for row in table("CONTRIBUTING.md", "variable")}
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")]
    assert documented == {name for text in sources for name in re.findall(r"environ\.get\(\"(TEST_\w+)\"", text)}


def test_the_named_versions_are_those_that_the_tests_run_on() -> None:
    oldest, newest = postgres_versions.VERSIONS[0], postgres_versions.VERSIONS[-1]
    assert f"`{oldest}` to `{newest}`" in section("CONTRIBUTING.md", "Run one test")
    for page in ("README.md", "docs/install.md"):
        assert f"PostgreSQL {oldest} to {newest}" in PAGES[page]
    rows = {row[0]: row[1] for row in table("docs/install.md", "what")}
    assert rows["PostgreSQL"] == ", ".join(map(str, postgres_versions.VERSIONS))
    schemas = latest_version().rpartition(".")[0]
    assert rows["Kubernetes: `cronjob.yaml`"] == f"1.29 to {schemas}"


# --- words of the program ----------------------------------------------------------------------------------------


def test_every_reason_stands_in_a_truth_table_and_no_other() -> None:
    rows = [*table("docs/rules.md", "the custom resource is"), *table("docs/rules.md", "on a tenant that is")]
    assert {name for row in rows for name in names(row[2])} == set(Reason)


def test_the_evidence_table_is_the_evidence_best_first() -> None:
    assert [names(row[0])[0] for row in table("docs/rules.md", "evidence")] == list(Evidence)


def test_exit_codes_are_the_programs() -> None:
    codes = [int(row[0]) for row in table("docs/operations.md", "code")]
    assert codes == [0, Failure.exit_code, output.DRIFT, Refusal.exit_code, output.USAGE, output.INTERRUPTED]


def test_the_readme_names_the_exit_codes_of_a_run() -> None:
    said = " ".join(section("README.md", "Commands").split())
    for words in (
        "Exit code 0 is done,",
        f"{Failure.exit_code} failed,",
        f"{output.DRIFT} drift (with `--detailed-exitcode`),",
        f"{Refusal.exit_code} refused by a safety rule:",
    ):
        assert words in said


def test_every_log_event_that_is_named_is_logged() -> None:
    named = re.findall(r"`([a-z]+\.[a-z]+)`", section("docs/operations.md", "Alerts"))
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "reconciler").rglob("*.py"))
    assert "drift.corrected" in named
    assert [event for event in named if f'"{event}"' not in sources] == []


def test_the_signs_are_the_tables() -> None:
    explained = section("README.md", "Commands").partition("The first character of each line")[2]
    assert set(re.findall(r"`([^`])`", explained)) == {sign for sign, _ in findings.SIGNS.values()}


def test_limits_are_the_codes() -> None:
    rules = " ".join(PAGES["docs/rules.md"].split())
    for said in (
        f"longer than {parse.MAX_ID_LENGTH} characters",
        f"a Retry-After of more than {api_client.MAX_RETRY_AFTER:g} s",
        f"older than Kubernetes {'.'.join(map(str, api_client.RELIABLE_WRITE_TIMES))}",
    ):
        assert said in rules
    assert cluster.MAX_LIST_RESTARTS == 3
    assert "up to three times" in rules


# --- the JSON document -------------------------------------------------------------------------------------------


def example() -> dict[str, Any]:
    """Return the document that the page shows."""
    (text,) = (block for block in fenced(PAGES["docs/json-output.md"]) if block.startswith("{"))
    document: dict[str, Any] = json.loads(text)
    return document


def test_the_json_example_has_the_documents_keys_in_order() -> None:
    finding = Finding(reason=Reason.ORG_MOVED, tenant="acme", org="1", action=Action.REPORT)
    outcome = Outcome(run_id=UUID(int=0), mode=Mode.PLAN, result=Result.DRIFT, findings=(finding,))
    document = json.loads("".join(findings.document(outcome)))
    assert list(example()) == list(document)
    assert [list(shown) for shown in example()["findings"]] == [list(document["findings"][0])]


def test_every_outcome_and_action_is_explained() -> None:
    explained = names(PAGES["docs/json-output.md"].partition("```\n")[2])
    assert {*Result, *Action} <= set(explained)


# --- files, links, sizes -----------------------------------------------------------------------------------------


def test_every_file_that_is_named_exists() -> None:
    made_by_the_reader = {"tenants.yaml", "hotel.svg", "migrate.yaml", "egress.yaml"}
    files = {
        word
        for line in COMMANDS
        for word in re.findall(r"(?:^|(?<=[ @]))([\w./-]+\.(?:py|sql|yaml|toml|lock|md)|Dockerfile|Makefile)\b", line)
    }
    assert files - made_by_the_reader
    missing = [name for name in files if not any((ROOT / folder / name).is_file() for folder in ("", "reconciler"))]
    assert sorted(set(missing) - made_by_the_reader) == []


def test_every_folder_that_is_named_exists() -> None:
    folders = {name for line in COMMANDS for name in re.findall(r"^((?:[a-z]+/)+)$", line)}
    assert folders
    assert [name for name in sorted(folders) if not (ROOT / name).is_dir()] == []


@each_page
def test_every_link_leads_to_a_page_and_a_heading(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(PAGES[page])):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / PurePosixPath(page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(PAGES[file.relative_to(ROOT).as_posix()]), target


@each_page
def test_every_reference_has_its_address(page: str) -> None:
    text = prose(PAGES[page])
    used = set(re.findall(r"\]\[([^\]]+)\]", text))
    assert used == set(re.findall(r"^\[([^\]]+)\]: \S+$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("index", ["docs/README.md", "docs/adr/README.md"])
def test_every_page_is_listed_in_its_index(index: str) -> None:
    folder = PurePosixPath(index).parent
    listed = {(folder / link).as_posix() for link in re.findall(r"\]\(([\w.-]+\.md)\)", PAGES[index])}
    assert {page for page in PAGES if PurePosixPath(page).parent == folder} <= listed | {index}


@each_page
def test_no_page_is_too_long(page: str) -> None:
    lines = len(PAGES[page].splitlines())
    assert lines <= 200 if page == "README.md" else lines < 250


@each_page
def test_prose_keeps_to_the_line_length(page: str) -> None:
    lines = prose(PAGES[page]).splitlines()
    assert [line for line in lines if len(line) > 120 and not re.match(r" *\||\[[^\]]+\]: ", line)] == []


def test_the_modules_page_lists_every_module() -> None:
    listed = {cell for row in table("docs/architecture.md", "module") for cell in re.findall(r"\[([^\]]+)\]", row[0])}
    package = ROOT / "reconciler"
    modules = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    missing = "\n".join(f"{name}: {generate.summary(package / name)}" for name in sorted(modules - listed))
    assert listed == modules, f"run `make docs`; it adds:\n{missing}"


@pytest.mark.parametrize("file", sorted((ROOT / "reconciler").rglob("*.py")), ids=str)
def test_every_module_says_what_it_is_for(file: Any) -> None:
    assert generate.summary(file).endswith((".", "?"))


def test_every_table_of_the_reconcilers_own_is_listed() -> None:
    schema = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "sql" / "schema").iterdir())
    made = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(reconciler\.\S+)", schema))
    own = section("docs/schema.md", "Our own: schema `reconciler`")
    assert set(re.findall(r"^\| `(\S+)` \|", own, flags=re.MULTILINE)) == made


def test_every_table_of_the_ledger_is_listed() -> None:
    schema = (ROOT / "sql" / "schema" / "001_ledger.sql").read_text(encoding="utf-8")
    made = set(re.findall(r"CREATE TABLE IF NOT EXISTS public\.(\S+)", schema))
    ledger = section("docs/schema.md", "The ledger: schema `public`")
    assert set(re.findall(r"^\| `(\S+)` \|", ledger, flags=re.MULTILINE)) == made


# --- installing, and the demo ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "title"), [("README.md", "Install in a cluster"), ("docs/install.md", "Install")])
def test_the_steps_fit_the_manifest(page: str, title: str) -> None:
    """The secret, its key, the namespace and the oldest Kubernetes are those of cronjob.yaml."""
    text = (ROOT / "cronjob.yaml").read_text(encoding="utf-8")
    (job,) = (document for document in yaml.safe_load_all(text) if document["kind"] == "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (secret,) = (env["valueFrom"]["secretKeyRef"] for env in container["env"] if env["name"] == "DATABASE_URL")
    namespace = job["metadata"]["namespace"]
    steps = section(page, title)
    assert f"create namespace {namespace}\n" in steps
    assert f"-n {namespace} create secret generic {secret['name']} " in steps
    assert f"--from-literal={secret['key']}=" in steps
    assert f"--from=cronjob/{job['metadata']['name']} " in steps
    assert "Needs Kubernetes 1.29 or newer" in text
    assert "You need Kubernetes 1.29 or newer" in steps


def test_the_image_is_of_this_version() -> None:
    assert set(re.findall(r"reconciler:(\d\S+)", "".join(PAGES.values()))) == {__version__}


def test_the_excerpt_is_what_the_demo_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "reconciler", "demo"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    excerpt = fenced(README)[0]
    now = printed[printed.find(excerpt.splitlines()[0]) :]
    assert without_amounts(excerpt) in without_amounts(printed), f"the demo prints now:\n{now[:2500]}"


def without_amounts(text: str) -> str:
    """Return text in which what is owed by today, and the room that it takes, stand as one word."""
    return re.sub(r" +", " ", re.sub(r"[+-]\d+\.\d\d", "CHF", text))


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\] - (unreleased|\d{{4}}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    versions = re.findall(r"^## \[(.+?)\]", CHANGELOG, flags=re.MULTILINE)
    assert versions[0] == "Unreleased" or versions[0] == __version__


def test_the_changelog_names_log_events_that_exist() -> None:
    """The new names are logged, and the old ones no longer."""
    renamed = re.findall(r"^ +\| `([a-z]+\.[a-z]+)` \| `([a-z]+\.[a-z]+)` \|$", CHANGELOG, flags=re.MULTILINE)
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "reconciler").rglob("*.py"))
    assert renamed
    assert [new for _, new in renamed if f'"{new}"' not in sources] == []
    assert [old for old, _ in renamed if f'"{old}"' in sources] == []
