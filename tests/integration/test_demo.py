"""The demo tells its story to the end, on any day, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reconciler.demo import story as demo
from reconciler.sources.file import FileSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.model import Observed

COMMAND = [sys.executable, "-m", "reconciler", "demo"]

CORRECTIONS = """\
+  baeckerei-wyss  suspension_unrecorded      -                     running   suspended           2026-05-20 16:45:23  suspended_at, between 03-04 15:40 and 05-20 16:45  CHF
+  hotel-seeblick  skill_enable_unrecorded    bexio-accounting      disabled  enabled             2026-05-12 07:31:44  field_manager, between 03-19 10:31 and 05-12 07:31  CHF
+  kanzlei-frei    skill_disable_unrecorded   nextcloud-files       enabled   disabled            2026-05-18 14:02:10  field_manager, between 03-23 14:57 and 05-18 14:02  CHF
~  velo-stadler    org_resolved               -                     unknown   287100000000000011  -                    -  CHF
-  weingut-pfyfer  deletion_unrecorded        -                     open      deleted             2026-05-27 17:58:36  deletion  CHF
+  weingut-pfyfer  skill_open_after_deletion  searxng-local-search  enabled   disabled            2026-05-27 17:58:36  deletion  CHF
"""  # noqa: E501 - as printed


@pytest.fixture(scope="module")
def story() -> str:
    """What a demo prints that is left alone."""
    done = subprocess.run(COMMAND, check=False, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def timeless(text: str) -> str:
    """Return what is story on any day: without what is owed by today, the time of day and the ids of runs."""
    text = re.sub(r"[+-]\d+\.\d\d(?: CHF)?(?: \([+-]\S+\))?", "CHF", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"(to now,|found    ) \S+ [\d:]{8}", r"\1 NOW", text)
    return re.sub(r" +", " ", text)


def chapter(story: str, number: int) -> str:
    """Return one chapter of the story."""
    return re.split(r"^\d\. .+\n-+\n", story, flags=re.MULTILINE)[number]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder short enough for a socket's path, and open to the user that root runs the server as."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


def processes(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_the_first_run_is_the_backfill(story: str) -> None:
    backfill = chapter(story, 1)
    assert "Wrote 12 tenants, 16 skill events, 1 suspension event, impact CHF CHF; 1 to look at." in timeless(backfill)
    assert "12 tenants observed, 0 recorded as open." in backfill
    assert re.search(r"\+  hotel-seeblick +tenant_unrecorded .* 2026-03-19 10:31:26  creation +[+]\d", backfill)
    assert re.search(r"\+  holzbau-kaelin +suspension_unrecorded .* 2026-04-20 16:45:23  suspended_at, ", backfill)
    assert re.search(r"!  velo-stadler +org_unlabelled ", backfill)


def test_every_lost_row_is_corrected_at_its_time_with_its_evidence(story: str) -> None:
    lost = chapter(story, 2)
    assert timeless(CORRECTIONS) in timeless(lost)
    rows = "3 skill events, 1 suspension event, 1 deletion, 1 organisation"
    assert f"Plan: would write {rows}, impact CHF -" in lost
    assert f"Wrote {rows}, impact CHF -" in lost


def test_the_plan_comes_before_the_run_and_writes_nothing(story: str) -> None:
    """What it would write is what the run then does write."""
    plan, run = chapter(story, 2).split("as a run:\n")
    assert "Plan: " in plan
    assert "Wrote " not in plan
    assert "Wrote " in run


def test_one_tenants_timeline_says_why_its_rows_are_there(story: str) -> None:
    assert re.search(r"^2026-05-18 14:02:10  nextcloud-files +disabled  ◆ 4$", story, flags=re.MULTILINE)
    assert "The setting was last written then (field_manager)" in story


def test_the_third_run_finds_nothing(story: str) -> None:
    nothing = chapter(story, 3)
    assert "Nothing to write: the ledger is true. 12 tenants observed, 11 recorded as open.\n" in nothing
    assert not re.search(r"^[-+~!?] ", nothing, flags=re.MULTILINE)


def test_a_closed_month_owes_a_late_row_once(story: str) -> None:
    closed = chapter(story, 4)
    assert "Closed 2026-05, number 1, for everybody, by finance: the invoices of May" in closed
    assert "Accepted, though not proven (known_since): " in closed
    assert re.search(r"!  hotel-seeblick +closed_month_changed +2026-05 .* \(\+2\.40\): nextcloud-files ", closed)
    assert "CHF 2.40 before VAT in 1 line." in closed.split("number 2")[1]


def test_the_last_lines_say_what_to_try_next(story: str) -> None:
    assert "| reconciler plan --tenants -\n" in story[-100:]


def test_the_story_is_the_same_every_time(story: str) -> None:
    done = subprocess.run(COMMAND, check=True, capture_output=True, text=True, timeout=300)
    assert timeless(done.stdout) == timeless(story)


def test_its_prose_fits_a_narrow_terminal(story: str) -> None:
    prose = [line for line in story.splitlines() if not re.match(r"[-+~!?] |   TENANT|ORGANISATION|[0-9]{18} ", line)]
    wide = [line for line in prose if len(line) > 100 and "observed" not in line and "organisation" not in line]
    assert wide == []
    assert not re.search(r"\x1b|[ \t]$", story, flags=re.MULTILINE), "no colours and no blanks at the ends in a file"


def test_the_sample_is_a_list_that_kubectl_could_have_printed() -> None:
    """Every tenant can be read, and none names a time that is still to come."""
    observed: list[Observed] = []

    class Spool:
        def add(self, tenant: Observed, /) -> None:
            observed.append(tenant)

        def restart(self) -> None:
            raise AssertionError

    with as_file(files("reconciler") / "demo" / "tenants.yaml") as path:
        FileSource(path=str(path), group=demo.GROUP, org_label=demo.ORG_LABEL).observe(Spool())
    assert [tenant.problem for tenant in observed] == [None] * 12
    assert {tenant.created_at.year for tenant in observed if tenant.created_at} == {2026}
    assert max(tenant.last_modified_at.month for tenant in observed if tenant.last_modified_at) == 4


def test_nothing_is_left_behind(temporary: Path) -> None:
    subprocess.run(COMMAND, check=True, capture_output=True, timeout=300, env=os.environ | {"TMPDIR": str(temporary)})
    assert list(temporary.iterdir()) == []
    assert processes(temporary) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["PieCed sells", "1. The first run", "2. The portal", "3. The next"])
def test_nothing_is_left_behind_by_an_interrupted_demo(
    temporary: Path, moment: str, number: signal.Signals, code: int
) -> None:
    """The signal goes to the whole process group, as Ctrl-C on a terminal does."""
    # tests that run in a shell's background ignore SIGINT, and so would the demo
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
        start_new_session=True,
    ) as program:
        assert program.stdout
        next(line for line in program.stdout if line.startswith(moment))
        time.sleep(0.05)
        os.killpg(program.pid, number)
        out, err = program.communicate(timeout=300)
    # once the story has ended there is nothing left to interrupt, and the interpreter may be gone
    assert "That was the whole job." in out or program.returncode == code
    assert "Traceback" not in err
    assert list(temporary.iterdir()) == []
    assert processes(temporary) == []
