"""Fixtures that every test file may use."""

import numpy as np
import pytest
import torch


@pytest.fixture
def rng():
    """Return a random generator of fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded_torch():
    """Start every test from the same global seed."""
    torch.manual_seed(0)
