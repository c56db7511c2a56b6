"""Rounds that teach and serve by themselves: SFT, then collect, pairs, DPO, gate, promote.

Knows the order (paper, Algorithm 1), what a round decided and where that stands. Knows no model's
inside and no statistics. Killed at any moment, the same loop goes on: finished calls, trained
adapters and verdicts are not made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cowest_graph.adapters import BASE, AdapterRegistry
from cowest_graph.benchmark.ledger import digest
from cowest_graph.collecting import collected
from cowest_graph.evaluators import evaluator_name, model_name
from cowest_graph.graph import Collectors
from cowest_graph.traces import PAIR, Trace, TraceStore, wrong_pairs
from trainer.checks import HeldOut, query_hash, seen_in_training
from trainer.console import write_text
from trainer.course import Course
from trainer.gate import Gate, Scores, Verdict, decided, held_out_scores
from trainer.job import MakeJob, TrainingJob
from trainer.launch import aimed, train_dpo, train_sft
from trainer.rows import Rows, demonstrations, training_rows
from trainer.run.child import told

STATE = "loop.json"
_KINDS: tuple[Literal["sft", "dpo"], ...] = ("sft", "dpo")

RowsOfQueries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Round:
    """What one round came to.

    Args:
        number: 0 is SFT.
        start: the version whose drafts were collected and trained on; None before SFT.
        candidate: the version that was trained; None where there was nothing to train on.
        current: the version in use when it was gated; `BASE` for the bare model.
        verdict: of the gate; None without a candidate.
        note: what it was trained on, or why not.
        promoted: whether the candidate is in use since.
    """

    number: int
    start: str | None
    candidate: str | None
    current: str
    verdict: Verdict | None
    note: str
    promoted: bool = False

    def __str__(self) -> str:
        what = f"round {self.number}" if self.number else "SFT"
        if self.verdict is None:
            return f"{what}: {self.note}"
        use = "; in use" if self.promoted else ""
        return f"{what}: {self.candidate} against {self.current} {self.verdict}{use}"


@dataclass
class Loop:
    """What a loop works with.

    Args:
        collectors: of the collections and of the gate; their weak model follows `adapters`,
            sampling as it should for drafts.
        traces: of the collections.
        adapters: the registry; what passes the gate is promoted in it.
        job: the training job of a recipe.
        folder: keeps the state (`loop.json`) and the gate's own traces (`gate.db`).
        gate: when an adapter may take over.
        course: which queries a round asks, and when there is not enough to train on.
        store: opens the store of the gate's traces.
        say: told of every step.
        sft, dpo: the recipes.
    """

    collectors: Collectors
    traces: TraceStore
    adapters: AdapterRegistry
    job: MakeJob
    folder: Path
    gate: Gate = field(default_factory=Gate)
    course: Course = field(default_factory=Course)
    store: Callable[[str], TraceStore] = TraceStore
    say: Callable[[str], None] = print
    sft: Callable[..., str] = train_sft
    dpo: Callable[..., str] = train_dpo

    def run(
        self,
        rows: RowsOfQueries,
        held_out: RowsOfQueries,
        *,
        feedback: RowsOfQueries | None = None,
        rounds: int = 1,
        start: str | None = None,
    ) -> list[Round]:
        """Run the rounds that are not done yet.

        SFT comes first where there is no adapter to start from; DPO goes on from it whether or not
        it passed, since alignment is what makes drafts help. A round of DPO that does not pass, or
        that has no pairs, is the last one.

        Args:
            rows: {"query", "reference", "explanation"} to learn from; those that are held out are
                left out.
            held_out: {"query", "reference"} that the gate asks; never trained on.
            feedback: {"query", "reference"} that drafts are collected on; `rows` by default. Drafts
                on queries that SFT showed the answer to are often all right, and teach nothing.
            rounds: of DPO, at most.
            start: an adapter; the one in use by default.

        Returns:
            The rounds of this loop, also those that earlier calls decided. One that lacks calls
            which failed is tried again by the next call.

        Raises:
            ValueError: for no rows, rows that are all held out, a folder of another loop, or rows
                without a reference where SFT is needed.
            LookupError: when there is no adapter `start`.
            ConnectionError: when nobody answers.
            TrainingError: when a training run fails.
        """
        if start is not None:
            self.adapters.path(start)
        held_out = self._distinct(held_out)
        kept = self._kept(rows, held_out)
        asked = kept if feedback is None else self._kept(feedback, held_out)
        made_of = self._made_of(kept, asked, held_out, start)
        state = State.of(self.folder, made_of, start or self.adapters.current)
        self._heed_drift(state)
        self._check_unseen(state.start, held_out)
        found: list[Round] = []
        trunk = state.start
        if trunk is None:
            found.append(self._round(state, 0, None, kept, held_out))
            trunk = found[-1].candidate
        for number in range(1, rounds + 1):
            found.append(self._round(state, number, trunk, asked, held_out))
            if not found[-1].promoted:
                self.say("no further round: the same drafts would teach the same")
                break
            trunk = found[-1].candidate
        return found

    def _heed_drift(self, state: State) -> None:
        """Begin anew where the strong model has changed since the rounds that are kept."""
        since = self.traces.drifted().get(model_name(self.collectors.strong))
        drift = None if since is None else since.isoformat()
        if drift == state.drift:
            return
        if state.rounds:
            self.say(
                f"the strong model has changed since {drift}: what it said before teaches no more, "
                "and a new round begins"
            )
        state.begin_anew(drift, self.adapters.current)

    def _distinct(self, held_out: RowsOfQueries) -> RowsOfQueries:
        """Each query once: a test takes every row for a query of its own."""
        once = {query_hash(row["query"]): row for row in reversed(held_out)}
        if repeated := len(held_out) - len(once):
            self.say(f"{repeated} of {len(held_out)} held-out queries are there before: left out")
        return list(reversed(once.values()))

    def _check_unseen(self, start: str | None, held_out: RowsOfQueries) -> None:
        if start is None:
            return
        known = HeldOut(row["query"] for row in held_out)
        if seen := seen_in_training(self.adapters.path(start), known):
            raise ValueError(
                f"{start} was trained on {seen} rows whose query is held out: give other "
                "held-out queries, or another start"
            )

    def _kept(self, rows: RowsOfQueries, held_out: RowsOfQueries) -> list[Mapping[str, Any]]:
        if not held_out:
            raise ValueError("no held-out queries: the gate would have nothing to ask")
        known = HeldOut(row["query"] for row in held_out)
        kept = [row for row in rows if row["query"] not in known]
        if not kept:
            raise ValueError(f"no rows to learn from: {len(rows)} given, all of them held out")
        if left := len(rows) - len(kept):
            self.say(f"{left} of {len(rows)} rows are held out: they are not learnt from")
        return kept

    def _made_of(
        self,
        rows: RowsOfQueries,
        feedback: RowsOfQueries,
        held_out: RowsOfQueries,
        start: str | None,
    ) -> dict[str, str]:
        """What the state of a folder holds for, by what it is called in an error."""
        of = self.collectors
        other = [] if of.strategy == "algorithm1" else [of.strategy]
        wording = (of.style, of.domain, of.num_drafts, *other)
        models = (model_name(of.weak), model_name(of.strong), evaluator_name(of.evaluator))
        return {
            "rows": digest(*map(_json, rows)),
            "feedback queries": digest(*map(_json, feedback)),
            "held-out queries": digest(*map(_json, held_out)),
            "models": digest(*models),
            "draft settings": digest(*wording),
            "training settings": digest(*(self.job(kind).to_json() for kind in _KINDS)),
            "gate": digest(self.gate),
            **({"course": digest(self.course)} if self.course != Course() else {}),
            **({"start": start} if start else {}),
        }

    def _round(
        self,
        state: State,
        number: int,
        start: str | None,
        rows: RowsOfQueries,
        held_out: RowsOfQueries,
    ) -> Round:
        done = state.round(number)
        if done is None:
            self.say(f"round {number}" if number else "SFT")
            rows = self._asked(rows, state, number) if number else rows
            candidate, note = self._trained(number, start, rows)
            current = self.adapters.current or BASE
            verdict = None if candidate is None else self._judged(candidate, current, held_out)
            if number and verdict is not None and not verdict.passed:
                note += "; the last round: the gate did not let it pass"
            done = Round(number, start, candidate, current, verdict, note)
            # What failed calls kept from passing is open: it is tried again.
            if verdict is not None and (verdict.passed or not verdict.missing):
                state.add(done)
        if done.verdict is not None and done.verdict.passed and not done.promoted:
            if self.adapters.current != done.candidate:
                self.adapters.promote(str(done.candidate))
            done = state.add(replace(done, promoted=True))
        self.say(str(done))
        return done

    def _trained(
        self, number: int, start: str | None, rows: RowsOfQueries
    ) -> tuple[str | None, str]:
        """The candidate of a round, and what it was trained on; None where nothing teaches."""
        if start is None:
            asking = self.collectors.wording.draft
            shown = demonstrations(rows, style=self.collectors.style, prompt=asking)
            if not shown:
                raise ValueError(f"no adapter to start from, and no SFT: {shown.report}")
            return self._made(shown, self.job("sft"), None), str(shown.report)
        traces = self._collected(start, rows)
        job = aimed(self.job("dpo"), traces)
        wrong = wrong_pairs(self.traces.feedbacks(key=PAIR))
        given = training_rows(job.objective, traces, wrong=wrong, drifted=self.traces.drifted())
        made = self.course.rows(given, traces, job.objective, self.collectors.style)
        if isinstance(made, str):
            return None, made
        return self._made(made, job, start), str(given.report)

    def _asked(self, rows: RowsOfQueries, state: State, number: int) -> RowsOfQueries:
        """The queries of a round, by what earlier rounds found of them."""
        if self.course.queries_a_round is None:
            return rows
        starts = [each.start for each in state.rounds if each.start and each.number < number]
        return self.course.first(rows, [self._told(row, starts) for row in rows])

    def _told(self, row: Mapping[str, Any], starts: Sequence[str]) -> Trace | None:
        """The trace of the last of these versions that was asked a query."""
        try:
            of = partial(self.collectors.key, row, self.traces)
            keys = [of(version=start) for start in reversed(starts)]
        except ValueError:  # told by the collection, which asks nothing for such a row
            return None
        return next((trace for key in keys if (trace := self.traces.get(key))), None)

    def _made(self, rows: Rows[Any], job: TrainingJob, start: str | None) -> str:
        """The adapter of these rows, trained where it is not there yet."""
        kind = "sft" if start is None else job.objective
        name = f"{kind}-{digest(_json(rows), job.to_json(), start)[:8]}"
        if name not in self.adapters:
            self.say(f"{kind} on {rows.report}")
            progress = told(self.say, kind)
            train = self.sft if start is None else self.dpo
            train(
                rows,
                job,
                self.adapters,
                start=start,
                name=name,
                drop_bad_rows=True,
                progress=progress,
            )
        return name

    def _collected(self, version: str, rows: RowsOfQueries) -> list[Trace]:
        drafts, most = self.collectors.num_drafts, self.collectors.max_concurrency
        collector = self.collectors.collector(self.traces, version=version)
        self.say(f"feedback on {len(rows)} queries, {drafts} drafts of {version} each")
        found = collected(collector, rows, what="feedback", say=self.say, max_concurrency=most)
        return [trace for trace in found if trace is not None]

    @property
    def _gate_file(self) -> str:
        """Where the gate's traces are; what a strong model said that has changed is no measure."""
        since = self.traces.drifted().get(model_name(self.collectors.strong))
        return "gate.db" if since is None else f"gate-{since:%Y%m%dT%H%M%S}.db"

    def _judged(self, candidate: str, current: str, held_out: RowsOfQueries) -> Verdict:
        with self.store(f"sqlite:///{self.folder / self._gate_file}") as store:

            def scores(version: str, beside: str) -> Scores:
                def asked(rows: RowsOfQueries) -> list[float | None]:
                    self.say(f"gate: {len(rows)} held-out queries with {version}")
                    return held_out_scores(
                        version, rows, self.collectors, store, beside=beside, say=self.say
                    )

                return asked

            ours, theirs = scores(candidate, current), scores(current, candidate)
            return decided(self.gate, held_out, ours, theirs)


@dataclass
class State:
    """What a loop decided so far, in a file that is whole at any moment."""

    path: Path
    made_of: dict[str, str]
    start: str | None
    rounds: list[Round]
    drift: str | None = None
    """When the strong model was last found changed, as these rounds know."""
    before: list[Round] = field(default_factory=list)
    """The rounds until then."""

    @classmethod
    def of(cls, folder: Path, made_of: dict[str, str], start: str | None) -> State:
        """The state that is kept in the folder, or a new one.

        Raises:
            ValueError: when the folder is another loop's, naming what differs.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STATE
        if not path.exists():
            return cls(path, made_of, start, [])
        kept = json.loads(path.read_text(encoding="utf-8"))
        others = [what for what in made_of if kept["made_of"].get(what) != made_of[what]]
        if others:
            raise ValueError(
                f"{folder}/ holds a loop with other {', '.join(others)}; give a new --out"
            )
        rounds, before = (
            [_round(each) for each in kept.get(name, [])] for name in ("rounds", "before")
        )
        return cls(path, kept["made_of"], kept["start"], rounds, kept.get("drift"), before)

    def round(self, number: int) -> Round | None:
        """The round of this number, where it was decided."""
        return next((each for each in self.rounds if each.number == number), None)

    def add(self, done: Round) -> Round:
        """Keep a round, in the place of what was kept of it."""
        self.rounds = [each for each in self.rounds if each.number != done.number] + [done]
        self._write()
        return done

    def begin_anew(self, drift: str | None, current: str | None) -> None:
        """Put the rounds aside: what comes starts from the last candidate, or what is in use."""
        if self.rounds:
            trained = [each.candidate for each in self.rounds if each.candidate is not None]
            self.start = current or (trained[-1] if trained else self.start)
        self.before, self.rounds, self.drift = [*self.before, *self.rounds], [], drift
        self._write()

    def _write(self) -> None:
        plain = {
            "made_of": self.made_of,
            "start": self.start,
            "rounds": [asdict(each) for each in self.rounds],
            "drift": self.drift,
            "before": [asdict(each) for each in self.before],
        }
        write_text(self.path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def _round(plain: Mapping[str, Any]) -> Round:
    verdict = plain["verdict"]
    return Round(**{**plain, "verdict": verdict and Verdict.from_dict(verdict)})


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
