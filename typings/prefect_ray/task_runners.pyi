from typing import Any, Self

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

class RayTaskRunner(TaskRunner[PrefectFuture[Any]]):
    def __init__(
        self, address: str | None = None, init_kwargs: dict[str, Any] | None = None
    ) -> None: ...
    def duplicate(self) -> Self: ...
    def submit(self, *args: Any, **kwargs: Any) -> PrefectFuture[Any]: ...
