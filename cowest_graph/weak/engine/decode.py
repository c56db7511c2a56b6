"""The decode engine: one background thread that turns waiting requests into batched steps.

Knows token ids, rows and steps. Knows no message, no registry and no chat template.

Continuous batching: requests join and leave between two steps, and each row has its own sampling
rules, its own random numbers and its own adapter.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from cowest_graph.weak.engine.grammars import Grammars
from cowest_graph.weak.engine.kv_cache import ATTENTION, RowCache
from cowest_graph.weak.engine.lora import LoraRows, linear_layers
from cowest_graph.weak.engine.request import Cancelled, QueueFull, Request, Row, Written
from cowest_graph.weak.engine.sampling import Rules, sample
from cowest_graph.weak.sharing import CORES

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

log = logging.getLogger(__name__)

_PREFILL_TOKENS = 1024  # a step's prompts, so that running texts go on in between


class Engine:
    """Writes texts with one model.

    Args:
        model: a causal language model of transformers, in evaluation mode; its attention and its
            linear layers get hooks.
        tokenizer: its tokenizer.
        max_batch_size: rows in a step.
        max_queue: texts that may wait for a row.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        max_batch_size: int = 32,
        max_queue: int = 1024,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_batch_size, self.max_queue = max_batch_size, max_queue
        self.stop_ids = end_ids(model, tokenizer)
        self.context = context_length(model.config)
        self.layers = linear_layers(model)
        self.steps = 0  # decoding steps so far
        self._grammars = Grammars(tokenizer, self.stop_ids, _vocabulary(model))
        self._adapters = LoraRows(self.layers)
        if getattr(model, "_supports_sdpa", False):
            model.set_attn_implementation(ATTENTION)
        text_config = model.config.get_text_config()
        self._cache = RowCache(text_config.num_hidden_layers, model.device)
        self._rows: list[Row] = []
        self._next: list[int] = []  # each row's newest token, not yet in the cache
        self._rules: Rules | None = None
        self._waiting: deque[Row] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cowest-weak", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Rows in the batch now."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """Texts that wait for a row."""
        return len(self._waiting)

    def submit(self, request: Request) -> None:
        """Queue a request; its `done` tells the rest.

        Raises:
            ValueError: when the prompt leaves no room for a token, or for a grammar that is none.
            QueueFull: when too many texts wait.
            Cancelled: when the engine is closed.
        """
        if len(request.prompt) >= self.context:
            raise ValueError(
                f"the prompt has {len(request.prompt)} tokens, but the model's context is "
                f"{self.context}; shorten the prompt"
            )
        grammar = request.sampling.grammar
        rows = [
            Row(request, index, None if grammar is None else self._grammars.matcher(grammar))
            for index in range(request.sampling.n)
        ]
        with self._wake:
            if self._closing:
                raise Cancelled("the weak model is closed; make a new one")
            if len(self._waiting) + len(rows) > self.max_queue + self._free():
                raise QueueFull(
                    f"{len(self._waiting)} texts wait already and max_queue is {self.max_queue}; "
                    "send fewer at once, or raise max_queue"
                )
            self._waiting.extend(rows)
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """Give a request up; its rows are free at the next step."""
        request.fail(Cancelled("the request was given up"))
        with self._wake:
            self._wake.notify()

    def close(self, timeout: float = 10.0) -> None:
        """End the thread; unfinished requests fail with `Cancelled`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    # --- the thread ---

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait_for_work():
                try:
                    with CORES.step() if self.model.device.type == "cpu" else nullcontext():
                        self._drop_given_up()
                        self._admit()
                        self._step()
                except Exception as error:
                    log.exception("a step of %d texts failed", len(self._rows))
                    self._abandon(error)
        closed = Cancelled("the weak model was closed")
        self._fail(self._rows, closed)
        self._fail(list(self._waiting), closed)

    def _wait_for_work(self) -> bool:
        """True when there is something to do, False when the engine closes."""
        with self._wake:
            if not self._rows and not self._waiting:
                self._cache.clear()
            while not (self._rows or self._waiting or self._closing):
                self._wake.wait()
            return not self._closing

    def _free(self) -> int:
        return max(0, self.max_batch_size - len(self._rows))

    def _drop_given_up(self) -> None:
        for place in reversed(range(len(self._rows))):
            if self._rows[place].request.given_up:
                self._remove(place)

    def _remove(self, place: int) -> None:
        """As in the cache: the last row takes the place."""
        self._cache.remove(place)
        last, token = self._rows.pop(), self._next.pop()
        if place < len(self._rows):
            self._rows[place], self._next[place] = last, token
        self._rules = None

    def _fail(self, rows: Sequence[Row], error: BaseException) -> None:
        for row in rows:
            row.request.fail(error)

    # --- new rows ---

    def _admit(self) -> None:
        rows = self._take_waiting()
        if not rows:
            return
        try:
            self._prefill(rows)
        except Exception as error:
            log.exception("prompts of %d texts failed", len(rows))
            self._fail(rows, error)
            if len(self._rows) != self._cache.rows:  # half of them are in: give all up
                self._abandon(error)

    def _take_waiting(self) -> list[Row]:
        """The next rows in their order, as long as there are places and prompt tokens to spend."""
        taken: list[Row] = []
        prompts: set[tuple[int, ...]] = set()
        width = 0
        with self._wake:
            while self._waiting and len(taken) < self._free():
                row = self._waiting[0]
                if row.request.given_up:
                    self._waiting.popleft()
                    continue
                wider = max(width, len(row.request.prompt))
                more = prompts | {row.request.prompt}
                if taken and wider * len(more) > _PREFILL_TOKENS:
                    break
                taken.append(self._waiting.popleft())
                prompts, width = more, wider
        return taken

    def _prefill(self, rows: list[Row]) -> None:
        """Compute the rows' prompts, each different one once, and sample their first tokens."""
        places: dict[tuple[tuple[int, ...], int], int] = {}
        different: list[Request] = []
        sources: list[int] = []
        for row in rows:
            key = (row.request.prompt, id(row.request.adapter))
            if key not in places:
                places[key] = len(different)
                different.append(row.request)
            sources.append(places[key])
        logits, cache = self._read_prompts(different)
        picked = torch.tensor(sources, device=self.model.device)
        tokens = self._take_tokens(logits.index_select(0, picked), rows, _rules_of(rows, picked))
        going = [place for place, row in enumerate(rows) if row.finish is None]
        if not going:
            return
        self._cache.admit(
            cache,
            [sources[place] for place in going],
            [len(rows[place].request.prompt) for place in going],
        )
        self._rows += [rows[place] for place in going]
        self._next += [tokens[place] for place in going]
        self._rules = None

    def _read_prompts(self, requests: list[Request]) -> tuple[Tensor, DynamicCache]:
        device = self.model.device
        width = max(len(request.prompt) for request in requests)
        pads = [width - len(request.prompt) for request in requests]
        ids = torch.tensor(
            [[0] * pad + list(request.prompt) for pad, request in zip(pads, requests, strict=True)],
            device=device,
        )
        columns = torch.arange(width, device=device)
        places = columns - torch.tensor(pads, device=device)[:, None]
        self._adapters.use([request.adapter for request in requests], device)
        cache = DynamicCache()
        out = self.model(
            input_ids=ids,
            attention_mask=(places >= 0).long() if any(pads) else None,
            position_ids=places.clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1], cache

    # --- a step ---

    def _step(self) -> None:
        if not self._rows:
            return
        self._next = self._take_tokens(self._forward(), self._rows, self._rules)
        self.steps += 1
        for place in reversed(range(len(self._rows))):
            if self._rows[place].finish is not None:
                self._remove(place)

    def _forward(self) -> Tensor:
        device = self.model.device
        if self._rules is None:
            self._rules = _rules_of(self._rows, self._cache.places)
            self._use = [row.request.adapter for row in self._rows]
        self._adapters.use(self._use, device)
        positions, mask = self._cache.begin_step()
        out = self.model(
            input_ids=torch.tensor(self._next, device=device)[:, None],
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache.end_step()
        logits: Tensor = out.logits[:, -1]
        return logits

    def _abandon(self, error: BaseException) -> None:
        """Fail what runs and begin afresh: a step that broke off leaves the cache half written."""
        self._fail(self._rows, error)
        self._rows, self._next, self._rules = [], [], None
        self._cache.clear()

    def _take_tokens(self, logits: Tensor, rows: list[Row], rules: Rules | None) -> list[int]:
        assert rules is not None
        allowed = _forced(logits, rows)
        if rules.all_greedy:
            ids = allowed.argmax(-1)
        else:
            draws = [
                0.0 if row.request.sampling.temperature == 0 else row.random.random()
                for row in rows
            ]
            ids = sample(allowed, rules, torch.tensor(draws, device=logits.device))
        tokens: list[int] = ids.tolist()
        self._note_logprobs(logits, ids, rows)
        for row, token in zip(rows, tokens, strict=True):
            row.ids.append(token)
            self._look(row, token)
        return tokens

    def _note_logprobs(self, logits: Tensor, ids: Tensor, rows: list[Row]) -> None:
        wanted = [place for place, row in enumerate(rows) if row.request.sampling.logprobs]
        if wanted:
            picked = torch.tensor(wanted, device=logits.device)
            all_of = logits.index_select(0, picked).float().log_softmax(-1)
            of_ids = all_of.gather(-1, ids.index_select(0, picked)[:, None]).flatten().tolist()
            for place, logprob in zip(wanted, of_ids, strict=True):
                rows[place].logprobs.append(logprob)

    # --- text ---

    def _look(self, row: Row, token: int) -> None:
        """Has the row ended, and what of its text is certain?"""
        sampling = row.request.sampling
        ended = token in self.stop_ids
        if row.watched and not ended:
            piece = row.stream.step(self.tokenizer.backend_tokenizer, token)
            row.text += piece or ""
            ended = bool(piece) and any(stop in row.text for stop in sampling.stop)
        if row.matcher is not None:
            try:
                ended |= row.matcher.take(token)
            except RuntimeError as error:
                row.request.fail(error)
        if ended:
            row.finish = "stop"
        elif len(row.ids) >= sampling.max_tokens or (
            len(row.request.prompt) + len(row.ids) >= self.context
        ):
            row.finish = "length"
        if row.finish is not None:
            self._finish(row)
        elif row.request.on_text is not None:
            self._tell(row, row.text[: len(row.text) - _open_end(row.text, sampling.stop)])

    def _finish(self, row: Row) -> None:
        request, sampling = row.request, row.request.sampling
        text: str = self.tokenizer.decode(
            row.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        cuts = [text.find(stop) for stop in sampling.stop if stop in text]
        if cuts:
            text, row.finish = text[: min(cuts)], "stop"
        self._tell(row, text)
        written = Written(
            text=text,
            ids=tuple(row.ids),
            finish_reason=row.finish or "stop",
            logprobs=tuple(row.logprobs) if sampling.logprobs else None,
        )
        request.add(row.index, written)

    def _tell(self, row: Row, certain: str) -> None:
        tell, piece = row.request.on_text, certain[row.told :]
        if tell is None or row.index != 0 or not piece:
            return
        row.told = len(certain)
        try:
            tell(piece)
        except Exception as error:  # its listener is gone
            row.request.fail(error)


def _forced(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """The logits with what the rows' grammars forbid at minus infinity."""
    if all(row.matcher is None for row in rows):
        return logits
    allowed = logits.clone()
    for place, row in enumerate(rows):
        if row.matcher is not None:
            row.matcher.mask(allowed[place])
    return allowed


def _vocabulary(model: PreTrainedModel) -> int:
    """Columns of the model's logits."""
    return int(model.get_output_embeddings().weight.shape[0])


def _rules_of(rows: Sequence[Row], on: Tensor) -> Rules:
    wanted = [row.request.sampling for row in rows]
    return Rules.of([(of.temperature, of.top_p, of.top_k or 0) for of in wanted], device=on.device)


def _open_end(text: str, stops: Sequence[str]) -> int:
    """How many last characters may be the beginning of a stop text."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


def end_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> frozenset[int]:
    """Every token that ends a turn: the generation configuration's, and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id] if token is not None)


def context_length(config: Any) -> int:
    """Tokens of prompt and text together: the context, or a sliding window that is shorter.

    Raises:
        ValueError: for models whose layers keep something else than keys and values.
    """
    config = config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if odd := kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(
            f"{config.model_type} has layers of kind {', '.join(sorted(odd))}; the weak model in "
            "this process runs attention layers only: serve this one with vLLM"
        )
    longest = getattr(config, "max_position_embeddings", None) or 2048
    window = getattr(config, "sliding_window", None)
    slides = getattr(config, "use_sliding_window", True) and "layer_types" not in vars(config)
    if window and (slides or "sliding_attention" in kinds):
        longest = min(longest, window)  # within the window, sliding attention is full attention
    return int(longest)
