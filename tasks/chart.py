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
        drawn = axes.bar(list(values), list(values.values()), color="#2563eb")
        axes.bar_label(drawn, fmt="{:,.0f}")
        axes.margins(y=0.15)
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
