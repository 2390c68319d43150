"""What some versions of other packages cannot do, so that a test that needs it is expected to fail there.

Light, since `conftest.py` imports it.
"""

from __future__ import annotations

from importlib.metadata import version

# transformers 5.24 rewrote GPT-J in a way that transformer-lens 4.3 does not follow (README, Limits)
GPTJ_IS_REFUSED = tuple(int(part) for part in version("transformers").split(".")[:2]) >= (5, 24)
_GPTJ = "model=GPTJForCausalLM is not understood: on random prompts"


def reason_to_fail(error: BaseException | None) -> str | None:
    """Why a test that ends in this error, or in one that it led to, is expected to fail; None: it is not."""
    while error is not None:
        if GPTJ_IS_REFUSED and str(error).startswith(_GPTJ):
            return "GPT-J is refused with transformers 5.24: README, Limits"
        error = error.__context__
    return None
