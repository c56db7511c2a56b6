"""A router's card as a table and a page: what it cost, what it kept, and what others would have.

Knows a card's plain data. Knows no router and no trace.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from trainer.reports.pages import html_table, listed, page, plot

HEADER = [
    "who decides",
    "score",
    "cost a query",
    "area over mixing",
    "gap recovered",
    "least lead",
]
_NAMES = {"weak": "always weak", "strong": "always strong", "both": "always both"}


def rows(card: Mapping[str, Any]) -> list[list[str]]:
    """The comparison's cells; empty where nothing was held out.

    Args:
        card: of a router's version.
    """
    found = card.get("metrics") or {}
    if not found:
        return []
    table = [
        [_NAMES[way], f"{score:.3f}", f"{cost:.1f}", "", "", ""]
        for way, (score, cost) in found["constant"].items()
    ]
    score, cost = found["router"]
    for name, curve in found["curves"].items():
        own = [f"{score:.3f}", f"{cost:.1f}"] if name == "router" else ["", ""]
        recovered = _told(curve["recovered"]) if curve["recovered"] else ""
        table.append([name, *own, _told(curve["area"]), recovered, f"{curve['least']:+.3f}"])
    table.append(["random mixing", "", "", "0", "0.5", "0"])
    return table


def facts(card: Mapping[str, Any]) -> list[str]:
    """What the card says in words."""
    found, chosen, unit = card.get("metrics") or {}, card["chosen"], card["unit"]
    target = {n: v for n, v in card["target"].items() if v is not None and n != "confidence"}
    wanted = ", ".join(f"{name} {value:g}" for name, value in target.items())
    queries = ", ".join(f"{name} {count}" for name, count in card["queries"].items())
    lines = [
        f"decides {card['moment']} the draft between {', '.join(card['ways'])}; reads "
        f"{', '.join(card['features'])}",
        f"wanted: {wanted}, at a confidence of {card['target']['confidence']:.0%}; costs are "
        f"strong {unit}",
        f"queries: {queries}",
        *([f"takes the best of {drafts} drafts"] if (drafts := card.get("drafts", 1)) > 1 else []),
        f"where the price was chosen: {_share(chosen['kept'])} of the quality for "
        f"{_share(chosen['spent'])} of the cost",
    ]
    if chosen["price"] is None:
        lines.append("no price keeps the target: every query goes the fallback's way")
    if found:
        ways = ", ".join(f"{way} {share:.0%}" for way, share in found["shares"].items())
        lines.append(f"on {found['queries']} queries that it was not made with: {ways}")
    if found.get("less"):
        lines.append(f"area less that of the query alone: {_told(found['less'])}")
    if not found:
        lines.append("nothing was held out, or no held-out query has the scores of all ways")
    return lines


def router_page(name: str, card: Mapping[str, Any]) -> str:
    """A whole page with the plot."""
    body = f"<h1>Router {html.escape(name)}</h1>\n{listed(facts(card))}"
    if table := rows(card):
        body += f"\n{plot(lambda figure: draw(figure, card))}\n{html_table(HEADER, table)}"
    return page(f"Router {name}", body)


def draw(figure: Any, card: Mapping[str, Any]) -> None:
    """Score by cost: the curves, the constant ways, and the line of random mixing.

    Args:
        figure: of matplotlib.
        card: with figures.
    """
    found = card["metrics"]
    axis = figure.subplots()
    for name, points in found["points"].items():
        axis.plot([cost for cost, _ in points], [score for _, score in points], label=name)
    constant = found["constant"]
    dear = "both" if "both" in constant else "strong"
    ends = [constant["weak"], constant[dear]] if "weak" in constant else list(constant.values())
    axis.plot([c for _, c in ends], [s for s, _ in ends], "--", color="#999", label="random mixing")
    for way, (score, cost) in constant.items():
        axis.plot([cost], [score], "o", color="#444")
        axis.annotate(_NAMES[way], (cost, score), textcoords="offset points", xytext=(4, 4))
    score, cost = found["router"]
    axis.plot([cost], [score], "*", markersize=12, label="at its price")
    axis.set(xlabel=f"strong {card['unit']} a query", ylabel="mean score")
    axis.legend()


def _told(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
