"""Windows of scenes: right frames with right twists, and bad pictures left out and named."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import make_scene, write_dataset
from torch.utils.data import DataLoader

from drivesim.errors import InputError
from drivesim.scene.clips import Clip, ClipBatch, SceneClips, SkippedClip, collate
from drivesim.scene.nuscenes import open_dataset


def test_windows_cover_each_scene() -> None:
    clips = SceneClips([make_scene(10), make_scene(3), make_scene(8)], num_frames=4, stride=3)
    assert clips.windows == [(0, 0), (0, 3), (0, 6), (2, 0), (2, 3)]


def test_batch_holds_frames_and_the_motion_into_them() -> None:
    scene = make_scene(12)
    loader = DataLoader(SceneClips([scene], num_frames=5, stride=2), batch_size=3, collate_fn=collate)
    batch = next(iter(loader))
    assert isinstance(batch, ClipBatch)
    assert batch.frames_BTHWC.shape == (3, 5, 128, 224, 3)
    assert batch.frames_BTHWC.dtype == torch.uint8
    assert batch.starts == [0, 2, 4]
    assert len(batch) == 3
    assert np.array_equal(batch.frames_BTHWC[1, 3].numpy(), scene.frames[5])
    assert batch.twist_BTA.dtype == torch.float32
    np.testing.assert_allclose(
        batch.twist_BTA[1, 3], [scene.speed_mps[5], scene.yaw_rate_radps[5]], rtol=1e-6
    )
    np.testing.assert_allclose(batch.pose_BT3[2, 0], [*scene.xy_m[4], scene.yaw_rad[4]])
    assert batch.to("cpu").cameras[0] == scene.camera


def test_bad_picture_is_skipped_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "set", make_scene(8)))
    scene = dataset.load("scene-2001")
    path = scene.frames.paths[5]  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:300])
    clips = SceneClips([scene], num_frames=2)
    with caplog.at_level(logging.WARNING):
        batch = collate([clips[index] for index in range(len(clips))])
    assert batch.starts == [0, 1, 2, 3, 6]
    assert [(item.scene_name, item.start) for item in batch.skipped] == [("scene-2001", 4), ("scene-2001", 5)]
    assert all(path.name in item.reason for item in batch.skipped)
    assert path.name in caplog.text
    assert isinstance(clips[0], Clip)
    assert isinstance(clips[4], SkippedClip)
    with pytest.raises(InputError, match=path.name):
        collate([clips[4], clips[5]])


def test_worker_processes_read_files(tmp_path: Path) -> None:
    scene = open_dataset(write_dataset(tmp_path / "set", make_scene(6))).load("scene-2001")
    clips = SceneClips([scene], num_frames=3)
    loader = DataLoader(
        clips, batch_size=4, collate_fn=collate, num_workers=1, multiprocessing_context="fork"
    )
    assert [len(batch) for batch in loader] == [4]


def test_refusals() -> None:
    with pytest.raises(InputError, match="longest has 6"):
        SceneClips([make_scene(6)], num_frames=7)
    with pytest.raises(InputError, match="at least 1"):
        SceneClips([make_scene(6)], num_frames=0)
    other = make_scene(6)
    other.rate_hz = 12.0
    with pytest.raises(InputError, match="differ in rate"):
        SceneClips([make_scene(6), other], num_frames=2)
    with pytest.raises(InputError, match="empty"):
        collate([])
