"""The readers tell colour, shape, direction and camera work of clips, also of blurred and noisy ones."""

import cv2
import numpy as np
import pytest

from benchmarks import reading_accuracy
from benchmarks.readers import Reading, read_camera, read_clip, read_color, read_direction, read_shape
from drivesim.general_world.content import (
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
from drivesim.general_world.sampling import Split, draw_prompt_scene, draw_scene

NUM_CLIPS = 24


def blurred(frames):
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])


def speckled(frames):
    rng = np.random.default_rng(0)
    soft = blurred(frames) + rng.normal(0.0, 8.0, frames.shape)
    is_speckle = rng.random(frames.shape[:3]) < 0.003
    soft[is_speckle] = rng.uniform(0.0, 255.0, (is_speckle.sum(), 3))
    return np.clip(soft, 0.0, 255.0).astype(np.uint8)


def untouched(frames):
    return frames


def is_right(scene, reading):
    (thing,) = scene.objects
    return [
        reading.color is thing.color,
        reading.shape is thing.shape,
        reading.direction is thing.motion,
        reading.camera is scene.camera,
    ]


@pytest.mark.parametrize("split", list(Split))
@pytest.mark.parametrize("spoilt", [untouched, blurred, speckled])
def test_prompts_are_read_back(split, spoilt):
    rng = np.random.default_rng(11)
    scenes = [
        draw_prompt_scene(rng, split) for _ in range(NUM_CLIPS if spoilt is untouched else NUM_CLIPS // 2)
    ]
    right = np.array([is_right(scene, read_clip(spoilt(render(scene)))) for scene in scenes])
    color, shape, direction, camera = right.mean(axis=0)
    assert min(color, shape, direction) >= 0.97
    assert camera >= 0.85


def test_camera_work_is_read_back():
    rng = np.random.default_rng(12)
    scenes = []
    while len(scenes) < NUM_CLIPS // 2:
        scene = draw_scene(rng, Split.SEEN)
        if len(scene.objects) < 2 and scene.camera is not CameraMotion.STILL:
            scenes.append(scene)
    assert np.mean([read_camera(render(scene)) is scene.camera for scene in scenes]) >= 0.9


@pytest.mark.parametrize("motion", [motion for motion in Motion if not motion.is_directional])
def test_motion_on_the_spot_has_no_direction(motion):
    amount = {Motion.GROWS: 1.8, Motion.SHRINKS: 0.6, Motion.STILL: 0.0}.get(motion, 0.2)
    thing = ObjectSpec(
        color=Color.PURPLE, shape=Shape.STAR, motion=motion, texture=Texture.STRIPED, amount=amount
    )
    frames = render(SceneSpec(setting=Setting.FOREST, objects=[thing]))
    assert read_direction(frames) is None
    assert read_shape(frames) is Shape.STAR


@pytest.mark.parametrize("texture", list(Texture))
@pytest.mark.parametrize("color", list(Color))
def test_textures_leave_the_color(color, texture):
    thing = ObjectSpec(color=color, shape=Shape.RING, motion=Motion.STILL, texture=texture, extent=0.26)
    frames = render(SceneSpec(setting=Setting.SUNSET, objects=[thing], seed=1), 2)
    assert read_color(frames) is color


def test_nothing_is_read_where_nothing_is():
    frames = render(SceneSpec(setting=Setting.CITY))
    reading = read_clip(frames)
    assert reading == Reading(color=None, shape=None, direction=None, camera=CameraMotion.STILL)
    assert read_camera(np.full_like(frames, 128)) is None
    assert read_camera(frames[:1]) is None


def test_what_is_no_clip_is_refused():
    with pytest.raises(ValueError, match="a clip is uint8"):
        read_color(np.zeros((16, 128, 224, 3), dtype=np.float32))


def test_a_table_says_what_the_readers_are_worth(capsys):
    reading_accuracy.main(["--clips=2"])
    lines = capsys.readouterr().out.splitlines()
    for split in Split:
        rows = [line for line in lines if split.value in line]
        assert [share for line in rows for share in ("1/1", "1/2", "1/3") if share in line] == [
            "1/1",
            "1/2",
            "1/3",
        ]
        assert "1.000" in rows[0]
