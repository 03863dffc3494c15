"""Bar charts as PNG images, for artifacts and the lake."""

# pyright: reportUnknownMemberType=false
# matplotlib leaves its keyword arguments open.

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING

from blocks.extras import how_to_install, is_installed
from tasks.ui.markdown import image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

BLUE = "#2563eb"
NOT_INSTALLED = f"There is no chart here: the extra charts draws it, `{how_to_install('charts')}`."

Groups = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Chart:
    """A chart as a PNG image, or a sentence that says why there is none."""

    png: bytes | None
    missing: str = ""

    def show(self, description: str) -> str:
        """Return the image, or the sentence, as markdown."""
        return self.missing if self.png is None else image(description, self.png)


def _never_failing(draw: Callable[[Groups], bytes]) -> Callable[[Groups], Chart]:
    """Make a drawing that fails a missing chart: no flow run fails because of a picture."""

    @wraps(draw)
    def drawn(groups: Groups) -> Chart:
        try:
            return Chart(draw(groups)) if is_installed("charts") else Chart(None, NOT_INSTALLED)
        except Exception as error:
            log.warning("A chart could not be drawn: %s", type(error).__name__)
            return Chart(None, f"The chart could not be drawn: {type(error).__name__}.")

    return drawn


@_never_failing
def vertical_bars(groups: Groups) -> bytes:
    """Draw a chart for each group of numbers, side by side, under the group's name."""
    # Imported when it draws, for it takes half a second; pyplot would keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(groups), 3), layout="constrained")
    for position, (title, values) in enumerate(groups.items(), 1):
        axes = figure.add_subplot(1, len(groups), position)
        drawn = axes.bar(list(values), list(values.values()), color=BLUE, width=0.6)
        axes.bar_label(drawn, fmt="{:,.0f}")
        axes.margins(y=0.15)
        # A single bar would fill the whole width otherwise.
        axes.set_xlim(-0.75, len(values) - 0.25)
        axes.set_title(title)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    return _png(figure, dpi=120)


@_never_failing
def horizontal_bars(groups: Groups) -> bytes:
    """Draw all groups in one small chart, one below the other; the largest number of each group
    has the full length.
    """
    from matplotlib.figure import Figure

    rows = [
        (f"{title}, {name}", number, max(*values.values(), 1))
        for title, values in groups.items()
        for name, number in values.items()
    ]
    figure = Figure(figsize=(6, 0.3 * len(rows) + 0.2))
    axes = figure.add_axes((0.34, 0.02, 0.64, 0.96))
    names, numbers, largest = zip(*reversed(rows), strict=True)
    shares = [number / most for number, most in zip(numbers, largest, strict=True)]
    drawn = axes.barh(names, shares, color=BLUE)
    axes.bar_label(drawn, [f"{number:,}" for number in numbers], padding=3)
    axes.set_xlim(0, 1.25)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _png(figure, dpi=100)


def _png(figure: "Figure", dpi: int) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
