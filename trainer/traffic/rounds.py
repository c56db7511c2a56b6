"""Rounds that learn from what was served: corrections, then explored queries, each gated.

Knows the order and what is written of it. Knows no statistics and no model's inside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cowest_graph.benchmark.ledger import digest
from cowest_graph.traces import PAIR, wrong_pairs
from trainer.checks import HeldOut
from trainer.console import write_lines
from trainer.job import TrainingJob
from trainer.launch import aimed
from trainer.loop import Loop, Round, State
from trainer.rows import Rows, RowsOnDisk, demonstrations, preferences, teaches, training_rows
from trainer.rows.scores import Said, rescored
from trainer.run.child import told
from trainer.traffic.served import Traffic

SOURCES = "sources.jsonl"
"""Where each pair is from, beside the loop's state."""


@dataclass
class TrafficLoop(Loop):
    """A loop that can also learn from what was served, where it collects nothing.

    Corrections come first, on top of the adapter in use; then the pairs of explored queries. Each
    candidate is gated and, where it passes, promoted.
    """

    traffic: Traffic | None = None

    def learn(self, traffic: Traffic) -> list[Round]:
        """The rounds of this traffic that are not done yet: 0 of corrections, 1 of pairs.

        The state lies in a folder of its own within `folder`, by what the traffic is: the same
        command goes on where it was stopped, and begins anew when there is more.

        Args:
            traffic: of the store.

        Raises:
            ValueError: where nothing is held out, or there is no adapter and no correction.
            TrainingError: when a training run fails.
        """
        if not traffic.held_out:
            raise ValueError(
                "nothing for the gate to ask: of the held-out share no query has a thumb, a "
                "correction, or a score; more feedback, or a larger --held-out-share"
            )
        name = f"traffic-{digest(*map(_json, self._of(traffic).values()))[:8]}"
        loop = replace(self, traffic=traffic, folder=self.folder / name)
        return loop.rounds()

    def rounds(self) -> list[Round]:
        """Round 0 where there are corrections, round 1 where there are explored queries."""
        traffic = self._traffic
        state = State.of(self.folder, self._of(traffic), self.adapters.current)
        trunk, found = state.start, []
        self._check_unseen(trunk, traffic.held_out)
        if traffic.taught:
            found.append(self._round(state, 0, trunk, traffic.taught, traffic.held_out))
            trunk = found[-1].candidate or trunk
        if trunk is None:
            raise ValueError("no adapter to start from, and no correction to make one of")
        if traffic.traces or not found:
            found.append(self._round(state, 1, trunk, (), traffic.held_out))
        return found

    @property
    def _traffic(self) -> Traffic:
        assert self.traffic is not None
        return self.traffic

    def _of(self, traffic: Traffic) -> dict[str, str]:
        jobs = [self.job(kind).to_json() for kind in ("sft", "dpo")]
        said = [each.model_dump_json() for each in traffic.feedback]
        return {
            "corrections": digest(*map(_json, traffic.taught)),
            "explored queries": digest(*(each.model_dump_json() for each in traffic.traces)),
            "held-out queries": digest(*map(_json, traffic.held_out)),
            "feedback": digest(*said),
            "training settings": digest(*jobs),
            "gate": digest(self.gate),
        }

    def _trained(
        self, number: int, start: str | None, rows: Sequence[Mapping[str, Any]]
    ) -> tuple[str | None, str]:
        """The candidate of a round, and what it was trained on; None where nothing teaches."""
        if self.traffic is None:
            return super()._trained(number, start, rows)
        if not number:
            asking = self.collectors.wording.draft
            shown = demonstrations(rows, style=self.collectors.style, prompt=asking)
            if not shown:
                return None, f"nothing to train on: {shown.report}"
            return self._trained_on(shown, "sft", self.job("sft"), start), str(shown.report)
        given, job = self._paired()
        pairs = [row for row in given if teaches(row)]
        if not pairs:
            return None, f"nothing to train on: {given.report}"
        name = self._trained_on(Rows(pairs, given.report), job.objective, job, start)
        return name, str(given.report)

    def _paired(self) -> tuple[Rows[Any] | RowsOnDisk[Any], TrainingJob]:
        """The rows of the explored queries, and the job; where the pairs are from is written."""
        traffic = self._traffic
        how: dict[str, Any] = {"score_from": traffic.score_from, "feedback": traffic.feedback}
        how["wrong"] = wrong_pairs(self.traces.feedbacks(key=PAIR))
        told_of = preferences(traffic.traces, sources=True, **how)
        write_lines(self.folder / SOURCES, (_json(each) for each in told_of.sources))
        said = Said(traffic.feedback)
        job = aimed(self.job("dpo"), rescored(traffic.traces, traffic.score_from, said))
        return training_rows(job.objective, traffic.traces, **how), job

    def _trained_on(self, rows: Rows[Any], kind: str, job: TrainingJob, start: str | None) -> str:
        """The adapter of these rows, trained where it is not there yet."""
        name = f"{kind}-{digest(_json(rows), job.to_json(), start)[:8]}"
        if name in self.adapters:
            return name
        self.say(f"{kind} on {rows.report}")
        train = self.sft if kind == "sft" else self.dpo
        held_out = HeldOut(row["query"] for row in self._traffic.held_out)
        more = {"start": start, "name": name, "held_out": held_out, "drop_bad_rows": True}
        train(rows, job, self.adapters, progress=told(self.say, kind), **more)
        return name


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
