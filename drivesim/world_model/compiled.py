"""A world model whose transformer runs through ``torch.compile``: for a process that imagines many frames.

On a CPU the weights are frozen into the code, so that they are laid out for the processor once; that needs a C++
compiler. On CUDA the mode is "reduce-overhead", which replays a pass as one CUDA graph: a frame is some hundred small
kernels, whose launches are what it waits for. The passes allow it: their shapes are fixed by the number of rows (under
the compiler the age of a memory is a mask, not a branch), and they return a new memory instead of writing into the one
they are given. What a graph returns lies where its next replay writes, so it is copied out. That path could be tried on
no GPU so far, nor timed.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from drivesim.errors import InputError
from drivesim.world_model.stpt import STPT, FrameMemory
from drivesim.world_model.world_model import WorldModel

FRAME_PASSES = ("hidden_frame", "frame")
COMPILERS = ("g++", "clang++", "c++", "cl")
LEAVE = "leave is_compiled (or --compile) out"
MAX_ROW_COUNTS = (
    2  # different numbers of rows are compiled for: an environment's, and those of plans or of another one
)

_Passed = tuple[Tensor, list[FrameMemory]]


def compiled(model: WorldModel) -> WorldModel:
    """Return a copy of the model whose transformer is compiled at its first uses, which take a minute or more.

    It is for imagining alone: its weights must stay as they are. Numbers differ from those of ``model`` by rounding,
    so a drive is another one after a while, and a row of a batch need not equal a drive of its own to the last bit.
    Each number of rows is compiled for by itself, two at most; others run as they are, and so does what keeps
    gradients.

    Raises:
        InputError: the model's device cannot be compiled for; the message names what is missing.
    """
    device = next(model.parameters()).device
    require_compiler(device.type)
    model = copy.deepcopy(model)
    for name in FRAME_PASSES:
        setattr(model.stpt, name, CompiledPass(model.stpt, name))
    return model


def is_compiled(model: WorldModel) -> bool:
    """Tell whether the model is one of :func:`compiled`."""
    return isinstance(model.stpt.frame, CompiledPass)


def require_compiler(device_type: str) -> None:
    """Refuse to go on without what ``torch.compile`` calls: a C++ compiler for processors, Triton for CUDA.

    Raises:
        InputError: there is none.
    """
    if device_type == "cuda":
        if find_spec("triton") is None:
            raise InputError(
                f"compiling for CUDA needs Triton, which is not there: pip install triton, or {LEAVE}"
            )
        return
    if device_type != "cpu":
        raise InputError(f"compiling is for CPUs and CUDA, got device {device_type!r}; {LEAVE}")
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((named,) if named else COMPILERS)):
        wanted = f"CXX names {named!r}, which is not there" if named else "there is none"
        raise InputError(f"compiling needs a C++ compiler such as g++ and {wanted}; install one or {LEAVE}")


class CompiledPass:
    """One pass of the transformer, compiled for the first numbers of rows that it meets; stands in for the method."""

    def __init__(self, stpt: STPT, name: str) -> None:
        self._stpt, self._name = stpt, name
        self._compiled: Callable[..., _Passed] | None = None
        self._rows: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is derived: a copy of the model compiles for itself."""
        return self.__dict__ | {"_compiled": None, "_rows": set()}

    def __call__(
        self, token_ids_BS: Tensor, *inputs: Tensor | list[FrameMemory], **others: Tensor | None
    ) -> _Passed:
        """Run the pass; arguments and results are those of the method."""
        num_rows = len(token_ids_BS)
        is_known = num_rows in self._rows
        if torch.is_grad_enabled() or not (is_known or len(self._rows) < MAX_ROW_COUNTS):
            result: _Passed = self._method(token_ids_BS, *inputs, **others)
            return result
        given = [own_memory(part) if isinstance(part, list) else part for part in inputs]
        try:
            features_BSC, memory = self._run(token_ids_BS, *given, **others)
        except RuntimeError as error:  # what torch.compile raises derives from it
            if is_known or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"torch.compile failed here ({reason}); {LEAVE}") from error
        self._rows.add(num_rows)
        if features_BSC.device.type == "cuda":
            return features_BSC.clone(), own_memory(memory)
        return features_BSC, memory

    @property
    def _method(self) -> Callable[..., _Passed]:
        method: Callable[..., _Passed] = getattr(STPT, self._name).__get__(self._stpt)
        return method

    def _run(self, *inputs: Any, **others: Any) -> _Passed:
        is_cuda = inputs[0].device.type == "cuda"
        if self._compiled is None:
            options: dict[str, Any] = {"mode": "reduce-overhead"} if is_cuda else {}
            self._compiled = torch.compile(self._method, dynamic=False, **options)
        if is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
            return self._compiled(*inputs, **others)
        # Asked for by ``options`` of torch.compile, freezing comes too late: parameters are inputs by then.
        with torch._inductor.config.patch(freezing=True):
            return self._compiled(*inputs, **others)


def own_memory(memory: list[FrameMemory]) -> list[FrameMemory]:
    """Return a copy of which each tensor lies by itself, in order: what slides is compiled for but once."""
    names = ("low_FWRS", "keys", "values", "num_frames_F")
    return [
        FrameMemory(
            **{name: getattr(past, name).clone(memory_format=torch.contiguous_format) for name in names}
        )
        for past in memory
    ]
