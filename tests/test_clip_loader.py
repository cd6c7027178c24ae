"""The loader of clips: the same batches from any number of processes, bad pictures counted, nothing decoded twice."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from recordings import make_scene, write_dataset

from drivesim.errors import InputError
from drivesim.scene.clip_loader import clip_loader
from drivesim.scene.clips import SceneClips, collate
from drivesim.scene.nuscenes import open_dataset


class CountedFrames(list):
    """Pictures that count how often each is asked for."""

    def __init__(self, pictures):
        super().__init__(pictures)
        self.reads = [0] * len(self)

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two scenes in files; one picture of the first is cut off."""
    root = write_dataset(
        tmp_path_factory.mktemp("loader") / "set", make_scene(10), make_scene(7, log_name="reference-merge-2")
    )
    dataset = open_dataset(root)
    loaded = [dataset.load(name) for name in dataset.scene_names()]
    path = loaded[0].frames.paths[4]
    path.write_bytes(path.read_bytes()[:200])
    return loaded


def places(batch):
    return list(zip(batch.scene_names, batch.starts, strict=True))


def assert_equal(one, other):
    assert places(one) == places(other)
    for name in ("frames_BTHWC", "twist_BTA", "pose_BT3"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert [item.start for item in one.skipped] == [item.start for item in other.skipped]


def test_batches_are_those_of_scene_clips(scenes):
    clips = SceneClips(scenes, num_frames=3)
    loader = clip_loader(scenes, num_frames=3, batch_size=4, shuffle=False)
    batches = list(loader)
    assert len(loader) == 4
    assert sum(map(len, batches)) == 8 + 5 - 3
    good = [clips[row] for row in range(4, 8)]
    assert_equal(batches[1], collate(good))
    assert batches[0].cameras[0].equals(scenes[0].camera)
    assert [item.start for item in loader.skipped] == [2, 3, 4]
    assert scenes[0].frames.paths[4].name in loader.skipped[0].reason


def test_the_order_follows_seed_and_pass(scenes):
    settings = {"num_frames": 3, "batch_size": 4}
    loader = clip_loader(scenes, seed=3, **settings)
    passes = [[place for batch in loader for place in places(batch)] for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1])
    assert passes[0] != passes[1]
    again = clip_loader(scenes, seed=3, **settings)
    assert [place for batch in again for place in places(batch)] == passes[0]
    other = clip_loader(scenes, seed=4, **settings)
    assert [place for batch in other for place in places(batch)] != passes[0]


def test_processes_give_the_same_batches_and_their_death_is_said(scenes):
    settings = {"num_frames": 3, "batch_size": 2, "seed": 1}
    alone, together = clip_loader(scenes, **settings), clip_loader(scenes, num_workers=2, **settings)
    first = [list(alone), list(together)]
    for one, other in zip(*first, strict=True):
        assert_equal(one, other)
    kept = [batch.frames_BTHWC.clone() for batch in first[1]]
    for one, other in zip(alone, together, strict=True):  # the next pass overwrites no batch of the first
        assert_equal(one, other)
    assert all(torch.equal(batch.frames_BTHWC, frames) for batch, frames in zip(first[1], kept, strict=True))
    assert len(together.skipped) == len(alone.skipped) == 3
    next(iter(together))  # a pass that is left early disturbs nothing
    next(iter(alone))
    for one, other in zip(alone, together, strict=True):
        assert_equal(one, other)
    os.kill(together._loader._iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(InputError, match="one of 2 processes that read pictures was killed"):
        list(together)


def test_pictures_that_clips_share_are_read_once():
    scene = make_scene(20)
    counted = CountedFrames(scene.frames)
    loader = clip_loader([replace(scene, frames=counted)], num_frames=6, batch_size=4, shuffle=False)
    assert sum(map(len, loader)) == 15
    assert counted.reads == [1] * 20
    list(loader)
    assert counted.reads == [1] * 20
    few = clip_loader(
        [replace(scene, frames=counted)], num_frames=6, batch_size=4, shuffle=False, num_kept_frames=0
    )
    np.testing.assert_array_equal(next(iter(few)).frames_BTHWC[2, 1].numpy(), scene.frames[3])
    assert max(counted.reads) > 2


def test_data_without_a_good_clip_and_bad_settings_are_refused(scenes):
    loader = clip_loader(scenes[:1], num_frames=7, batch_size=1, stride=4)
    with pytest.raises(InputError, match=r"none of the clips can be read; .*truncated"):
        list(loader)
    for settings in ({"batch_size": 0}, {"batch_size": 1, "num_workers": -1}):
        with pytest.raises(InputError, match="batch_size >= 1"):
            clip_loader(scenes, num_frames=3, **settings)
    with pytest.raises(InputError, match="longest has 10"):
        clip_loader(scenes, num_frames=11, batch_size=1)


def test_no_room_in_shared_memory_is_said(scenes, monkeypatch):
    def full(_tensor):
        raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(InputError, match=r"no room for 5 batches .*lower batch_size"):
        clip_loader(scenes, num_frames=3, batch_size=2, num_workers=2)
