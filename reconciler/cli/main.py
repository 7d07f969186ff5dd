"""The command line: parse arguments, run a command, turn every ending into an exit code."""

from __future__ import annotations

import sys
from contextlib import suppress

import click

from reconciler import __version__, logs
from reconciler.cli.close import close
from reconciler.cli.decide import except_, record, reopen, retract
from reconciler.cli.output import INTERRUPTED, USAGE, Unprinted, complain, say, standard_streams, warn
from reconciler.cli.prune import prune
from reconciler.cli.read import explain, status, usage
from reconciler.cli.run import migrate, plan, run
from reconciler.cli.serve import serve
from reconciler.core.errors import as_failure, trail


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="DATABASE_URL names the ledger: postgresql://user:password@host:5432/dbname. Every option can also be set "
    "by the variable that its help shows; the option wins. "
    "Exit codes: 0 done, 1 failed, 2 drift (with --detailed-exitcode), 3 refused by a safety rule, 64 wrong usage.",
)
@click.version_option(__version__, prog_name="reconciler")
def cli() -> None:
    """Keep PieCed's billing ledger true.

    Lists the PiecedTenants of a cluster, compares them with the latest events recorded in PostgreSQL, appends missing
    events and records missing deletions. Existing events are never changed or removed.

    Start with `reconciler demo`, which needs neither a cluster nor a database, or with `reconciler plan`, which writes
    nothing.
    """


@cli.command()
def demo() -> None:
    """Show the whole story with a bundled sample and an embedded PostgreSQL."""
    from reconciler.demo.story import tell

    tell(say)


for _command in (migrate, plan, run, serve, explain, status, usage, except_, record, retract, reopen, close, prune):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; every ending has its exit code and leaves no traceback on the terminal."""
    with standard_streams():
        logs.configure()
        sys.exit(_exit_code())


def _exit_code() -> int | None:
    """Run the command, and return its exit code."""
    try:
        code: int | None = cli.main(standalone_mode=False)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        code = USAGE
    except (KeyboardInterrupt, click.Abort):
        warn("Interrupted. A run writes all of its rows or none: `reconciler status` shows the last ones.")
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the edge: an error that nobody foresaw has an exit code, too
        # click itself prints the help and the version
        printing = isinstance(error, OSError) and trail(error)[-1].startswith("click.")
        failure = Unprinted(error) if printing else as_failure(error)
        complain(failure)
        code = failure.exit_code
    return code
