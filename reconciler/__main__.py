"""Entry point of the command `reconciler` and of `python -m reconciler`."""

import gc
import sys

GC_THRESHOLD = 50_000
"""Objects that are allocated between two collections of garbage; Python's default is a few thousand at most."""


def main() -> None:
    """Run the command line."""
    # a short run allocates mostly modules, a long one tuples: scanning them for garbage would take a tenth of its time
    gc.set_threshold(GC_THRESHOLD)
    try:
        from reconciler.cli import main as cli
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        sys.exit(f"reconciler is not installed completely: it lacks {error.name}. Install it again.")
    cli.main()


if __name__ == "__main__":
    main()
