"""A compiled world model imagines what it did before, up to rounding, and says what it lacks."""

import copy
import shutil

import pytest
import torch
from small_models import small_world_model
from torch import Tensor

from drivesim import shared_models
from drivesim.checkpoint import save_module
from drivesim.episode import EpisodeConfig
from drivesim.errors import InputError
from drivesim.world_model import compiled as compiled_module
from drivesim.world_model.compiled import CompiledPass, compiled, is_compiled, require_compiler
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.stpt import FrameMemory
from drivesim.world_model.world_model import WorldModel

NUM_STEPS = 3


@pytest.fixture
def model() -> WorldModel:
    return small_world_model().requires_grad_(False)


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Let torch.compile return what it is given, and note how it is asked."""
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    monkeypatch.setattr(compiled_module, "require_compiler", lambda device_type: None)
    return asked


def passes(model: WorldModel, num_rows: int = 1) -> list[Tensor]:
    """Return the features of one frame and of steps that follow it, by passes as the world model makes them."""
    dtype = model.stpt.memory_dtype
    numbers = torch.Generator().manual_seed(1)
    count = model.tokenizer.num_tokens

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=numbers).to(dtype)

    config = model.stpt.config
    memory = model.stpt.empty_memory(num_rows, torch.device("cpu"), dtype)
    ids = torch.randint(40, (num_rows, count), generator=numbers)
    guide = (num_rows, count, config.guide_dim)
    features = []
    with torch.inference_mode():
        is_masked = torch.zeros_like(ids, dtype=torch.bool)
        prompt = drawn(num_rows, model.config.num_action_tokens, config.dim)
        x, memory = model.stpt.frame(ids, is_masked, prompt, memory, guide_BSG=drawn(*guide))
        features.append(x)
        for _ in range(NUM_STEPS):
            prompts = drawn(2, num_rows, model.config.num_action_tokens, config.dim)
            x, memory = model.stpt.hidden_frame(ids, prompts, drawn(2, *guide), memory)
            features.append(x)
    return features


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Return the mean difference of features over their mean size, where that is largest."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a.float() - b.float()).abs().mean() / b.float().abs().mean()) for a, b in pairs)


def test_a_compiled_model_is_a_copy_with_other_passes(model: WorldModel, as_it_is: list) -> None:
    ours = compiled(model)
    assert is_compiled(ours)
    assert not is_compiled(model)
    assert all(torch.equal(a, b) for a, b in zip(passes(ours), passes(model), strict=True))
    assert as_it_is == [{"dynamic": False}] * 2
    assert ours.state_dict().keys() == model.state_dict().keys()


def test_a_few_numbers_of_rows_are_compiled_and_others_run_as_they_are(
    model: WorldModel, as_it_is: list
) -> None:
    ours = compiled(model)
    rows = []
    run = CompiledPass._run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            CompiledPass, "_run", lambda self, *a, **k: rows.append(len(a[0])) or run(self, *a, **k)
        )
        for num_rows in (2, 1, 3, 2):
            assert difference(passes(ours, num_rows), passes(model, num_rows)) < 1e-5
    assert set(rows) == {1, 2}


def test_what_keeps_gradients_is_not_compiled(model: WorldModel, as_it_is: list) -> None:
    ours = compiled(model)
    memory = ours.stpt.empty_memory(1, torch.device("cpu"), torch.float32)
    ids = torch.zeros(1, ours.tokenizer.num_tokens, dtype=torch.int64)
    prompt = torch.zeros(1, 2, ours.stpt.config.dim, requires_grad=True)
    guide = torch.zeros(1, len(ids[0]), ours.stpt.config.guide_dim)
    x, _ = ours.stpt.frame(ids, torch.zeros_like(ids, dtype=torch.bool), prompt, memory, guide_BSG=guide)
    assert x.requires_grad
    assert not as_it_is


def test_a_copy_of_a_compiled_model_has_passes_of_its_own(model: WorldModel, as_it_is: list) -> None:
    ours = compiled(model)
    passes(ours)
    other = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in other.stpt.layers.parameters():
            parameter.mul_(2)
    assert difference(passes(other), passes(ours)) > 0.1
    assert all(torch.equal(a, b) for a, b in zip(passes(ours), passes(model), strict=True))


def test_memory_lies_by_itself_and_the_given_one_stays() -> None:
    slid = FrameMemory(
        low_FWRS=torch.arange(12.0).view(1, 3, 2, 2)[:, 1:],
        keys=torch.arange(48.0).view(1, 1, 2, 4, 3, 2)[:, :, :, 1:],
        values=torch.arange(48.0).view(1, 1, 2, 4, 3, 2)[:, :, :, 1:],
        num_frames_F=torch.tensor([3]),
    )
    first, second = compiled_module.own_memory([slid, slid])
    assert first.keys.is_contiguous()
    assert not slid.keys.is_contiguous()
    assert torch.equal(first.keys, slid.keys)
    assert first.keys.data_ptr() != second.keys.data_ptr()
    assert first.num_frames_F.data_ptr() != second.num_frames_F.data_ptr()


def test_compiling_asks_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    require_compiler("cpu")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        require_compiler("cpu")
    monkeypatch.delenv("CXX")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(
        InputError, match=r"such as g\+\+ and there is none; install one or leave is_compiled"
    ):
        require_compiler("cpu")
    with pytest.raises(InputError, match="g\\+\\+"):
        load_world_model("drive-tiny", is_compiled=True)
    monkeypatch.setattr(compiled_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install triton"):
        require_compiler("cuda")
    with pytest.raises(InputError, match="'mps'"):
        require_compiler("mps")


def test_a_compilation_that_fails_is_one_sentence(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object, **options: object) -> object:
        def fail(*args: object, **kwargs: object) -> None:
            raise RuntimeError("no header Python.h\nand much more")

        return fail

    monkeypatch.setattr(compiled_module, "require_compiler", lambda device_type: None)
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"\(no header Python.h\); leave is_compiled"):
        passes(compiled(model))


def test_an_episode_asks_for_compiled_weights(model: WorldModel, as_it_is: list, tmp_path) -> None:
    path = tmp_path / "small.safetensors"
    save_module(model, path, kind="world-model", config=model.config)
    models = {
        asks: shared_models.models_of(EpisodeConfig(weights=str(path), is_compiled=asks), None, None)[0]
        for asks in (False, True)
    }
    assert {asks: is_compiled(made) for asks, made in models.items()} == {False: False, True: True}
    given, _ = shared_models.models_of(EpisodeConfig(is_compiled=True, hazard_head=""), model, None)
    assert given is model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
def test_compiled_passes_agree_with_those_that_are_not(
    model: WorldModel, dtype: torch.dtype, tolerance: float
) -> None:
    from torch._dynamo.utils import counters

    model = model.to(dtype)
    counters.clear()
    ours = passes(compiled(model))
    assert counters["stats"]["unique_graphs"] == 2  # one of each pass: what slides is compiled once
    assert not counters["graph_break"]
    assert difference(ours, passes(model)) < tolerance
