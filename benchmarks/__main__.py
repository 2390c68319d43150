"""All benchmarks: `python -m benchmarks`, or some by name: `python -m benchmarks scoring memory`."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "scoring",
    "positions",
    "circuits",
    "memory",
    "growth",
    "decompx",
    "viewer",
    "tracing",
    "half",
    "contraction",
    "planned",
)
APART = ("streamed", "ranks", "gpu")  # write gigabytes, start processes or want a GPU; with options of their own


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    if sys.argv[1:2] and sys.argv[1] in APART:
        importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
        return
    chosen = sys.argv[1:] or NAMES
    for name in chosen:
        if name not in NAMES:
            sys.exit(f"no benchmark {name!r}; choose from: {', '.join((*NAMES, *APART))}")
        importlib.import_module(f"benchmarks.{name}").main()
        print()


if __name__ == "__main__":
    main()
