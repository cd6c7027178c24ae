"""How often captioned items are drawn in training, by the words of their captions: what is hard to draw, more often."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.training.captioned_set import Captions
from drivesim.training.row_draws import RowDraws


def weights_of(captions: Captions, word_weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Return what each item weighs (N,): the largest weight of a word that any of its captions has, 1 without one.

    Args:
        captions: for every item its wordings.
        word_weights: by whole word or phrase; the case of letters does not matter. Words that no caption has change
            nothing: an experiment may name those of other data.
    """
    weight_N = np.ones(len(captions))
    patterns = [(_pattern(word), weight) for word, weight in word_weights.items()]
    for item, wordings in enumerate(captions):
        found = [weight for pattern, weight in patterns if any(map(pattern.search, wordings))]
        weight_N[item] = max(found, default=1.0)
    return weight_N


def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)


class WeightedRows:
    """Draws items in proportion to their weights."""

    def __init__(self, weight_N: NDArray[np.float64]) -> None:
        """Take the weights (N,), all above 0."""
        self._cumulative_N = torch.from_numpy(np.cumsum(weight_N) / weight_N.sum())

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._cumulative_N)

    def draw(self, draws: RowDraws) -> Tensor:
        """Return the number of an item for every row, (B,)."""
        place_B = draws.uniform((len(draws),)).double()
        return torch.searchsorted(self._cumulative_N, place_B, right=True).clamp_max(len(self) - 1)
