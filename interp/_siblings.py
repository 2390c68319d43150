"""The toolkit's packages have everyday names; this makes sure that Python finds ours and no others."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SIBLINGS = ("attribution", "circuits", "metrics")


def check_siblings(root: Path | None = None) -> None:
    """Raise `ImportError` if a sibling package would be imported from elsewhere than beside `interp`."""
    root = root or Path(__file__).resolve().parent.parent
    for name in SIBLINGS:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve() != root / name / "__init__.py":
            places = list(spec.submodule_search_locations or []) if spec is not None else []
            found = origin or (places[0] if places else None)
            what = f"is shadowed by {found}" if found else "is missing"
            raise ImportError(
                f"the package '{name}' of faithful-circuits {what} (expected {root / name}); rename that file or "
                "folder, or run from another working directory, and reinstall faithful-circuits if it is missing"
            )
