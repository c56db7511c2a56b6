"""Self-contained pages: tables in Markdown and HTML, plots as inline SVG.

Knows cells, text and axes. Knows no result. Plots need matplotlib (`cowest-graph[report]`); without
it a page says so in their place.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
td, th { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left }
pre { background: #f6f6f6; padding: .6rem; white-space: pre-wrap }
svg { max-width: 100%; height: auto }
"""


def page(title: str, body: str) -> str:
    """A whole HTML page that loads nothing."""
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of escaped cells."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; a cell's bars and line ends are replaced.

    >>> markdown_table(["a", "b"], [["1", "x|y"]])
    ['| a | b |', '|---|---|', '| 1 | x/y |']
    """
    plain = [[" ".join(cell.replace("|", "/").split()) for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in [list(header), *plain]]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


def listed(lines: Sequence[str]) -> str:
    """A list of escaped lines."""
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def plot(draw: Callable[[Any], None], *, width: float = 9, height: float = 3) -> str:
    """What `draw` draws on a matplotlib figure, as inline SVG; a note where matplotlib is missing.

    Args:
        draw: takes the figure.
        width, height: in inches.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return "<p>(no plot: install cowest-graph[report])</p>"
    svg = io.StringIO()
    # A fixed salt, and no date: the same results give the same bytes.
    with rc_context({"svg.hashsalt": "cowest"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(svg, format="svg", metadata={"Date": None})
    start, opening, rest = svg.getvalue().partition("<svg")
    del start
    return opening + rest


def bars(
    axis: Any, names: Sequence[str], intervals: Sequence[tuple[float, float, float]], title: str
) -> None:
    """Horizontal bars from the top, with intervals.

    Args:
        axis: of matplotlib.
        names: one a bar.
        intervals: mean, low, high; the axis goes from 0 to 1, and beyond where they do.
        title: of the axis.
    """
    ordered = list(intervals)[::-1]
    means = [mean for mean, _, _ in ordered]
    axis.barh(list(names)[::-1], means, xerr=_errors(ordered), color="#6a8caf", capsize=3)
    axis.set(xlim=_range(ordered), title=title)


def curves(
    axis: Any,
    names: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float] | None]],
    title: str,
) -> None:
    """One line with intervals a series, over named places.

    Args:
        axis: of matplotlib.
        names: of the places.
        series: by name, mean, low, high a place; None where there is none.
        title: of the axis.
    """
    every = [interval for line in series.values() for interval in line if interval]
    for number, (name, line) in enumerate(series.items()):
        there = [(place, interval) for place, interval in enumerate(line) if interval]
        beside = 0.06 * (number - (len(series) - 1) / 2)  # so that intervals do not cover another
        means = [interval[0] for _, interval in there]
        errors = _errors([interval for _, interval in there])
        axis.errorbar(
            [p + beside for p, _ in there], means, yerr=errors, marker="o", capsize=3, label=name
        )
    axis.set_xticks(range(len(names)), list(names))
    axis.set(ylim=_range(every), title=title)
    axis.legend()


def _errors(intervals: Sequence[tuple[float, float, float]]) -> list[list[float]]:
    # A resampled figure that is no mean may have its interval beside itself.
    below = [max(mean - low, 0) for mean, low, _ in intervals]
    return [below, [max(high - mean, 0) for mean, _, high in intervals]]


def _range(intervals: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    lows, highs = [low for _, low, _ in intervals], [high for *_, high in intervals]
    return min(0.0, *lows), max(1.0, *highs)
