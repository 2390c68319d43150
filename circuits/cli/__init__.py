"""The command `circuits`: find circuits, evaluate them, and list what there is to work with.

Nothing heavy is imported before a sub-command runs, so that `circuits --help` answers at once. Results go to
standard output; progress, notes and errors to standard error. Exit codes: 0 done, 1 the system refused (a full
disk), 2 bad usage or bad input, 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from circuits.cli import mib
from circuits.cli.compare import compare
from circuits.cli.curve import curve
from circuits.cli.evaluate import evaluate
from circuits.cli.find import find
from circuits.cli.output import complain, is_input_error
from circuits.cli.plan import plan
from circuits.cli.several import one_of_several, speaker
from circuits.cli.sweep import sweep
from circuits.cli.tables import methods, models, tasks
from circuits.cli.trace import trace

__all__ = ["app", "main"]


class _Command(TyperGroup):
    """Turns the errors that a user can do something about into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with one_of_several():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted; no file was left half-written")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise  # the reader of a pipe went away, as `| head` does: typer ends quietly
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            complain(f"{speaker()}error: {error.strerror or error}{where}")
            raise typer.Exit(1) from None
        except Exception as error:
            if not is_input_error(error):
                raise
            complain(f"{speaker()}error: {error}")
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Command,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help keeps long options whole on a narrow screen
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from interp._version import __version__

        typer.echo(f"faithful-circuits {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Find circuits in language models, and know how faithful they are.

    \b
    Example:
      circuits find --model smollm2-135m --task ioi -o ioi.json --html ioi.html
      circuits evaluate ioi.json
    """


for _function in (find, evaluate, curve, compare, sweep, trace, plan, tasks, models, methods):
    app.command()(_function)
app.add_typer(mib.app, name="mib")


def main() -> None:
    """Run the command; the entry point of the console script and of `python -m circuits`."""
    app(prog_name="circuits")
