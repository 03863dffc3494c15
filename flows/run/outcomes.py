"""Named states in which a flow run ends, beside Prefect's own."""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from nudgescribe.errors import NudgeflowError


def completed(name: str, said: str, result: object = None) -> State[Any]:
    """A good end; what is `said` stands beside it in the UI."""
    get_run_logger().info("%s: %s", name, said)
    return Completed(name=name, message=said, data=result)


def failed(name: str, error: NudgeflowError) -> State[Any]:
    """A bad end; whoever called the flow gets the error."""
    get_run_logger().error("%s: %s", name, error)
    return Failed(name=name, message=str(error), data=error)
