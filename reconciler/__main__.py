"""`python -m reconciler` is the command `reconciler`."""

import gc

YOUNG = 50_000
"""Objects that are made before the first of them are searched for garbage."""


def main() -> None:
    """Run the command line."""
    # most of what a short pass makes are modules, and a long one tuples: to search them takes a tenth of its time
    gc.set_threshold(YOUNG)
    from reconciler.cli import main as cli

    cli.main()


if __name__ == "__main__":
    main()
