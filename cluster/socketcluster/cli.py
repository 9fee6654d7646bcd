"""The command ``socketcluster``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Any

import click

from socketcluster.errors import ClusterError
from socketcluster.launcher import resolve, run_cluster
from socketcluster.settings import OPTIONS, Option


def spell(name: str) -> str:
    """Return an option's name as the command line has it."""
    return "CONTROLLER" if name == "worker_controller" else "--" + name.replace("_", "-")


def _click_option(option: Option) -> click.Option:
    """Make the command-line option; its value stays text, which the settings classes judge."""
    text = option.help.replace("``", "")
    if option.default is not None:
        text += f"  [default: {option.default_text}]"
    return click.Option([spell(option.name), option.name], help=text, metavar="VALUE", expose_value=True)


class Commands(click.Group):
    """The commands; the one that loads servers is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(["bench", *super().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "bench":
            from socketcluster.bench.command import bench

            return bench
        return super().get_command(ctx, cmd_name)


@click.group(cls=Commands)
@click.version_option(version("socketcluster"), prog_name="socketcluster")
def main() -> None:
    """A realtime server that runs as a cluster: balancers, workers and stores."""


def run(**given: Any) -> None:
    """Run a cluster of local processes: balancers, stores, and workers with CONTROLLER, a Python file.

    Each option is also an environment variable: --session-timeout is SOCKETCLUSTER_SESSION_TIMEOUT. Prints one line
    `ready URL` when clients are served; the log goes to standard error. Ctrl-C stops everything.
    """
    try:
        run_cluster(resolve(given, spell))
    except ClusterError as error:
        click.echo(f"socketcluster: {error}", err=True)
        sys.exit(error.exit_status)


@main.group()
def store() -> None:
    """What stores keep on the disk."""


@store.command(help="Say which partitions in FOLDER, a data folder, are whole; nothing is written.")
@click.argument("folder")
def verify(folder: str) -> None:
    """Exit with the status 1 if anything is not whole."""
    _run_module("socketcluster_store.maintenance.verify", folder)


@store.command(help="Accept that files of the partitions in PATHS are missing: go on with what is there.")
@click.argument("paths", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do it; without, it is only said what is given up.")
def accept(paths: tuple[str, ...], *, yes: bool) -> None:
    """Each path is a partition's folder, as the store's log names it."""
    _run_module("socketcluster_store.maintenance.accept", *(["--yes"] if yes else []), *paths)


def _run_module(module: str, *arguments: str) -> None:
    """Have a command of a service, which this one knows nothing of, take this process over."""
    os.execv(sys.executable, (sys.executable, "-P", "-m", module, *arguments))  # noqa: S606  # no shell is wanted


main.add_command(
    click.Command(
        "run",
        callback=run,
        help=run.__doc__,
        params=[
            click.Argument(["worker_controller"], metavar="[CONTROLLER]", required=False),
            *(_click_option(option) for name, option in OPTIONS.items() if name != "worker_controller"),
        ],
    )
)
