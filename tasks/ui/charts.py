"""Bar charts as PNG images, for artifacts and the lake."""

# pyright: reportUnknownMemberType=false
# matplotlib leaves its keyword arguments open.

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, TypeVar

from blocks.extras import how_to_install, is_installed
from tasks.ui.markdown import image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

BLUE = "#2563eb"
SHADES = ("#cbd5e1", "#93b4f5", BLUE, "#1e3a8a")
"""Of the parts of a stack, the first one the least remarkable."""
NOT_INSTALLED = f"There is no chart here: the extra charts draws it, `{how_to_install('charts')}`."

Bars = Mapping[str, int]
Groups = Mapping[str, Bars]
D = TypeVar("D")


@dataclass(frozen=True)
class Chart:
    """A chart as a PNG image, or a sentence that says why there is none; neither where no
    two numbers can be compared.
    """

    png: bytes | None = None
    missing: str = ""

    def show(self, description: str) -> str:
        """Return the image, or the sentence, as markdown."""
        return self.missing if self.png is None else image(description, self.png)


def _never_failing(draw: Callable[[D], bytes | None]) -> Callable[[D], Chart]:
    """Make a drawing that fails a missing chart: no flow run fails because of a picture."""

    @wraps(draw)
    def drawn(data: D) -> Chart:
        try:
            return Chart(draw(data)) if is_installed("charts") else Chart(None, NOT_INSTALLED)
        except Exception as error:
            log.warning("A chart could not be drawn: %s", type(error).__name__)
            return Chart(None, f"The chart could not be drawn: {type(error).__name__}.")

    return drawn


@_never_failing
def vertical_bars(groups: Groups) -> bytes | None:
    """Draw a chart for each group of numbers that can be compared, side by side, under its name."""
    shown = {title: values for title, values in groups.items() if _can_be_compared(values)}
    if not shown:
        return None
    # Imported when it draws, for it takes half a second; pyplot would keep every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(shown), 3), layout="constrained")
    for position, (title, values) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(1, len(shown), position)
        drawn = axes.bar(list(values), list(values.values()), color=BLUE, width=0.6)
        axes.bar_label(drawn, fmt="{:,.0f}")
        axes.margins(y=0.15)
        axes.set_title(title)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    return _png(figure, dpi=120)


@_never_failing
def horizontal_bars(values: Bars) -> bytes | None:
    """Draw numbers of one kind, one below the other; None if there are not two to compare."""
    if not _can_be_compared(values):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.3 * len(values) + 0.2))
    axes = figure.add_axes((0.24, 0.02, 0.74, 0.96))
    drawn = axes.barh(list(values), list(values.values()), color=BLUE)
    axes.bar_label(drawn, [f"{number:,}" for number in values.values()], padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(values.values()))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _png(figure, dpi=100)


@_never_failing
def stacked_bars(stacks: Groups) -> bytes | None:
    """Draw a bar for each of the `stacks`, made of the same parts, with the total above; None if
    there are not two to compare. A part that no stack has is not in the legend.
    """
    totals = {name: sum(parts.values()) for name, parts in stacks.items()}
    if not _can_be_compared(totals):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.5, 0.6 * len(stacks) + 2), 3), layout="constrained")
    axes, below = figure.add_subplot(), dict.fromkeys(stacks, 0)
    for part, shade in zip(next(iter(stacks.values())), SHADES, strict=False):
        heights = [parts[part] for parts in stacks.values()]
        if not any(heights):
            continue
        bottom = list(below.values())
        axes.bar(list(stacks), heights, bottom=bottom, label=part, color=shade, width=0.6)
        below = {name: below[name] + stacks[name][part] for name in stacks}
    for position, total in enumerate(totals.values()):
        axes.annotate(
            f"{total:,}", (position, total), (0, 2), textcoords="offset points", ha="center"
        )
    axes.margins(y=0.12)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return _png(figure, dpi=100)


def _can_be_compared(values: Bars) -> bool:
    """Return whether there are two bars to see."""
    return sum(number > 0 for number in values.values()) > 1


def _png(figure: "Figure", dpi: int) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
