"""The demo's report: a table on the terminal, Markdown, and one HTML page with plots.

Knows rendering. Knows no models; every figure comes from `Results`.
"""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.demo import Measured, Results
from trainer.demo.results import (
    COLLABORATION_DPO,
    COLLABORATION_SFT,
    STRONG,
    WEAK_DPO,
    WEAK_SFT,
)
from trainer.reports.pages import bars, html_table, listed, markdown_table, page, plot

_HEADER = ("method", "exact match", "95 %", "token F1", "calls weak/strong", "seconds")
_COMPARED = (
    (COLLABORATION_SFT, STRONG),
    (COLLABORATION_SFT, WEAK_SFT),
    (COLLABORATION_DPO, COLLABORATION_SFT),
    (COLLABORATION_DPO, WEAK_SFT),
    (COLLABORATION_DPO, STRONG),
)
_STEPS = ((WEAK_SFT, COLLABORATION_SFT), (WEAK_DPO, COLLABORATION_DPO))


def print_report(results: Results, console: Console) -> None:
    """The table, the paired differences and the swap on a terminal."""
    table = Table(*_HEADER, title=_title(results))
    for row in _rows(results):
        table.add_row(*row)
    console.print(table)
    for line in [*_differences(results), *_facts(results)]:
        console.print(line, markup=False)
    for version, draft, answer in results.swap:
        console.print(f"\nadapter {version}", markup=False)
        console.print(f"  draft:  {draft!r}\n  answer: {answer!r}", markup=False)


def save_report(results: Results, folder: Path) -> list[Path]:
    """Write report.md, report.html and report.json into a folder; their paths."""
    written = {
        "report.md": _markdown(results),
        "report.html": _page(results),
        "report.json": json.dumps(as_plain(results), indent=2, ensure_ascii=False),
    }
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in written]


def as_plain(results: Results) -> dict[str, Any]:
    """The results as JSON-able data."""
    return {
        "seed": results.seed,
        "world": results.world,
        "weak": results.weak,
        "strong": results.strong,
        "methods": [as_measured(measured) for measured in results.measured],
        "differences": {
            f"{ours} - {theirs}": results.difference(ours, theirs).__dict__
            for ours, theirs in _pairs(results)
        },
        "drafts": {
            draft: asdict(results.stated(draft))
            | dict(zip(("rescued", "harmed"), results.changed(draft, answer), strict=True))
            for draft, answer in _STEPS
            if results.has(draft) and results.has(answer)
        },
        "kinds": {m.method: results.by_kind(m.method) for m in results.measured},
        "pairs": results.pairs,
        "seconds": results.seconds | {"collect": results.collect_seconds},
        "swap": results.swap,
        "curves": results.curves,
    }


def as_measured(measured: Measured) -> dict[str, Any]:
    """One method as JSON-able data."""
    interval = measured.interval
    return {
        "method": measured.method,
        "exact_match": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "token_f1": sum(measured.f1) / len(measured.f1),
        "weak_calls": measured.weak_calls,
        "strong_calls": measured.strong_calls,
        "seconds": measured.seconds,
        "exact": measured.exact,
    }


def _title(results: Results) -> str:
    return f"{len(results.held_out)} held-out questions on {results.world}, seed {results.seed}"


def _rows(results: Results) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for m in results.measured:
        interval = m.interval
        rows.append(
            (
                m.method,
                f"{interval.mean:.2f}",
                f"{interval.low:.2f} to {interval.high:.2f}",
                f"{sum(m.f1) / len(m.f1):.2f}",
                f"{m.weak_calls}/{m.strong_calls}",
                "-" if m.seconds is None else f"{m.seconds:.0f}",
            )
        )
    return rows


def _pairs(results: Results) -> list[tuple[str, str]]:
    return [(a, b) for a, b in _COMPARED if results.has(a) and results.has(b)]


def _differences(results: Results) -> list[str]:
    lines = []
    for ours, theirs in _pairs(results):
        difference = results.difference(ours, theirs)
        verdict = (
            "above 0"
            if difference.above_zero
            else "below 0"
            if difference.high < 0
            else "no evidence either way"
        )
        lines.append(f"{ours} less {theirs}: {difference} ({verdict})")
    return lines


def _facts(results: Results) -> list[str]:
    pairs = results.pairs
    lines = [
        f"feedback: {results.traces} traces, {pairs.get('helped', 0)} drafts helped, "
        f"{pairs.get('hurt', 0)} hurt, {pairs.get('pairs', 0)} pairs, "
        f"collected in {results.collect_seconds:.0f} s"
    ]
    for draft, answer in _STEPS:
        if results.has(draft) and results.has(answer):
            said, (rescued, harmed) = results.stated(draft), results.changed(draft, answer)
            lines.append(
                f"{draft}: {said.facts:.2f} of the needed facts are stated right, "
                f"{said.complete:.2f} of the drafts state all, {said.left_out:.2f} leave one out "
                f"on purpose; the strong model puts {rescued} answers right and spoils {harmed}"
            )
    for kind, curve in results.curves.items():
        if curve:
            first, last = curve[0]["loss"], curve[-1]["loss"]
            seconds = results.seconds.get(kind, 0)
            lines.append(
                f"{kind.upper()}: loss {first:.3f} to {last:.3f} in {curve[-1]['step']} steps, "
                f"{seconds:.0f} s"
            )
    if whole := results.seconds.get("in all"):
        lines.append(f"in all: {whole:.0f} s")
    return lines


def _kinds(results: Results) -> tuple[list[str], list[list[str]]]:
    """Exact match by kind of question: the header and a row a kind."""
    found = {m.method: results.by_kind(m.method) for m in results.measured}
    kinds = list(next(iter(found.values()), {}))
    rows = [[kind, *(f"{scores[kind]:.2f}" for scores in found.values())] for kind in kinds]
    return ["kind", *found], rows


def _markdown(results: Results) -> str:
    lines = [f"# {_title(results)}", "", f"Weak: {results.weak}. Strong: {results.strong}.", ""]
    lines += markdown_table(_HEADER, _rows(results))
    lines += ["", "Paired differences in exact match, with 95 % bootstrap intervals:", ""]
    lines += [f"- {line}" for line in [*_differences(results), *_facts(results)]]
    lines += ["", "By kind of question:", "", *markdown_table(*_kinds(results))]
    lines += ["", "One question, before and after the swap, in one process:", ""]
    for version, draft, answer in results.swap:
        lines += [f"- {version}: draft `{_line(draft)}`, answer `{_line(answer)}`"]
    lines += ["", f"Made by `cowest demo --seed {results.seed}`.", ""]
    return "\n".join(lines)


def _page(results: Results) -> str:
    swapped = "".join(
        f"<h3>adapter {html.escape(version)}</h3><pre>{html.escape(draft)}</pre>"
        f"<p>refined to</p><pre>{html.escape(answer)}</pre>"
        for version, draft, answer in results.swap
    )
    body = f"""<h1>{html.escape(_title(results))}</h1>
<p>Weak: {html.escape(results.weak)}. Strong: {html.escape(results.strong)}.</p>
{_plot(results)}
{html_table(_HEADER, _rows(results))}
{listed([*_differences(results), *_facts(results)])}
<h2>By kind of question</h2>
{html_table(*_kinds(results))}
<h2>One question, before and after the swap</h2>
{swapped}
<p>Made by <code>cowest demo --seed {results.seed}</code>.</p>"""
    return page("CoWest-Graph demo", body)


def _plot(results: Results) -> str:
    """Scores with intervals and loss curves."""
    curves = {kind: curve for kind, curve in results.curves.items() if curve}

    def draw(figure: Any) -> None:
        ratios = [2, *[1] * len(curves)]
        axes = figure.subplots(1, 1 + len(curves), width_ratios=ratios, squeeze=False)[0]
        intervals = [m.interval for m in results.measured]
        bars(
            axes[0],
            [m.method for m in results.measured],
            [(i.mean, i.low, i.high) for i in intervals],
            "exact match, 95 % intervals",
        )
        for axis, (kind, curve) in zip(axes[1:], curves.items(), strict=True):
            axis.plot([line["step"] for line in curve], [line["loss"] for line in curve])
            axis.set(title=f"{kind.upper()} loss", xlabel="step")

    return plot(draw, height=2.8 + 0.1 * len(results.measured))


def _line(text: str) -> str:
    return " / ".join(text.replace("`", "'").splitlines())
