"""The best weights that a run was evaluated with, and when it is time to stop: little data is soon known by heart."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from drivesim.files import atomic_path
from drivesim.training.checkpoints import WEIGHTS_NAME
from drivesim.training.task import Evaluation

BEST_NAME = "best.safetensors"
HISTORY_NAME = "evaluations.json"


@dataclass(kw_only=True, slots=True)
class Measured:
    """One evaluation."""

    step: int
    value: float


@dataclass(kw_only=True, slots=True)
class History:
    """The evaluations of a run, and the best of them."""

    start: float  # before the first step
    evaluations: list[Measured] = field(default_factory=list)
    best: Measured | None = None  # None while nothing was better than the start

    @property
    def num_worse(self) -> int:
        """Return how many evaluations there were since the best one."""
        since = 0 if self.best is None else self.best.step
        return sum(measured.step > since for measured in self.evaluations)


class BestWeights:
    """Keeps ``best.safetensors`` in a run's folder: call it with the step and evaluation, as `fit` does.

    It survives a kill together with its run: steps that are done again are judged again, with the same result.

    Args:
        folder: of the run.
        figure: the metric that should grow.
        start: its value before the run.
        patience: evaluations in a row without a new best value after which it is enough.
    """

    def __init__(self, folder: Path, figure: str, *, start: float, patience: int) -> None:
        self._folder, self._figure, self._patience = folder, figure, patience
        self.history = read_history(folder) or History(start=start)

    def __call__(self, step: int, evaluation: Evaluation) -> bool:
        """Note an evaluation, keep its weights if they are the best so far, and say whether it is enough."""
        history, value = self.history, evaluation.metrics[self._figure]
        history.evaluations = [known for known in history.evaluations if known.step < step]
        history.evaluations.append(Measured(step=step, value=value))
        if value > (history.start if history.best is None else history.best.value):
            with atomic_path(self._folder / BEST_NAME) as temporary:
                shutil.copyfile(self._folder / WEIGHTS_NAME, temporary)
            history.best = Measured(step=step, value=value)
        with atomic_path(self._folder / HISTORY_NAME) as temporary:
            temporary.write_text(json.dumps(asdict(history), indent=1) + "\n", encoding="utf-8")
        return self.is_enough

    @property
    def is_enough(self) -> bool:
        """Tell whether nothing got better for so long that the run may end."""
        return self.history.num_worse >= self._patience


def read_history(folder: Path) -> History | None:
    """Return the evaluations noted in a run's folder; None if there are none."""
    path = folder / HISTORY_NAME
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    best = None if known["best"] is None else Measured(**known["best"])
    return History(
        start=known["start"], evaluations=[Measured(**each) for each in known["evaluations"]], best=best
    )
