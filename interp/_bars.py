"""Progress bars of other libraries, in notebooks without ipywidgets: as text, and without a warning in a red box."""

import importlib
import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "IProgress not found")
    importlib.import_module("tqdm.auto")  # warns once in a process; transformers imports it too
