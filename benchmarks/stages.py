"""What the parts of an imagined step cost, found by standing around the methods that make them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from drivesim.world_model.world_model import WorldModel

CONDITIONING, ROUNDS, COMMIT = "conditioning", "decoding_rounds", "commit"
DECODE, CAUSAL_DECODE, REST = "tokenizer_decode", "causal_decoder", "rest"
STAGES = (CONDITIONING, ROUNDS, COMMIT, DECODE, CAUSAL_DECODE, REST)
_ABSENT = object()


class StageClock:
    """Adds up what chosen methods of a model take while it is active; a stage inside a stage counts for the outer.

    Args:
        model: whose methods are watched.
        read: what is added up, a growing number such as the time.
    """

    def __init__(self, model: WorldModel, read: Callable[[], float] = time.perf_counter) -> None:
        self.stages: dict[str, float] = defaultdict(float)
        self.model_total = 0.0  # all of WorldModel.imagine
        self._read = read
        self._is_counting = False
        self._stage = ""
        self._methods: list[tuple[Any, str, str]] = [
            (model, "imagine", ""),
            (model, "outlook", CONDITIONING),
            (model, "complete", ROUNDS),
            (model, "remembered", COMMIT),
            (model.tokenizer, "decode", DECODE),
            (getattr(model, "causal_decoder", None), "forward", CAUSAL_DECODE),
        ]
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> StageClock:
        for owner, method, stage in self._methods:
            if hasattr(owner, method):  # a model may fold one stage into another
                self._originals.append((owner, method, vars(owner).get(method, _ABSENT)))
                setattr(owner, method, self._watched(getattr(owner, method), stage))
        return self

    def __exit__(self, *_: object) -> None:
        while self._originals:
            owner, method, original = self._originals.pop()
            if original is _ABSENT:
                delattr(owner, method)
            else:
                setattr(owner, method, original)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what happens inside the block; outside of such blocks nothing is counted."""
        self._is_counting = True
        try:
            yield
        finally:
            self._is_counting = False

    def totals(self, whole: float) -> dict[str, float]:
        """Return the amount of every stage, given that of the whole; what no stage took is the rest."""
        named = {stage: self.stages.get(stage, 0.0) for stage in STAGES[:-1]}
        return {**named, REST: whole - sum(named.values())}

    def _watched(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if not self._is_counting or self._stage:
                return function(*args, **kwargs)
            self._stage, before = stage, self._read()
            try:
                return function(*args, **kwargs)
            finally:
                self._stage = ""
                self._add(stage, self._read() - before)

        return watched

    def _add(self, stage: str, amount: float) -> None:
        if stage:
            self.stages[stage] += amount
        else:
            self.model_total += amount
