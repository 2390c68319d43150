"""Weights streamed from disk: `eap` and a circuit on a checkpoint in the shape of Llama 3, larger than what is used.

`python -m benchmarks streamed` writes a random checkpoint once, in a cache folder; `--remove` deletes it at the end,
`--layers N` takes fewer layers, `--shape 3b` the smaller shape (which is taken by itself where the disk has no room).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import metrics
from attribution import attribute
from benchmarks.common import contraction_timed, random_task
from benchmarks.memory import status
from interp import load_model
from interp.gguf_cache import cache_folder
from interp.streaming import saved

SHAPES: dict[str, dict[str, int]] = {
    "8b": {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "intermediate_size": 14336},
    "3b": {"num_hidden_layers": 28, "hidden_size": 3072, "num_attention_heads": 24, "intermediate_size": 8192},
}
PROMPTS, TOKENS, EDGES = 4, 16, 2000


def config_of(shape: str, layers: int | None) -> Any:
    """The configuration of Llama 3.1 8B or Llama 3.2 3B."""
    from transformers import LlamaConfig

    sizes = SHAPES[shape] | ({} if layers is None else {"num_hidden_layers": layers})
    return LlamaConfig(
        **sizes, num_key_value_heads=8, head_dim=128, vocab_size=128256, max_position_embeddings=8192,
        rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
    )  # fmt: skip


def write(folder: Path, config: Any) -> None:
    """A random checkpoint in bfloat16, one file a layer, whole or not at all."""
    building = folder.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    config.save_pretrained(building)
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(1 << 26, generator=generator).to(torch.bfloat16)  # drawing eight billion numbers takes long

    def drawn(*shape: int) -> torch.Tensor:
        start, count = int(torch.randint(len(pool), (), generator=generator)), torch.Size(shape).numel()
        values = pool.roll(-start).repeat(-(-count // len(pool)))[:count]
        # a scale at which the residual stream neither dies nor explodes over the layers
        return (values * shape[-1] ** -0.5).view(shape)

    d, kv, mlp = config.hidden_size, config.num_key_value_heads * config.head_dim, config.intermediate_size
    q, words, ones = config.num_attention_heads * config.head_dim, config.vocab_size, torch.ones(config.hidden_size)
    names: dict[str, str] = {}

    def save(file: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, building / file, metadata={"format": "pt"})
        names.update(dict.fromkeys(tensors, file))

    save("model-first.safetensors", {"model.embed_tokens.weight": drawn(words, d)})
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}."
        save(f"model-{layer:02d}.safetensors", {
            f"{at}self_attn.q_proj.weight": drawn(q, d), f"{at}self_attn.k_proj.weight": drawn(kv, d),
            f"{at}self_attn.v_proj.weight": drawn(kv, d), f"{at}self_attn.o_proj.weight": drawn(d, q),
            f"{at}mlp.gate_proj.weight": drawn(mlp, d), f"{at}mlp.up_proj.weight": drawn(mlp, d),
            f"{at}mlp.down_proj.weight": drawn(d, mlp), f"{at}input_layernorm.weight": ones.bfloat16(),
            f"{at}post_attention_layernorm.weight": ones.bfloat16(),
        })  # fmt: skip
    save("model-last.safetensors", {"lm_head.weight": drawn(words, d), "model.norm.weight": ones.bfloat16()})
    index = {"metadata": {}, "weight_map": names}
    (building / "model.safetensors.index.json").write_text(json.dumps(index))
    building.rename(folder)


def n_parameters(config: Any) -> tuple[int, int]:
    """Of all layers together, and of the unembedding (as many as the embedding has)."""
    d, q, kv = config.hidden_size, config.num_attention_heads * 128, config.num_key_value_heads * 128
    layer = 2 * d * q + 2 * d * kv + 3 * d * config.intermediate_size
    return layer * config.num_hidden_layers, d * config.vocab_size


def prepared(shape: str, layers: int | None) -> tuple[Path, str]:
    """The folder of the checkpoint, written where it is not there yet, and its shape."""
    root = cache_folder() / "benchmark-streamed"
    while True:
        config = config_of(shape, layers)
        folder = root / f"{shape}-{config.num_hidden_layers}"
        if folder.is_dir():
            return folder, shape
        needed = 2 * (n_parameters(config)[0] + 2 * n_parameters(config)[1]) + (1 << 30)
        root.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(root).free >= needed or shape == "3b":
            print(f"writing {needed / 1e9:.0f} GB to {folder}, once", flush=True)
            write(folder, config)
            return folder, shape
        print(f"the disk has no room for the {shape} shape ({needed / 1e9:.0f} GB): taking 3b")
        shape = "3b"


def disk_speed(folder: Path) -> tuple[float, float]:
    """Bytes a second of plain reading, of files that the system's cache does not hold, and of such that it does."""
    path, chunk, size = folder / "model-last.safetensors", bytearray(16 << 20), 0
    speeds = []
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for _ in range(2):
            file.seek(0)
            started, size = time.perf_counter(), 0
            while n := file.readinto(chunk):
                size += n
            speeds.append(size / (time.perf_counter() - started))
    return speeds[0], speeds[1]


def product_speed(config: Any) -> float:
    """Floating-point operations a second of the model's largest matrix product, in float32."""
    x = torch.randn(PROMPTS * TOKENS, config.hidden_size)
    weight = torch.randn(config.intermediate_size, config.hidden_size)
    torch.nn.functional.linear(x, weight)
    started = time.perf_counter()
    for _ in range(10):
        torch.nn.functional.linear(x, weight)
    return 20 * x.shape[0] * weight.numel() / (time.perf_counter() - started)


def drop_cached(folder: Path) -> None:
    """Let the system forget the files' contents."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, what: str) -> dict[str, float]:
    """In a process of its own: load, and run `eap`, or one circuit; times, bytes and the peak of memory."""
    drop_cached(folder)
    started = time.perf_counter()
    model = load_model(folder, weights="streamed")
    loaded = time.perf_counter() - started
    stream = max(saved.streams, key=lambda one: one.n_parts)
    task = random_task(PROMPTS, TOKENS, 128256)
    before, reading, waiting, started = stream.n_bytes, stream.reading, stream.waiting, time.perf_counter()
    with contraction_timed() as contracting:
        if what == "eap":
            attribute(model, task, "eap", quiet=True)
        else:
            metrics.evaluate(model, task, random_mask(model))
    return {
        "loading": loaded,
        "seconds": time.perf_counter() - started,
        "reading": stream.reading - reading,
        "waiting": stream.waiting - waiting,
        "contracting": sum(contracting),
        "bytes": stream.n_bytes - before,
        "peak": status("VmHWM"),
    }


def random_mask(model: Any) -> torch.Tensor:
    """A circuit of random edges."""
    from interp import ComputationalGraph

    graph = ComputationalGraph.of(model)
    scores = torch.rand(graph.shape, generator=torch.Generator().manual_seed(0)) * graph.edge_mask
    chosen: torch.Tensor = scores >= scores.flatten().topk(EDGES).values[-1]
    return chosen


def floors(config: Any, what: str, disk: float, product: float) -> tuple[float, float, float]:
    """Seconds that reading, computing and contracting cannot go below: of eap two forwards and a backward."""
    layers, words = n_parameters(config)
    rows, passes = PROMPTS * TOKENS, 3 if what == "eap" else 2
    unembeddings = 2 if what == "eap" else 1
    attention = layers - config.num_hidden_layers * 3 * config.hidden_size * config.intermediate_size
    # each pass reads the layers, the contraction their attention once more
    reading = 2 * (passes * layers + unembeddings * words + (attention if what == "eap" else 0)) / disk
    computing = 2 * (passes * rows * layers + unembeddings * PROMPTS * words) / product
    heads, n = config.num_attention_heads, config.num_hidden_layers
    pairs = sum((layer * (heads + 1) + 1) * 3 * heads for layer in range(n)) + (n * (heads + 1) + 1) * (n + 1)
    contracting = 2 * (pairs * config.hidden_size + attention) * rows / product
    return reading, computing, contracting if what == "eap" else 0.0


def report(folder: Path, what: str, config: Any) -> None:
    """Measure in a fresh process, and print beside the floor."""
    cold, warm = disk_speed(folder)
    product = product_speed(config)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.streamed", "--measure", str(folder), what],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    reading, computing, contracting = floors(config, what, cold, product)
    floor = max(reading, computing + contracting)
    computed = found["seconds"] - found["waiting"] - found["contracting"]
    print(f"{what}: {found['seconds']:.1f} s, floor {floor:.1f} s, ratio {found['seconds'] / floor:.2f} (aim 2)")
    gigabytes = found["bytes"] / 1e9
    print(f"  peak memory {found['peak']:.2f} GB (aim 6), read {gigabytes:.1f} GB, load {found['loading']:.1f} s")
    print(
        f"  of it computing {computed:.1f} s, contracting {found['contracting']:.1f} s, waiting for files "
        f"{found['waiting']:.1f} s; files were read for {found['reading']:.1f} s, most of it beside"
    )
    print(
        f"  floor: reading {reading:.1f} s (file cache dropped: {cold / 1e9:.2f} GB/s; {warm / 1e9:.2f} cached), "
        f"computing {computing:.1f} s and contracting {contracting:.1f} s ({product / 1e9:.0f} GFLOP/s)",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks streamed")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="8b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--remove", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), options.measure[1])))
        return
    folder, shape = prepared(options.shape, options.layers)
    config = config_of(shape, options.layers)
    print(
        f"Streamed weights: Llama {shape.upper()} shape, {config.num_hidden_layers} layers, bfloat16 on disk, float32"
    )
    print(f"{PROMPTS} prompts of {TOKENS} tokens, load of the machine {os.getloadavg()[0]:.1f}")
    try:
        for what in ("eap", "circuit"):
            report(folder, what, config)
    finally:
        if options.remove:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
