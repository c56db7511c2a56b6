"""The bench's report: Markdown and one self-contained HTML page, each figure with its source.

Knows rendering. Knows no models; every figure comes from bench.json files, and beside each table
stand the command, seeds, models and data hash that made it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cowest_graph.benchmark import told_p
from trainer.console import write_text
from trainer.reports.pages import bars, curves, html_table, listed, markdown_table, page, plot

Results = Mapping[str, Any]

_ROLES = ("weak", "strong")  # a query's; what is judged once stands below the table


def load(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Results from bench.json files, or from folders that hold some at any depth.

    Raises:
        FileNotFoundError: when a path holds none.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("bench.json"))
        if not files:
            raise FileNotFoundError(f"no bench.json in {path}; `cowest bench` writes one")
        found += [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return found


_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def save(results: Sequence[Results], folder: Path, name: str = "report") -> list[Path]:
    """Write name.md and name.html into a folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {f"{name}.md": markdown(results), f"{name}.html": web_page(results)}
    for file, text in written.items():
        write_text(folder / file, text)
    return [folder / file for file in written]


def markdown(results: Sequence[Results]) -> str:
    """All tables as Markdown."""
    lines = ["# Methods compared", ""]
    for each in results:
        lines += [f"## {title(each)}", "", *(f"- {fact}" for fact in facts(each)), ""]
        lines += [*markdown_table(header(each), table(each)), ""]
        if compared := comparisons(each):
            lines += [*(f"- {line}" for line in compared), ""]
        if notes(each):
            lines += [*(f"- {line}" for line in notes(each)), ""]
    # Endpoints and data sets wrote parts of it: no tag of theirs shall be one.
    return _TAG.sub("&lt;", "\n".join(lines))


def web_page(results: Sequence[Results]) -> str:
    """All tables and plots as one page."""
    parts = ["<h1>Methods compared</h1>", *_studies(results)]
    for each in results:
        parts.append(f"<h2>{html.escape(title(each))}</h2>")
        parts.append(listed(facts(each)))
        parts.append(_plotted(each))
        parts.append(html_table(header(each), table(each)))
        parts.append(listed([*comparisons(each), *notes(each)]))
    return page("Methods compared", "\n".join(parts))


def title(results: Results) -> str:
    """The domain, the variant where an analysis made it, and adapters that were there already."""
    parts = [results["domain"], results.get("variant"), _given(results)]
    return ", ".join(part for part in parts if part)


def _given(results: Results) -> str:
    given = results["plan"]["training"].get("given") or {}
    return ", ".join(f"{kind} from {Path(folder).name}" for kind, folder in given.items())


def facts(results: Results) -> list[str]:
    """What made the table: command, seeds, models, data."""
    plan = results["plan"]
    seeds = ", ".join(str(seed) for seed in plan["seeds"])
    training = plan["training"]
    taught = _given(results) or f"SFT on {training['train_rows'] or 'all'} training rows"
    said = [
        f"command: {results['command'] or 'run_bench'}",
        f"weak: {results['weak']}; strong: {results['strong']}",
        f"{results['queries']} queries of the split {plan['split']} (seeds {seeds}; data hash "
        f"{results['data_hash']}); {taught}, "
        f"feedback on {training['feedback_rows']} queries with {training['num_drafts']} drafts "
        f"each; style {plan['style'] or 'of the domain'}",
        *(f"{kind.upper()}: {_said(each)}" for kind, each in results.get("recipes", {}).items()),
        "; ".join(f"{role}: {_said(s)}" for role, s in results.get("sampling", {}).items() if s),
        f"made {results['made']} on {results['machine']}; 95 % bootstrap intervals over queries",
    ]
    return [line for line in said if line]


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in settings.items())


def _short(value: Any) -> str:
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def header(results: Results) -> list[str]:
    """The table's columns."""
    metrics = [name.replace("_", " ") for name in _metrics(results)]
    drafts = ["draft alone"] if any(row.get("draft_scores") for row in results["rows"]) else []
    price = ["$ a 1,000 queries"] if _priced(results) else []
    return [
        "method",
        *metrics,
        *drafts,
        "n",
        "unreadable",
        "calls a query (weak/strong)",
        "tokens read+written (weak, strong)",
        "s a query",
        *price,
    ]


def table(results: Results) -> list[list[str]]:
    """The table's rows as text."""
    return [_row(results, row) for row in results["rows"]]


def _row(results: Results, row: Mapping[str, Any]) -> list[str]:
    width = len(header(results))
    if not row["scored"]:
        return [row["method"], "-", *[""] * (width - 2)]
    cost = row["cost"]
    cells = [row["method"], *(_interval(row["scores"].get(name)) for name in _metrics(results))]
    if "draft alone" in header(results):
        cells.append(_interval((row.get("draft_scores") or {}).get(results["primary"])))
    cells += [
        str(row["scored"]) + (f" ({row['failed']} failed)" if row["failed"] else ""),
        str(row["unreadable"]),
        "/".join(f"{cost['calls'].get(role, 0):.1f}" for role in _ROLES),
        ", ".join(_tokens(cost, role) for role in _ROLES),
        "unknown" if cost["seconds"] is None else f"{cost['seconds']:.2f}",
    ]
    if _priced(results):
        cells.append("unknown" if cost["dollars"] is None else f"{1000 * cost['dollars']:.3f}")
    return cells


def comparisons(results: Results) -> list[str]:
    """Differences to the best single model, exact tests, and what the drafts did."""
    lines = []
    for row in results["rows"]:
        if differences := row.get("differences"):
            said = [f"{name.replace('_', ' ')} {_signed(d)}" for name, d in differences.items()]
            said += [_tested(row["test"])] if row["test"] else []
            lines.append(f"{row['method']} less {row['against']}: {'; '.join(said)}")
    for row in results["rows"]:
        if s := row.get("synergy"):
            lines.append(
                f"{row['method']}: rescued {s['rescued']} of {s['strong_wrong']} that strong alone "
                f"got wrong, harmed {s['harmed']} of {s['strong_right']} that it got right; copied "
                f"the draft {s['copied']} times ({s['right_copies']} right), overrode it "
                f"{s['overridden']} times ({s['right_overrides']} right)"
            )
    return lines


def _signed(found: Mapping[str, float]) -> str:
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _tested(test: Mapping[str, Any]) -> str:
    ours, theirs = test["only_ours"], test["only_theirs"]
    return f"right where the other was wrong {ours} to {theirs}, McNemar p {told_p(test['p'])}"


def notes(results: Results) -> list[str]:
    """What was found in the data, what was left out, and what was done once."""
    lines = [f"data: {finding}" for finding in results["findings"]]
    lines += [f"{row['method']}: {row['note']}" for row in results["rows"] if row.get("note")]
    for seed, done in results["once"].items():
        counts = [f"{name} {count}" for name, count in done.items() if name != "costs"]
        if counts:
            lines.append(f"done once, seed {seed}: {', '.join(counts)}")
        lines += [f"spent once, seed {seed}, {of}: {_spent(c)}" for of, c in done["costs"].items()]
    return lines


def _spent(cost: Mapping[str, Any]) -> str:
    """A bill of many calls, in words."""
    said = [
        f"{role} {calls:.0f} calls, tokens {_tokens(cost, role)}"
        for role, calls in cost["calls"].items()
    ]
    said += [] if cost["seconds"] is None else [f"{cost['seconds']:.0f} s"]
    said += [] if cost["dollars"] is None else [f"${cost['dollars']:.4f}"]
    return "; ".join(said)


def _plotted(results: Results) -> str:
    rows = [row for row in results["rows"] if row["scored"]]
    metrics = _metrics(results)

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
        for axis, metric in zip(axes, metrics, strict=True):
            found = [row["scores"][metric] for row in rows]
            intervals = [(i["mean"], i["low"], i["high"]) for i in found]
            bars(axis, [row["method"] for row in rows], intervals, metric.replace("_", " "))

    return plot(draw, height=1 + 0.3 * len(rows))


def _studies(results: Sequence[Results]) -> list[str]:
    """One plot an analysis: the primary metric of each method over the variants."""
    by_domain: dict[str, list[Results]] = {}
    for each in results:
        if "variant" in each:
            by_domain.setdefault(each["domain"], []).append(each)
    return [
        f"<h2>{html.escape(domain)}, all variants</h2>\n{_study(variants)}"
        for domain, variants in by_domain.items()
        if len(variants) > 1
    ]


def _study(variants: Sequence[Results]) -> str:
    metric = variants[0]["primary"]
    methods = {row["method"]: None for each in variants for row in each["rows"] if row["scored"]}
    series = {method: [_mean_of(each, method, metric) for each in variants] for method in methods}
    names = [str(each["variant"]) for each in variants]
    return plot(lambda figure: curves(figure.subplots(), names, series, metric.replace("_", " ")))


def _mean_of(results: Results, method: str, metric: str) -> tuple[float, float, float] | None:
    for row in results["rows"]:
        if row["method"] == method and row["scored"]:
            found = row["scores"][metric]
            return found["mean"], found["low"], found["high"]
    return None


def _metrics(results: Results) -> list[str]:
    return next(list(row["scores"]) for row in results["rows"] if row["scored"])


def _priced(results: Results) -> bool:
    return any(row["scored"] and row["cost"]["dollars"] is not None for row in results["rows"])


def _interval(found: Mapping[str, float] | None) -> str:
    return (
        "" if found is None else f"{found['mean']:.3f} ({found['low']:.2f} to {found['high']:.2f})"
    )


def _tokens(cost: Mapping[str, Any], role: str) -> str:
    if role not in cost["calls"]:
        return "-"
    known = cost["tokens"][role]
    if known is None:
        return "unknown"
    cached = (cost.get("cached") or {}).get(role)  # a report of an earlier release has none
    told = f" ({cached:.0f} cached)" if cached else ""
    return f"{known[0]:.0f}+{known[1]:.0f}{told}"
