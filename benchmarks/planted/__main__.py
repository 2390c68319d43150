"""All planted models: `python -m benchmarks.planted`, or some by name: `python -m benchmarks.planted induction`."""

from __future__ import annotations

import sys

from benchmarks.planted import boolean, induction, trained
from circuits.planted import names

WRITTEN = {"induction": induction.main, "boolean": boolean.main}


def main() -> None:
    """Make the models named on the command line, or all; a few minutes on one core."""
    for name in sys.argv[1:] or names():
        if name not in names():
            sys.exit(f"no planted model {name!r}; choose from: {', '.join(names())}")
        if name in WRITTEN:
            WRITTEN[name]()
        else:
            trained.main(name)


if __name__ == "__main__":
    main()
