"""The general world: what is drawn from it, what is said of it, and what its pixels promise."""

import re
from collections import Counter

import numpy as np
import pytest

from drivesim.general_world.captions import (
    CAMERA_WORDS,
    MAX_WORDS,
    MOTION_WORDS,
    SETTING_WORDS,
    SHAPE_WORDS,
    canonical_caption,
    caption_of,
)
from drivesim.general_world.content import (
    ASPECT,
    CLIP_FRAMES,
    MAX_BACKDROP_SATURATION,
    MIN_OBJECT_SATURATION,
    MIN_OBJECT_VALUE,
    CameraMotion,
    Color,
    Motion,
    ObjectSpec,
    SceneSpec,
    Setting,
    Shape,
    Texture,
)
from drivesim.general_world.renderer import render
from drivesim.general_world.sampling import Split, combinations, draw_prompt_scene, draw_scene, is_held_out
from drivesim.general_world.shapes import object_patch
from drivesim.general_world.trajectory import MAX_OBJECTS, camera_pose, object_boxes, pose, progress

NUM_DRAWS = 2000


@pytest.fixture(scope="module")
def seen_scenes():
    rng = np.random.default_rng(0)
    return [draw_scene(rng, Split.SEEN) for _ in range(NUM_DRAWS)]


@pytest.fixture(scope="module")
def held_out_scenes():
    rng = np.random.default_rng(1)
    return [draw_scene(rng, Split.HELD_OUT) for _ in range(NUM_DRAWS // 2)]


def saturation(frames):
    rgb = frames.astype(np.float64)
    return (rgb.max(axis=-1) - rgb.min(axis=-1)) / rgb.max(axis=-1)


# --------------------------------------------------------------------------------------------- sampling


def test_seen_scenes_never_show_a_held_out_pair(seen_scenes):
    shown = {(thing.color, thing.shape, thing.motion) for scene in seen_scenes for thing in scene.objects}
    assert not any(is_held_out(*triple) for triple in shown)


def test_held_out_scenes_always_do(held_out_scenes):
    for scene in held_out_scenes:
        assert scene.main is not None
        assert is_held_out(scene.main.color, scene.main.shape, scene.main.motion)


def test_a_share_of_the_pairs_of_each_kind_is_held_out(seen_scenes):
    things = [thing for scene in seen_scenes for thing in scene.objects]
    kinds = {
        "color, shape": (len(Color) * len(Shape), {(thing.color, thing.shape) for thing in things}),
        "color, motion": (len(Color) * len(Motion), {(thing.color, thing.motion) for thing in things}),
        "shape, motion": (len(Shape) * len(Motion), {(thing.shape, thing.motion) for thing in things}),
    }
    for name, (num_pairs, shown) in kinds.items():
        assert 0.1 < 1.0 - len(shown) / num_pairs < 0.15, name


def test_every_value_occurs_often(seen_scenes):
    mains = [scene.main for scene in seen_scenes if scene.main is not None]
    for values, kind in (
        ([thing.color for thing in mains], Color),
        ([thing.shape for thing in mains], Shape),
        ([thing.motion for thing in mains], Motion),
        ([thing.texture for thing in mains], Texture),
        ([scene.setting for scene in seen_scenes], Setting),
        ([scene.camera for scene in seen_scenes], CameraMotion),
    ):
        counts = Counter(values)
        assert all(counts[value] > 0.02 * NUM_DRAWS for value in kind), counts


def test_most_scenes_have_one_object_and_a_still_camera(seen_scenes):
    counts = Counter(len(scene.objects) for scene in seen_scenes)
    assert 0.7 < counts[1] / NUM_DRAWS < 0.82
    assert 0.12 < counts[2] / NUM_DRAWS < 0.25
    moving = sum(scene.camera is not CameraMotion.STILL for scene in seen_scenes)
    assert 0.13 < moving / NUM_DRAWS < 0.25


def test_the_camera_is_still_while_an_object_travels(seen_scenes):
    travelling = [
        scene for scene in seen_scenes if scene.main is not None and scene.main.motion.is_directional
    ]
    assert len(travelling) > 0.4 * NUM_DRAWS
    assert all(scene.camera is CameraMotion.STILL for scene in travelling)


def test_objects_travel_far_and_stay_mostly_in_the_frame(seen_scenes):
    for scene in seen_scenes:
        if scene.main is None:
            continue
        if scene.main.motion.is_directional:
            assert scene.main.amount >= 0.25
        for frame in range(CLIP_FRAMES):
            view = camera_pose(scene.camera, progress(frame))
            seen = view.seen(pose(scene.main, progress(frame)))
            reach = 0.4 * seen.extent
            assert reach / ASPECT < seen.x < 1.0 - reach / ASPECT
            assert reach < seen.y < 1.0 - reach


@pytest.mark.parametrize("split", list(Split))
def test_prompts_are_single_objects_that_travel_before_a_still_camera(split):
    rng = np.random.default_rng(2)
    for _ in range(200):
        scene = draw_prompt_scene(rng, split)
        (thing,) = scene.objects
        assert thing.motion.is_directional
        assert scene.camera is CameraMotion.STILL
        assert is_held_out(thing.color, thing.shape, thing.motion) == (split is Split.HELD_OUT)


def test_combinations_split_all_there_are():
    seen, held_out = combinations(Split.SEEN), combinations(Split.HELD_OUT)
    assert not set(seen) & set(held_out)
    assert len(seen) + len(held_out) == len(Color) * len(Shape) * 4
    assert {what.motion for what in held_out} == {what.motion for what in seen}
    scene = draw_prompt_scene(np.random.default_rng(0), Split.SEEN, held_out[0])
    assert scene.main is not None
    assert (scene.main.color, scene.main.shape, scene.main.motion) == (
        held_out[0].color,
        held_out[0].shape,
        held_out[0].motion,
    )


def test_draws_repeat_with_their_seed():
    one, other = (draw_scene(np.random.default_rng(5), Split.SEEN) for _ in range(2))
    assert one == other


def test_impossible_objects_are_refused():
    with pytest.raises(ValueError, match="extent"):
        ObjectSpec(color=Color.RED, shape=Shape.STAR, motion=Motion.STILL, extent=0.0)
    with pytest.raises(ValueError, match="amount"):
        ObjectSpec(color=Color.RED, shape=Shape.STAR, motion=Motion.LEFT, amount=-1.0)


# ---------------------------------------------------------------------------------------------- captions


def is_named(caption, phrases):
    return any(re.search(rf"\b{phrase}\b", caption) for phrase in phrases)


def test_captions_are_short_plain_lower_case(seen_scenes):
    rng = np.random.default_rng(0)
    for index, scene in enumerate(seen_scenes):
        caption = caption_of(scene, rng, is_image=index % 2 == 0)
        assert re.fullmatch(r"[a-z]+( [a-z]+|, [a-z]+)*", caption), caption
        assert len(caption.split()) <= MAX_WORDS


def test_captions_name_the_main_object(seen_scenes):
    rng = np.random.default_rng(0)
    complete = []
    for scene in seen_scenes:
        if scene.main is None:
            continue
        caption = caption_of(scene, rng)
        has_color = is_named(caption, [scene.main.color.value])
        has_shape = is_named(caption, SHAPE_WORDS[scene.main.shape])
        complete.append(has_color and has_shape and is_named(caption, MOTION_WORDS[scene.main.motion]))
        others = [color for color in Color if color not in {thing.color for thing in scene.objects}]
        assert not is_named(caption, [color.value for color in others])
    assert 0.86 < np.mean(complete) < 0.95


def test_captions_name_settings_and_camera_work_often(seen_scenes):
    rng = np.random.default_rng(0)
    scenes = [scene for scene in seen_scenes if scene.main is not None]
    moving = [scene for scene in scenes if scene.camera is not CameraMotion.STILL]
    named = [is_named(caption_of(scene, rng), SETTING_WORDS[scene.setting]) for scene in scenes]
    assert 0.5 < np.mean(named) < 0.9
    named = [is_named(caption_of(scene, rng), CAMERA_WORDS[scene.camera]) for scene in moving]
    assert 0.75 < np.mean(named) < 0.95


def test_captions_of_images_tell_no_motion(seen_scenes):
    rng = np.random.default_rng(0)
    verbs = [word for words in MOTION_WORDS.values() for word in words]
    for scene in seen_scenes:
        caption = caption_of(scene, rng, is_image=True)
        assert not is_named(caption, [*verbs, "camera", "panning", "zooming"])


def test_empty_scenes_are_named_by_their_setting():
    scene = SceneSpec(setting=Setting.SEA, camera=CameraMotion.ZOOM_IN)
    captions = {caption_of(scene, np.random.default_rng(seed)) for seed in range(30)}
    assert all("sea" in caption for caption in captions)
    assert len(captions) > 4


def test_prompts_have_one_plain_sentence():
    assert canonical_caption(Color.RED, Shape.STAR, Motion.LEFT) == "a red star slides left"
    assert canonical_caption(Color.ORANGE, Shape.RING, Motion.UP) == "an orange ring rises"


# ---------------------------------------------------------------------------------------------- pictures


def test_a_scene_is_always_drawn_alike():
    rng = np.random.default_rng(3)
    for _ in range(8):
        scene = draw_scene(rng, Split.SEEN)
        frames = render(scene, 3, 64, 112)
        assert frames.shape == (3, 64, 112, 3)
        assert frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, render(scene, 3, 64, 112))


def test_one_frame_is_the_first_of_the_clip():
    rng = np.random.default_rng(4)
    for _ in range(5):
        scene = draw_prompt_scene(rng, Split.SEEN)
        difference = render(scene, 1)[0].astype(int) - render(scene, 4)[0].astype(int)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("setting", list(Setting))
def test_settings_are_muted(setting):
    for seed, camera in enumerate(CameraMotion):
        frames = render(SceneSpec(setting=setting, camera=camera, seed=seed), 2)
        assert saturation(frames).max() <= MAX_BACKDROP_SATURATION
        assert frames.std() > 3.0


@pytest.mark.parametrize("texture", list(Texture))
def test_objects_are_vivid_to_their_rims(texture):
    rng = np.random.default_rng(6)
    for color in Color:
        for shape in Shape:
            thing = ObjectSpec(color=color, shape=shape, motion=Motion.STILL, texture=texture)
            patch = object_patch(thing, 60, rng)
            inside = np.round(patch[patch[..., 3] > 0.99][:, :3]).astype(np.uint8)
            assert len(inside) > 100
            assert saturation(inside).min() >= MIN_OBJECT_SATURATION
            assert inside.max(axis=-1).min() / 255.0 >= MIN_OBJECT_VALUE


def test_vivid_pixels_are_those_of_the_object():
    thing = ObjectSpec(
        color=Color.BLUE, shape=Shape.SQUARE, motion=Motion.RIGHT, extent=0.4, x=0.25, amount=0.5
    )
    frames = render(SceneSpec(setting=Setting.HILLS, objects=[thing]))
    is_vivid = saturation(frames) > 0.5
    columns = [np.argwhere(mask)[:, 1].mean() / 224 for mask in is_vivid]
    np.testing.assert_allclose(columns, [0.25 + 0.5 * progress(frame) for frame in range(16)], atol=0.01)


def test_the_second_object_hides_the_main_one_where_it_should():
    main = ObjectSpec(color=Color.RED, shape=Shape.CIRCLE, motion=Motion.STILL)
    second = ObjectSpec(color=Color.GREEN, shape=Shape.SQUARE, motion=Motion.STILL)
    scene = SceneSpec(setting=Setting.STUDIO, objects=[main, second])
    assert render(scene, 1)[0, 64, 112].argmax() == 0
    scene.is_main_behind = True
    assert render(scene, 1)[0, 64, 112].argmax() == 1


def test_near_ground_moves_more_than_the_sky_while_the_camera_pans():
    frames = render(SceneSpec(setting=Setting.HILLS, camera=CameraMotion.PAN_LEFT, seed=3)).astype(float)
    change = np.abs(frames[1:] - frames[:-1]).mean(axis=(0, 2, 3))
    assert change[60:].mean() > 2.0 * change[:30].mean()


def test_nothing_is_drawn_without_frames_or_room():
    scene = SceneSpec(setting=Setting.SEA)
    with pytest.raises(ValueError, match="got 0 of"):
        render(scene, 0)
    with pytest.raises(ValueError, match="16 pixels"):
        render(scene, 1, 8, 8)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_hold_nearly_all_of_the_objects_and_little_else(seed):
    scene = draw_scene(np.random.default_rng(seed), Split.SEEN)
    scene.objects = scene.objects[:1]
    empty = SceneSpec(setting=scene.setting, seed=scene.seed, camera=scene.camera)
    boxes = object_boxes(scene, 16)
    assert boxes.shape == (16, MAX_OBJECTS, 4)
    assert np.isnan(boxes[:, len(scene.objects) :]).all()
    changed = (render(scene).astype(int) != render(empty)).any(axis=-1)
    for is_object, box in zip(changed, boxes[:, 0], strict=True):
        left, top, right, bottom = (box * np.array([224, 128, 224, 128])).round().clip(0).astype(int)
        inside = is_object[top:bottom, left:right]
        assert inside.sum() >= 0.95 * is_object.sum()
        assert inside.mean() > 0.25
