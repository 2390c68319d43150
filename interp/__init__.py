"""Hooked models, their computational graphs, tasks, and the kernels that run them."""

from interp import tasks
from interp._siblings import check_siblings
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.models import load_model
from interp.tasks.task import Task

__all__ = ["ComputationalGraph", "InputError", "Task", "load_model", "tasks"]

check_siblings()
