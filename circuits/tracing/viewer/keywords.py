"""What a page is told of the nodes of a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypedDict

from metrics.agreement_table import AgreementTable


class PageKeywords(TypedDict, total=False):
    """Prompts whose most activating tokens are shown, labels of units, and what silencing them does."""

    prompts: Any
    labels: Mapping[Any, str] | str | os.PathLike[str] | None
    measured: AgreementTable | int | None
