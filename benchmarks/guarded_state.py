"""What a policy may change of the process it drives in: each keeps its own, and nobody else sees it.

Policies of many kinds share a process, side by side in one batch. One that seeds a generator, turns gradients off or
changes the working directory finds that as it left it when it is asked again; the others, and the world, do not.
"""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch


@dataclass(kw_only=True, slots=True)
class ProcessState:
    """The global settings and generators as one policy left them."""

    python: Any  # generators
    numpy: Any
    pytorch: torch.Tensor
    num_threads: int  # of PyTorch
    dtype: torch.dtype  # PyTorch's default
    has_gradients: bool
    numpy_errors: dict[str, Any]
    warning_filters: list[Any]
    folder: str  # working directory; "" if it is gone

    @classmethod
    def present(cls) -> ProcessState:
        """Return what is in place now."""
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),  # noqa: NPY002  that of policies
            pytorch=torch.get_rng_state(),
            num_threads=torch.get_num_threads(),
            dtype=torch.get_default_dtype(),
            has_gradients=torch.is_grad_enabled(),
            numpy_errors=dict(np.geterr()),
            warning_filters=list(warnings.filters),
            folder=_working_folder(),
        )

    @classmethod
    def seeded(cls, seed: int) -> ProcessState:
        """Return the present settings with generators of their own."""
        state = cls.present()
        state.python = random.Random(seed).getstate()
        state.numpy = np.random.RandomState(seed % 2**32).get_state()
        state.pytorch = torch.Generator().manual_seed(seed).get_state()
        return state

    def install(self) -> None:
        """Put it in place."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.pytorch)
        if torch.get_num_threads() != self.num_threads:
            torch.set_num_threads(self.num_threads)
        if torch.get_default_dtype() != self.dtype:
            torch.set_default_dtype(self.dtype)
        torch.set_grad_enabled(self.has_gradients)
        np.seterr(**self.numpy_errors)
        if warnings.filters != self.warning_filters:
            warnings.resetwarnings()  # tells Python that they changed, as filling the list does not
            cast(list[Any], warnings.filters).extend(self.warning_filters)
        if self.folder and self.folder != _working_folder():
            with contextlib.suppress(OSError):  # a policy may have removed its own
                os.chdir(self.folder)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have it in place inside the block, keep it as it is afterwards, and put back what was there before."""
        outer = self.present()
        self.install()
        try:
            yield
        finally:
            now = self.present()
            for name in self.__slots__:
                setattr(self, name, getattr(now, name))
            outer.install()


def _working_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""
