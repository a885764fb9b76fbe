"""The command line: its commands, its errors and its exit status.

Exit status: 0 done, 1 our error in one line, 2 wrong usage, 130 interrupted. No module of this package
imports anything slow at its top, because ``headstart --help`` must answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from headstart import __version__
from headstart.errors import HeadstartError
from headstart.interfaces.cli.embed import embed
from headstart.interfaces.cli.manage import cache_app, inspect, sources_app
from headstart.interfaces.cli.predict import evaluate, predict
from headstart.interfaces.cli.rank import sources_rank
from headstart.interfaces.cli.recipes import recipes_app, run
from headstart.interfaces.cli.serve import export, serve, teach
from headstart.interfaces.cli.study import study
from headstart.interfaces.cli.terminal import harmless_output
from headstart.interfaces.cli.train import train
from headstart.interfaces.cli.transfer import transfer
from headstart.interfaces.cli.tune import tune
from headstart.system.cache import cache_root
from headstart.system.drafts import CacheWarning
from headstart.system.threads import share_cores

__all__ = ["app", "main"]

app = typer.Typer(
    name="headstart",
    help="Train an image classifier from few labels by transfer, and measure whether transfer helps.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (transfer, evaluate, predict, study, tune, train, embed, inspect, export, serve, teach, run):
    app.command()(_command)
sources_app.command("rank")(sources_rank)
app.add_typer(recipes_app, name="recipes")
app.add_typer(sources_app, name="sources")
app.add_typer(cache_app, name="cache")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"headstart {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; our own errors are one line and status 1, a traceback only with ``--debug``."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    _give_matplotlib_a_folder()
    share_cores()
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # like Ctrl-C, so that incomplete files are removed
    with harmless_output(), _cache_warnings_in_one_line():
        try:
            app()
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            if debug:
                raise
            print(f"headstart: error: {_sentence(error)}", file=sys.stderr)
            sys.exit(1)


def _give_matplotlib_a_folder() -> None:
    """Keep matplotlib's list of fonts in the cache; otherwise it is written into the home folder."""
    folder = cache_root().absolute() / "matplotlib"
    os.environ.setdefault("MPLCONFIGDIR", str(folder))
    existing = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    if not (os.path.isdir(existing) and os.access(existing, os.W_OK)):
        # it uses a temporary folder then, and logs three lines about that
        import logging

        logging.getLogger("matplotlib").setLevel(logging.ERROR)


@contextmanager
def _cache_warnings_in_one_line() -> Iterator[None]:
    """Print our warnings like remarks; those of other packages stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", CacheWarning)
        show = warnings.showwarning

        def print_line(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, CacheWarning):
                print(f"headstart: {message}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = print_line
        yield


def _sentence(error: Exception) -> str:
    """One line: our errors as they are, those of the operating system in our form, and all others."""
    text = " ".join(str(error).split())
    if isinstance(error, HeadstartError):
        return text
    if isinstance(error, OSError):
        place = "a file" if error.filename is None else repr(str(error.filename))
        return (
            f"{place} cannot be used ({error.strerror or text}), expected a place to read and write; "
            "check the path, its permissions and the free space"
        )
    return (
        f"{type(error).__name__} was not expected ({text}): this is a bug of headstart; "
        "run the command again with --debug and report what it prints"
    )


if __name__ == "__main__":
    main()
