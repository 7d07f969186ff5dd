"""The command line: parse arguments, run a command, turn every ending into an exit code."""

from __future__ import annotations

import os
import sys

import click
import structlog

from reconciler import __version__, logs
from reconciler.cli.decide import except_, reopen
from reconciler.cli.output import FAILED, INTERRUPTED, USAGE, complain
from reconciler.cli.read import explain, status, usage
from reconciler.cli.run import migrate, plan, run
from reconciler.cli.serve import serve
from reconciler.core.errors import Failure

_log = structlog.get_logger("reconciler")


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

    tell()


for _command in (migrate, plan, run, serve, explain, status, usage, except_, reopen):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; every ending has its exit code and leaves no traceback on the terminal."""
    logs.configure()
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = USAGE
    except Failure as failure:
        complain(failure)
        code = failure.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted; an unfinished run has written nothing.", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception:  # noqa: BLE001 - the edge: an unforeseen error is logged whole, and has an exit code too
        _log.exception("command.crashed", meaning="a fault in the reconciler; an unfinished run has written nothing")
        code = FAILED
    sys.exit(code)
