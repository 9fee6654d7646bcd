"""Runs the balancer's controller, if there is one; whatever goes wrong is told with file and line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from socketcluster_balancer.api import Balancer
from socketcluster_balancer.settings import BalancerSettings
from socketcluster_runtime.controllers import run_controller

DEFAULT_CONTROLLER = Path("/controller/balancer_controller.py")
"""Where a container has its balancer controller mounted, if it has one."""
MODULE_NAME = "balancer_controller"


@dataclass(frozen=True)
class Controller:
    """A controller, to be run once."""

    path: Path
    balancer: Balancer
    """What it is given."""

    async def run(self) -> None:
        """Import the file and call its ``run(balancer)``, which may be plain or async.

        Raises:
            ControllerError: the file does not exist, has no ``run``, or raised.
        """
        await run_controller(self.path, MODULE_NAME, "balancer", self.balancer)


def find(settings: BalancerSettings) -> Controller | None:
    """Return the controller that is named, or the default one if it is there."""
    path = settings.balancer_controller
    if path is None:
        if not DEFAULT_CONTROLLER.is_file():
            return None
        path = DEFAULT_CONTROLLER
    return Controller(path.absolute(), Balancer(settings.name, settings.app_name))
