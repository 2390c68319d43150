"""Hooked models, their computational graphs, tasks, and the kernels that run them."""

from interp import _bars as _bars  # before what warns
from interp import tasks
from interp._siblings import check_siblings
from interp._version import __version__ as __version__
from interp.errors import InputError
from interp.generated import GeneratedText
from interp.generation import sample_text
from interp.graph import ComputationalGraph
from interp.interval import Estimate, Interval
from interp.kernels.fitting import Fitting
from interp.models import load_model
from interp.node_mask import NodeMask
from interp.result import Result
from interp.run import Run
from interp.setting import Setting
from interp.tasks.task import Task

__all__ = [
    "ComputationalGraph",
    "Estimate",
    "Fitting",
    "GeneratedText",
    "InputError",
    "Interval",
    "NodeMask",
    "Result",
    "Run",
    "Setting",
    "Task",
    "load_model",
    "sample_text",
    "tasks",
]

check_siblings()
