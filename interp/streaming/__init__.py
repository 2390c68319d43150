"""Models larger than memory: weights that are read from safetensors files while the part that they belong to runs.

A streamed model is the module of transformers on torch's meta device, whose large weights are properties: whoever
reads one (the kernels, a rule, TransformerLens itself) gets it from a `Stream`, which holds the part of a layer that is
in use and reads the next one meanwhile. Nothing else in the library knows of it.
"""
