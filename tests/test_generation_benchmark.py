"""The generation benchmark: a generator of true clips gets full marks, one of wrong clips gets none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_video_model

from benchmarks import generation, generation_measure
from benchmarks.clip_speed import AUTOREGRESSIVE, DIFFUSION, OURS, mean_over
from benchmarks.decoders.frame_decoder import num_parameters
from benchmarks.decoders.whole_clips import ClipDiffusion, TokenByToken
from benchmarks.generation_cases import (
    OPPOSITES,
    camera_cases,
    draw_mask,
    flip_cases,
    inpainting_cases,
    prompt_cases,
)
from benchmarks.generation_figures import add_flip_rows, generate_flips, hits_of
from benchmarks.generation_inpainting import (
    Inpainting,
    add_inpainting_rows,
    filled_from_border,
    filled_with_mean,
    masked_psnr_db,
)
from benchmarks.generation_measure import Extent, draw_cases, measure, only_prompts
from benchmarks.generation_pipeline import GenerationPipeline
from benchmarks.generation_sheets import RIGHT_RGB, WRONG_RGB, flip_sheet, marked, prompt_sheet
from benchmarks.readers import Reading
from benchmarks.report import Report, run_command
from drivesim.checkpoint import save_module, weights_hash
from drivesim.errors import InputError
from drivesim.general_world.captions import CAMERA_WORDS, canonical_caption
from drivesim.general_world.content import (
    DIRECTIONS,
    CameraMotion,
    Color,
    Motion,
    ObjectSpec,
    SceneSpec,
    Setting,
    Shape,
)
from drivesim.general_world.renderer import render
from drivesim.general_world.sampling import Combination, Split, draw_prompt_scene, is_held_out
from drivesim.generate import GenerateConfig
from drivesim.world_model.clip_completion import GuidanceConfig
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.video_model import VideoModel

SEED = 900_000
EXTENT = Extent(
    num_prompts=12,
    num_flips=4,
    num_inpaintings=2,
    num_camera_prompts=4,
    num_rounds_prompts=2,
    num_guidance_prompts=2,
)
MEANING = {
    canonical_caption(color, shape, motion): Combination(color=color, shape=shape, motion=motion)
    for color in Color
    for shape in Shape
    for motion in Motion
}
OPPOSITE = {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])}


def after(value, step=1):
    members = list(type(value))
    return members[(members.index(value) + step) % len(members)]


class OracleGenerator:
    """Renders the truth; knows the cases by their seeds."""

    def __init__(self, extent):
        cases = draw_cases(extent, first_seed=SEED, height_px=128, width_px=224)
        self.by_seed = {case.seed: case for case in [*cases.flips, *cases.inpaintings]}

    def shown(self, what: Combination) -> Combination:
        return what

    def text_to_video(self, prompt, config):
        sentence, _, camera = prompt.partition(", ")
        what = self.shown(MEANING[sentence])
        if not camera:
            return render(draw_prompt_scene(np.random.default_rng(config.seed), Split.SEEN, what))
        thing = ObjectSpec(color=what.color, shape=what.shape, motion=what.motion)
        [motion] = [motion for motion, words in CAMERA_WORDS.items() if camera in words]
        return render(SceneSpec(setting=Setting.HILLS, objects=[thing], camera=motion, seed=config.seed))

    def image_to_video(self, image, prompt, config):
        clip = render(self.by_seed[config.seed].scene_of(self.shown(MEANING[prompt]).motion))
        assert (clip[0] == image).all()
        return clip

    def inpaint(self, frames, mask, prompt, config):
        true = render(self.by_seed[config.seed].scene)
        assert (frames[:, ~mask] == true[:, ~mask]).all()
        assert (frames[:, mask] == frames[0, mask][0]).all()  # nothing shows through
        return true ^ mask[None, ..., None]

    def reconstruct(self, frames):
        return frames ^ 2


class WrongGenerator(OracleGenerator):
    """Shows another colour, another shape and the opposite direction."""

    def shown(self, what):
        return Combination(
            color=after(what.color), shape=after(what.shape), motion=OPPOSITE.get(what.motion, what.motion)
        )


class PromptBlindGenerator(OracleGenerator):
    """Goes the same way whatever the prompt says."""

    def image_to_video(self, image, prompt, config):
        return render(self.by_seed[config.seed].scene)


def pipeline_with(generator, **size) -> GenerationPipeline:
    config = GenerateConfig(sampler=SamplerConfig(num_decode_steps=4), guidance=GuidanceConfig(scale=2.0))
    return GenerationPipeline(
        generator=generator, config=config, **{"num_frames": 16, "height_px": 128, "width_px": 224} | size
    )


@pytest.fixture(scope="module")
def right():
    return measure(pipeline_with(OracleGenerator(EXTENT)), EXTENT, first_seed=SEED)


@pytest.fixture(scope="module")
def wrong():
    extent = replace(only_prompts(EXTENT), num_prompts=8, num_flips=4)
    return measure(pipeline_with(WrongGenerator(extent)), extent, first_seed=SEED)


class LossyGenerator(OracleGenerator):
    """A tokenizer that keeps nothing."""

    def reconstruct(self, frames):
        return np.full_like(frames, 128)


def test_true_clips_get_full_marks(right):
    result = right.report.as_dict()
    for suffix in ("seen", "held_out", "ceiling", "tokenizer"):
        assert result[f"color_accuracy_{suffix}"] == 1.0
        assert result[f"shape_accuracy_{suffix}"] >= 0.85
        assert result[f"direction_accuracy_{suffix}"] == 1.0
        assert result[f"all_three_accuracy_{suffix}"] == result[f"shape_accuracy_{suffix}"]
    assert result["image_prompt_flip_accuracy"] == result["image_prompt_both_ways_accuracy"] == 1.0
    assert result["camera_still_share"] >= 0.75
    assert result["camera_accuracy"] >= 0.75
    assert result["inpainting_outside_identical"] is True
    assert result["inpainting_gain_over_mean_db"] > 10
    assert result["first_frame_psnr_gap_db"] == pytest.approx(100 - 20 * np.log10(255 / 2))


def test_shares_carry_wilsons_interval(right):
    low, high = right.report.as_dict()["color_accuracy_seen_interval"]
    assert low == pytest.approx(1 / (1 + 1.96**2 / 6), abs=1e-3)  # 6 of 6
    assert high == 1.0


def test_wrong_clips_get_none(wrong):
    result = wrong.report.as_dict()
    for split in ("seen", "held_out"):
        assert result[f"color_accuracy_{split}"] == 0.0
        assert result[f"shape_accuracy_{split}"] <= 0.25
        assert result[f"direction_accuracy_{split}"] == 0.0
        assert result[f"all_three_accuracy_{split}"] == 0.0
    assert result["image_prompt_flip_accuracy"] == 0.0
    assert result["direction_accuracy_ceiling"] == 1.0  # the instruments are not to blame


def test_ceiling_is_true_clips_as_rendered_and_tokenizer_after_it():
    extent = replace(
        only_prompts(EXTENT), num_prompts=2, num_flips=2, num_inpaintings=1, num_camera_prompts=1
    )
    result = measure(pipeline_with(LossyGenerator(extent)), extent, first_seed=SEED).report.as_dict()
    for name in ("color_accuracy", "direction_accuracy", "image_prompt_flip_accuracy", "camera_accuracy"):
        assert (result[f"{name}_ceiling"], result[f"{name}_tokenizer"]) == (1.0, 0.0), name
    assert result["camera_still_share_tokenizer"] == 0.0
    assert result["inpainting_psnr_db_tokenizer"] < 25


def test_only_prompts_leaves_the_rest_out():
    options = generation.parse(["--only-prompts", "--num-prompts=6", "--out=o.json"])
    extent = generation.extent_of(options)
    assert (extent.num_seeds, extent.speed) == (6, None)
    assert (extent.num_rounds_prompts, extent.num_guidance_prompts) == (0, 0)


def test_parts_with_nothing_to_do_are_left_out(wrong):
    result = wrong.report.as_dict()
    assert not any(name.startswith(("inpainting", "camera_accuracy", "accuracy_by")) for name in result)


def test_a_generator_blind_to_the_prompt_goes_one_way_from_every_image():
    flips = generate_flips(
        pipeline_with(PromptBlindGenerator(EXTENT)), flip_cases(2, first_seed=SEED + EXTENT.num_prompts)
    )
    report = Report(title="flips")
    add_flip_rows(report, flips)
    result = report.as_dict()
    assert result["image_prompt_flip_accuracy"] == 0.5
    assert result["image_prompt_both_ways_accuracy"] == 0.0
    assert [flip.follows for flip in flips] == [[True, False]] * 2
    assert all(len(row) == 7 for row in flip_sheet(flips))


def test_tables_reuse_the_clips_of_the_pipelines_own_settings(right):
    rounds, guidance = right.sweeps
    assert list(rounds.clips) == [1, 2, 4, 6, 10, 16, 30]
    assert rounds.clips[4.0][0] is right.clips[0]
    assert guidance.clips[2.0][1] is right.clips[6]
    assert [case.split for case in rounds.cases] == [Split.SEEN, Split.HELD_OUT]
    result = right.report.as_dict()
    assert result["color_accuracy_by_rounds"]["30"] == result["color_accuracy_by_guidance"]["0"] == 1.0
    assert result["accuracy_by_rounds_curve"]["step"] == [1, 2, 4, 6, 10, 16, 30]
    assert set(result["seconds_by_guidance"]) == {"0", "1", "2", "4", "8"}


def test_what_cannot_be_read_is_wrong():
    nothing = Reading(color=None, shape=None, direction=None, camera=None)
    what = Combination(color=Color.RED, shape=Shape.STAR, motion=Motion.LEFT)
    red = Reading(color=Color.RED, shape=None, direction=Motion.RIGHT, camera=None)
    hits = hits_of([nothing, red], [what, what])
    assert {name: values.tolist() for name, values in hits.items()} == {
        "color": [False, True],
        "shape": [False, False],
        "direction": [False, False],
    }


# --------------------------------------------------------------------------------------------------- cases


@pytest.mark.parametrize("split", Split)
def test_prompts_are_of_their_split_and_all_different(split):
    cases = prompt_cases(split, 60, first_seed=SEED)
    assert len({case.prompt for case in cases}) == 60
    for case in cases:
        what, thing = case.combination, case.scene.objects[0]
        assert what.motion in DIRECTIONS
        assert is_held_out(what.color, what.shape, what.motion) == (split is Split.HELD_OUT)
        assert (thing.color, thing.shape, thing.motion) == (what.color, what.shape, what.motion)
        assert case.scene.camera is CameraMotion.STILL


def test_cases_are_those_of_their_seeds():
    first, again = (flip_cases(3, first_seed=SEED) for _ in range(2))
    assert first == again != flip_cases(3, first_seed=SEED + 1)
    seeds = draw_cases(EXTENT, first_seed=SEED, height_px=64, width_px=96)
    used = [
        case.seed for part in (seeds.prompts, seeds.flips, seeds.inpaintings, seeds.cameras) for case in part
    ]
    assert used == list(range(SEED, SEED + EXTENT.num_seeds))


def test_the_first_image_tells_nothing_of_the_way():
    for case in flip_cases(8, first_seed=SEED):
        one, other = (render(case.scene_of(motion)) for motion in case.motions)
        assert (one[0] == other[0]).all()
        assert (one[-1] != other[-1]).any()
        thing = case.scene.objects[0]
        assert 0.5 in (thing.x, thing.y)
        assert thing.amount > 0.3
        assert OPPOSITE[case.motions[0]] is case.motions[1]
        assert not any(is_held_out(thing.color, thing.shape, motion) for motion in case.motions)


def test_camera_prompts_name_every_way_to_move():
    cases = camera_cases(4, first_seed=SEED)
    assert {case.scene.camera for case in cases} == set(CameraMotion) - {CameraMotion.STILL}
    assert all(case.prompt.endswith(CAMERA_WORDS[case.scene.camera][0]) for case in cases)


def test_masks_lie_over_the_way_of_the_object():
    for case in inpainting_cases(6, first_seed=SEED, height_px=128, width_px=224):
        assert 0.08 < case.mask.mean() < 0.23
        clip = render(case.scene)
        background = render(SceneSpec(setting=case.scene.setting, seed=case.scene.seed))
        assert (clip[8] != background[8])[case.mask].any()


def test_masks_stay_inside_the_frame(rng):
    corner = ObjectSpec(color=Color.RED, shape=Shape.STAR, motion=Motion.STILL, x=1.0, y=0.0)
    mask = draw_mask(corner, 64, 96, rng)
    assert mask[0, -1]
    assert mask.sum() == mask.any(axis=0).sum() * mask.any(axis=1).sum() > 0


# ---------------------------------------------------------------------------------------------- inpainting


def test_psnr_under_a_mask_sees_nothing_else(rng):
    true = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:5, 3:6] = True
    shown = np.where(mask[None, ..., None], true, 255 - true)
    assert masked_psnr_db(shown, true, mask) == 100.0
    off_by_ten = np.clip(true.astype(int), 10, 245).astype(np.uint8)
    expected_db = 10 * np.log10(255**2 / 100)
    assert masked_psnr_db(off_by_ten + 10, off_by_ten, mask) == pytest.approx(expected_db)


def test_fillings_take_nothing_from_under_the_mask(rng):
    frames = rng.integers(0, 256, (2, 16, 20, 3), dtype=np.uint8)
    mask = np.zeros((16, 20), dtype=bool)
    mask[0:6, 8:20] = True  # at two edges of the frame
    other = np.where(mask[None, ..., None], 0, frames).astype(np.uint8)
    for fill in (filled_with_mean, filled_from_border):
        assert (fill(frames, mask) == fill(other, mask)).all()
        assert (fill(frames, mask)[:, ~mask] == frames[:, ~mask]).all()


def test_the_border_is_drawn_on_inwards():
    frames = np.zeros((1, 9, 9, 3), dtype=np.uint8)
    frames[:, :, :3] = 200
    mask = np.zeros((9, 9), dtype=bool)
    mask[:, 3:] = True  # the only border is at the left
    assert (filled_from_border(frames, mask) == 200).all()
    mask = np.zeros((9, 9), dtype=bool)
    mask[:, 3:6] = True
    assert (filled_from_border(frames, mask)[0, 4, 3:6, 0] == [150, 100, 50]).all()


def test_pixels_changed_outside_the_mask_are_noticed(rng):
    [case] = inpainting_cases(1, first_seed=SEED, height_px=32, width_px=48)
    true = rng.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    result = true.copy()
    result[:, ~case.mask] ^= 1
    one = Inpainting(
        case=case,
        true=true,
        given=true,
        result=result,
        psnr_db={"model": 20.0, "mean": 15.0, "repeat": 18.0, "tokenizer": 25.0},
    )
    report = Report(title="inpainting")
    add_inpainting_rows(report, [one])
    result = report.as_dict()
    assert result["inpainting_outside_identical"] is False
    assert (result["inpainting_gain_over_mean_db"], result["inpainting_gain_over_repeat_db"]) == (5.0, 2.0)


# -------------------------------------------------------------------------------------------------- sheets


def test_readings_are_marked_right_and_wrong(right):
    frame = np.zeros((32, 48, 3), dtype=np.uint8)
    label, shown = marked("color", Color.RED, frame, is_right=True)
    assert (label, tuple(shown[-1, 0])) == ("color red: right", RIGHT_RGB)
    label, shown = marked("shape", None, frame, is_right=False)
    assert (label, tuple(shown[-1, 0])) == ("shape nothing: wrong", WRONG_RGB)
    rows = prompt_sheet(right.cases, right.clips, Split.HELD_OUT)
    assert len(rows) == 6
    assert [label.split()[0] for label, _ in rows[0][1:]] == ["color", "shape", "direction"]


# --------------------------------------------------------------------------------------------- whole runs


def saved(model: VideoModel, path: Path) -> str:
    save_module(model, path, kind="video-model", config=model.config)
    return str(path)


KEYS = {
    *[
        f"{what}_accuracy_{suffix}"
        for what in ("color", "shape", "direction")
        for suffix in ("seen", "held_out", "ceiling", "tokenizer")
    ],
    *[
        f"{what}_{suffix}"
        for what in ("image_prompt_flip_accuracy", "camera_accuracy", "camera_still_share")
        for suffix in ("ceiling", "tokenizer")
    ],
    "inpainting_psnr_db_tokenizer",
    *("image_prompt_flip_accuracy", "first_frame_psnr_gap_db", "camera_accuracy"),
    *("inpainting_gain_over_mean_db", "inpainting_gain_over_repeat_db", "inpainting_outside_identical"),
    *("seconds_per_clip", "speedup_vs_diffusion30", "speedup_vs_token_by_token", "clip_seconds"),
    *("accuracy_by_rounds", "seconds_by_rounds", "accuracy_by_guidance", "seconds_by_guidance"),
}


def test_a_run_writes_all_figures_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(generation_measure, "ROUNDS", (1, 2))
    monkeypatch.setattr(generation, "FULL", Extent(speed=generation_measure.QUICK.speed))
    out = tmp_path / "run" / "generation.json"
    counts = ["--num-prompts=2", "--num-flips=2", "--num-inpaintings=1", "--num-camera-prompts=1"]
    weights = saved(small_video_model(), tmp_path / "tiny.safetensors")
    ways = ["--num-rounds-prompts=1", "--rounds=2", "--guidance=1", "--threads=1"]
    generation.main(["--weights", weights, *counts, *ways, "--out", str(out)])
    result = json.loads(out.read_text())
    assert set(result) >= KEYS
    assert not any(name.endswith("true_clips") for name in result)
    assert (result["rounds"], result["guidance"], result["first_seed"]) == (2, 1.0, SEED)
    assert (result["scenes"], result["extent"]) == ("held out", "chosen on the command line")
    assert result["weights_sha256"] == weights_hash(weights)
    assert set(result["clip_seconds"]) == {OURS, DIFFUSION, AUTOREGRESSIVE}
    assert "extrapolated" in result["clip_seconds_method"][AUTOREGRESSIVE]
    assert result["first_frame_psnr_gap_db"] == pytest.approx(0.0, abs=1e-6)
    assert result["inpainting_outside_identical"] is True
    page = out.with_suffix(".html").read_text()
    assert page.count('class="sheet"') == 6
    assert page.count('alt="plot"') == 2
    for suffix in (".png", ".gif"):
        assert out.with_suffix(suffix).stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "no-such"], "no weights named"),
        (["--weights", "drive-tiny"], "video-model"),
        (["--num-prompts", "3"], "even number"),
        (["--num-flips", "5"], "even number"),
        (["--num-inpaintings", "-1"], "negative"),
        (["--num-rounds-prompts", "-1"], "negative"),
        (["--seed", "5"], "not held out"),
        (["--threads", "0"], "--threads"),
        (["--rounds", "0"], "--rounds"),
        (["--guidance", "-1"], "--guidance"),
    ],
)
def test_what_has_no_meaning_ends_with_a_sentence(tmp_path, capsys, arguments, message):
    weights = saved(small_video_model(), tmp_path / "tiny.safetensors")
    given = ["--weights", weights, *arguments, "--out", str(tmp_path / "out.json")]
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: generation.main(given))
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_model_of_single_pictures_is_refused():
    with pytest.raises(InputError, match="single pictures"):
        generation.pipeline_of(small_video_model(num_frames=1), rounds=None, guidance=None, weights="tiny")


# --------------------------------------------------------------------------------------- ways of decoding


def test_a_clip_by_diffusion_is_a_clip():
    diffusion = ClipDiffusion(small_video_model())
    clip = diffusion.clip("a red star slides left", scale=1.0, num_steps=2)
    assert clip.dtype == torch.uint8
    assert clip.shape == (4, 64, 96, 3)


def test_token_by_token_has_the_same_budget_and_sees_its_past():
    model = small_video_model()
    gpt = TokenByToken(model, num_prompt_tokens=3).eval()
    assert num_parameters(gpt.layers) == pytest.approx(num_parameters(model.stpt.layers), rel=0.05)
    assert gpt.num_tokens == 4 * 4 * 6
    caches, drawn = gpt.empty_caches(2), []
    token_B = torch.zeros(2, dtype=torch.int64)
    for _ in range(5):
        token_B = gpt.next_token(token_B, caches, scale=2.0)
        drawn.append(token_B.tolist())
    assert [cache.length for cache in caches] == [5] * len(caches)
    assert all(one == other for one, other in drawn)  # both halves go on with the guided token
    assert gpt.seconds_per_token(10**6, scale=0.0, count=2) > 0


def test_the_mean_over_places_weighs_their_distance():
    assert mean_over(np.array([0, 10, 30]), np.array([1.0, 1.0, 3.0])) == pytest.approx(5 / 3)
