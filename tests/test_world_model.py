"""WorldModel: states are values, seeds decide, actions and history matter."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import small_world_model

from drivesim.checkpoint import save_module, tensor_hash
from drivesim.scene.road_map import ground_of, road_map
from drivesim.scene.types import DrivableArea, front_camera
from drivesim.world_model.conditioning import LOOK_DIM, agents_dim
from drivesim.world_model.places import Places, road_dim
from drivesim.world_model.pretrained import load_world_model, new_inputs
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.world_model import WorldModel
from drivesim.world_model.world_state import ROW_TENSORS, joined


@pytest.fixture(scope="module")
def model():
    return small_world_model()


@pytest.fixture
def state(model, rng):
    frames = torch.from_numpy(rng.integers(0, 256, (2, 4, 128, 224, 3), dtype=np.uint8))
    return model.observe(frames, torch.full((2, 4, 2), 0.3), front_camera())


TWIST = torch.tensor([[8.0, 0.0], [8.0, 0.0]])


def test_imagine_returns_a_frame_and_leaves_the_state_alone(model, state):
    first = model.imagine(state, TWIST)
    assert first.frames_BHWC.shape == (2, 128, 224, 3)
    assert first.frames_BHWC.dtype == torch.uint8
    assert ((first.confidence_B > 0) & (first.confidence_B <= 1)).all()
    model.imagine(first.state, TWIST)
    again = model.imagine(state, TWIST)
    assert torch.equal(first.token_ids_BS, again.token_ids_BS)
    assert state.num_frames_B.tolist() == [4, 4]
    assert first.state.num_frames_B.tolist() == [5, 5]


def test_a_batch_equals_its_rows(model, state, rng):
    frames = torch.from_numpy(rng.integers(0, 256, (1, 2, 128, 224, 3), dtype=np.uint8))
    twist = torch.full((1, 2, 2), 0.3)
    alone = model.imagine(model.observe(frames, twist, front_camera()), TWIST[:1])
    pair = model.observe(torch.cat([frames, 255 - frames]), twist.repeat(2, 1, 1), front_camera())
    assert torch.equal(model.imagine(pair, TWIST).token_ids_BS[:1], alone.token_ids_BS)


def test_the_seed_decides_what_is_drawn(model, state):
    sampler = SamplerConfig(temperature=1.0)

    def draw(seed):
        return model.imagine(
            state, TWIST, generator=torch.Generator().manual_seed(seed), sampler=sampler
        ).token_ids_BS

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_the_action_changes_the_frame(model, state):
    left = model.imagine(state, torch.tensor([[8.0, 0.6], [8.0, 0.6]])).token_ids_BS
    right = model.imagine(state, torch.tensor([[8.0, -0.6], [8.0, -0.6]])).token_ids_BS
    assert not torch.equal(left, right)


@pytest.mark.parametrize("bad", [[[8.0, float("nan")]] * 2, [[8.0, 0.0]]])
def test_impossible_twists_are_refused(model, state, bad):
    with pytest.raises(ValueError, match="twist must be finite"):
        model.imagine(state, torch.tensor(bad))


def test_wrong_histories_are_refused(model):
    with pytest.raises(ValueError, match=r"uint8 \(B, T, 128, 224, 3\)"):
        model.observe(torch.zeros(1, 2, 64, 64, 3, dtype=torch.uint8), torch.zeros(1, 2, 2), front_camera())
    with pytest.raises(ValueError, match="twist"):
        model.observe(torch.zeros(1, 2, 128, 224, 3, dtype=torch.uint8), torch.zeros(1, 3, 2), front_camera())


def on_roads(*half_widths_m):
    """Return cars in the middle of straight roads along x; None is a place without a map."""
    maps = []
    for half_width_m in half_widths_m:
        if half_width_m is None:
            maps.append(None)
            continue
        mask = np.zeros((200, 400), bool)
        mask[100 - int(2 * half_width_m) : 100 + int(2 * half_width_m)] = True
        maps.append(road_map(DrivableArea(mask=mask, resolution_m=0.5, origin_xy_m=np.zeros(2))))
    pose = np.tile([40.0, 50.0, 0.0], (len(maps), 1))
    return Places.begin(maps, ground_of(front_camera()), pose)


@pytest.fixture
def history(rng):
    frames = torch.from_numpy(rng.integers(0, 256, (1, 3, 128, 224, 3), dtype=np.uint8)).expand(
        2, -1, -1, -1, -1
    )
    return frames, torch.tensor([6.0, 0.1]).expand(2, 3, 2)


def test_the_map_changes_the_frame_and_each_row_has_its_own(history):
    model = small_world_model()
    torch.nn.init.normal_(model.causal_decoder.out.weight, std=0.1)
    state = model.observe(*history, front_camera(), places=on_roads(4.0, None))
    is_known = state.guide_BSG[..., -LOOK_DIM - road_dim(16) // 3 - agents_dim(model.tokenizer) - 1]
    assert is_known[0].sum() > 0
    assert is_known[1].sum() == 0
    with_map, without = model.imagine(state, TWIST).frames_BHWC
    assert not torch.equal(with_map, without)
    blind = model.imagine(model.observe(*history, front_camera()), TWIST).frames_BHWC
    assert torch.equal(blind[1], without)


def test_the_look_is_that_of_the_first_frame(model, history):
    frames, twist = history
    state = model.imagine(model.observe(frames, twist, front_camera()), TWIST).state
    assert torch.equal(state.look_BU, model.observe(frames[:, :1], twist[:, :1], front_camera()).look_BU)
    look_BSU = state.guide_BSG[..., : -agents_dim(model.tokenizer)][..., -LOOK_DIM:]
    assert torch.equal(look_BSU[:, 5], state.look_BU)
    dark = model.observe(frames // 4, twist, front_camera()).look_BU
    assert (dark[:, :3] < state.look_BU[:, :3]).all()
    assert (dark[:, 3:6] < state.look_BU[:, 3:6]).all()


def test_places_are_those_of_the_last_frame_and_move_on(model, history):
    places = on_roads(4.0, 6.0)
    state = model.observe(*history, front_camera(), places=places)
    np.testing.assert_allclose(state.places.pose, places.pose)
    after = model.imagine(state, TWIST).state
    np.testing.assert_allclose(after.places.pose[:, :2], [[40 + 8 / 6, 50.0]] * 2)
    np.testing.assert_allclose(state.places.pose, places.pose)


def test_a_place_for_every_row_is_needed(model, history):
    with pytest.raises(ValueError, match="2 rows of frames need as many places, got 1"):
        model.observe(*history, front_camera(), places=on_roads(4.0))


def of_row(state, index):
    return [getattr(state, name)[index] for name in ROW_TENSORS] + [
        getattr(layer, name)[index]
        for layer in state.memory
        for name in ("low_FWRS", "keys", "values", "num_frames_F")
    ]


def test_rows_are_taken_forked_and_joined(model, history):
    state = model.observe(*history, front_camera(), places=on_roads(4.0, 6.0))
    swapped = state.rows([1, 0, 1])
    for index, source in enumerate([1, 0, 1]):
        assert all(
            torch.equal(a, b) for a, b in zip(of_row(swapped, index), of_row(state, source), strict=True)
        )
        assert swapped.places.maps[index] is state.places.maps[source]
    both = joined([state.rows([0]), state.rows([1])])
    assert len(both) == 2
    for index in range(2):
        assert all(torch.equal(a, b) for a, b in zip(of_row(both, index), of_row(state, index), strict=True))
    assert len(state.rows([1]).fork(5)) == 5
    for wrong in (lambda: state.fork(3), lambda: state.rows([0]).fork(0), lambda: joined([])):
        with pytest.raises(ValueError, match="at least"):
            wrong()


@pytest.mark.parametrize("noise_memory", [0.0, 0.9])
def test_a_row_of_its_own_age_and_chance_is_what_it_would_be_alone(rng, noise_memory):
    """Rows that began at different times, each with its own generator, do not touch each other."""
    model = small_world_model().to(torch.bfloat16)
    frames = torch.from_numpy(rng.integers(0, 256, (2, 4, 128, 224, 3), dtype=np.uint8))
    sampler = SamplerConfig(temperature=1.0, temperature_rise=3, noise_memory=noise_memory)
    alone = [model.observe(frames[i : i + 1], torch.full((1, 4, 2), 0.3), front_camera()) for i in (0, 1)]
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]

    def step(state, chance):
        return model.imagine(state, TWIST[: len(state)], generator=chance, sampler=sampler)

    older = step(step(alone[0], generators[:1]).state, generators[:1]).state
    chance = [generator.get_state() for generator in generators]
    together = joined([older, alone[1]])
    assert together.num_imagined_B.tolist() == [2, 0]
    for _ in range(3):
        imagined = step(together, generators)
        together = imagined.state
    for index, state in enumerate([older, alone[1]]):
        generator = torch.Generator()
        generator.set_state(chance[index])
        for _ in range(3):
            expected = step(state, [generator])
            state = expected.state
        assert torch.equal(imagined.frames_BHWC[index], expected.frames_BHWC[0])
        assert all(torch.equal(a, b) for a, b in zip(of_row(together, index), of_row(state, 0), strict=True))


def test_a_generator_for_every_row_is_needed(model, state):
    with pytest.raises(ValueError, match="2 rows need as many generators, got 1"):
        model.imagine(state, TWIST, generator=[torch.Generator()], sampler=SamplerConfig(temperature=1.0))


def test_imagined_frames_are_counted_from_the_last_recorded_one(model, state):
    assert state.num_imagined_B.tolist() == [0, 0]
    sampler = SamplerConfig(temperature=1.0, temperature_rise=2)
    draw = lambda state, seed: model.imagine(  # noqa: E731
        state, TWIST, generator=torch.Generator().manual_seed(seed), sampler=sampler
    )
    first = draw(state, 0)
    assert torch.equal(first.token_ids_BS, draw(state, 1).token_ids_BS)
    assert first.state.num_imagined_B.tolist() == [1, 1]
    assert not torch.equal(draw(first.state, 0).token_ids_BS, draw(first.state, 1).token_ids_BS)


def test_noise_is_remembered_until_a_frame_is_shown(model, state):
    assert not state.noise_BHW.any()
    sampler = SamplerConfig(temperature=1.0, noise_memory=0.9)
    generator = torch.Generator().manual_seed(0)
    first = model.imagine(state, TWIST, generator=generator, sampler=sampler).state
    then = model.imagine(first, TWIST, generator=generator, sampler=sampler).state
    assert first.noise_BHW.shape == (2, 32, 56)
    likeness = torch.corrcoef(torch.stack([first.noise_BHW.flatten(), then.noise_BHW.flatten()]))[0, 1]
    assert likeness > 0.5
    shown = model.shown(then, torch.zeros(2, 128, 224, 3, dtype=torch.uint8), model.outlook(then, TWIST))
    forgetful = model.imagine(then, TWIST, generator=generator, sampler=SamplerConfig(temperature=1.0)).state
    assert not shown.noise_BHW.any()
    assert not forgetful.noise_BHW.any()


@pytest.mark.parametrize("age", [0, 1])
def test_weights_made_before_agents_or_markings_were_known_draw_the_same_picture(tmp_path, history, age):
    model = small_world_model()
    torch.nn.init.normal_(model.causal_decoder.out.weight, std=0.1)
    path = tmp_path / "old.safetensors"
    with torch.no_grad():
        for name, num_new in new_inputs(model)[age].items():
            model.get_parameter(name)[:, -num_new:] = 0
    save_module(model, path, kind=WorldModel.kind, config=model.config, dtype=torch.float32)
    expected = model.imagine(model.observe(*history, front_camera(), places=on_roads(4.0, None)), TWIST)
    tensors, header = load_file(path), safe_open(path, framework="pt").metadata()
    for name, num_new in new_inputs(model)[age].items():
        tensors[name] = tensors[name][:, :-num_new].contiguous()
    save_file(tensors, path, metadata=header | {"sha256": tensor_hash(tensors)})
    old = load_world_model(path, dtype=torch.float32)
    found = old.imagine(old.observe(*history, front_camera(), places=on_roads(4.0, None)), TWIST)
    assert torch.equal(found.frames_BHWC, expected.frames_BHWC)
