"""Pictures for artifacts and the lake."""

# pyright: reportUnknownMemberType=false
# matplotlib leaves its keyword arguments open.

import io
from collections.abc import Mapping


def bars(groups: Mapping[str, Mapping[str, int]]) -> bytes:
    """A PNG with a bar chart for each group, by title."""
    # Half a second that only those pay who draw; and no pyplot, which keeps every figure.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(groups), 3), layout="constrained")
    for place, (title, values) in enumerate(groups.items(), 1):
        axes = figure.add_subplot(1, len(groups), place)
        drawn = axes.bar(list(values), list(values.values()), color="#2563eb", width=0.6)
        axes.bar_label(drawn, fmt="{:,.0f}")
        axes.margins(y=0.15)
        # Also where there is one bar, it is no wall.
        axes.set_xlim(-0.75, len(values) - 0.25)
        axes.set_title(title)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def lines(groups: Mapping[str, Mapping[str, int]]) -> bytes:
    """A small PNG with all groups below each other, a bar for each number, as long as it is of the
    largest in its group.
    """
    from matplotlib.figure import Figure

    rows = [
        (f"{title}, {name}", number, max(*values.values(), 1))
        for title, values in groups.items()
        for name, number in values.items()
    ]
    figure = Figure(figsize=(6, 0.3 * len(rows) + 0.2))
    axes = figure.add_axes((0.34, 0.02, 0.64, 0.96))
    names, numbers, longest = zip(*reversed(rows), strict=True)
    shares = [number / most for number, most in zip(numbers, longest, strict=True)]
    drawn = axes.barh(names, shares, color="#2563eb")
    axes.bar_label(drawn, [f"{number:,}" for number in numbers], padding=3)
    axes.set_xlim(0, 1.25)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()
