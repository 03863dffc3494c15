"""How long the steps of a flow take."""

from time import monotonic


class Stopwatch:
    """Seconds per step, by name; a step ends with its `lap`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def lap(self, step: str) -> None:
        now = monotonic()
        self.seconds[step] = round(now - self._last, 2)
        self._last = now
