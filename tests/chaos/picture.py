"""A picture of a run: how many commands were answered, how fast, and what was broken meanwhile.

Needs matplotlib, which is in the dependency group `chaos` and nowhere else.
"""

from pathlib import Path
from typing import Any, Final

from tests.chaos.report import Report, throughput

SIZE: Final = (14, 8)

COLORS: Final = {
    "server": "#e4572e",
    "node": "#4f6db8",
    "link": "#8a6fb0",
    "newcomer": "#5aa469",
}
"""Of what was hurt."""

LABELS: Final = {
    "server": "servers hurt",
    "node": "nodes hurt",
    "link": "links cut or slow",
    "newcomer": "a server more",
}

ALPHA: Final = 0.18

MARKET_COLORS: Final = ("#222222", "#c77d0a")


class NoMatplotlib(Exception):
    """matplotlib is not installed."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("matplotlib is not there; `uv run --group chaos` brings it")


def draw(made: Report, file: Path, *, title: str) -> None:
    """Draw it into a file; its name's end says of which kind.

    Raises:
        NoMatplotlib: the picture has to be left out.
    """
    try:
        import matplotlib as library
    except ImportError as error:
        raise NoMatplotlib from error
    library.use("Agg")
    from matplotlib import patches, pyplot

    figure, (upper, lower) = pyplot.subplots(
        2, 1, sharex=True, figsize=SIZE, height_ratios=(1, 1.3), layout="constrained"
    )
    markets = sorted({answer.market for answer in made.answers})
    for market, color in zip(markets, MARKET_COLORS, strict=False):
        answers = [answer for answer in made.answers if answer.market == market]
        counts = throughput(answers, made.duration)
        upper.stairs(counts, color=color, label=market, linewidth=1.4)
        lower.scatter(
            [answer.at for answer in answers],
            [1_000 * answer.latency for answer in answers],
            s=3,
            color=color,
            alpha=0.4,
            linewidths=0,
        )
        changes = [change.at for change in made.changes if change.market == market]
        upper.plot(
            changes,
            [0] * len(changes),
            marker="^",
            linestyle="none",
            color=color,
            label=f"new leader of {market}",
            clip_on=False,
        )
    _shade(made, upper, lower)
    upper.set_ylabel("commands answered in a second")
    upper.set_ylim(bottom=0)
    upper.set_xlim(0, made.duration)
    lower.set_yscale("log")
    lower.set_ylabel("first copy to answer, in ms")
    lower.set_xlabel("seconds after the start")
    upper.set_title(title, loc="left", fontsize=10)
    handles, _ = upper.get_legend_handles_labels()
    families = {_family(fault.kind): None for fault in made.faults}
    handles += [
        patches.Patch(color=COLORS[family], alpha=ALPHA, label=LABELS[family])
        for family in families
    ]
    upper.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False
    )
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _shade(made: Report, upper: Any, lower: Any) -> None:
    for fault in made.faults:
        color = COLORS[_family(fault.kind)]
        for axes in (upper, lower):
            axes.axvspan(fault.began, fault.ended, color=color, alpha=ALPHA, linewidth=0)
        lower.annotate(
            fault.kind,
            (fault.began, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, -3),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize=7,
            color=color,
        )


def _family(kind: str) -> str:
    if kind.startswith("newcomer"):
        return "newcomer"
    if "cut" in kind or "slow" in kind:
        return "link"
    return "node" if "node" in kind else "server"
