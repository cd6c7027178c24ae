"""Streamed clips: the same as recordings, the same at any number of processes, and no process left behind."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from drivesim.errors import InputError
from drivesim.reference.behavior import record
from drivesim.reference.simulator import WorldSpec
from drivesim.training import stream as stream_module
from drivesim.training.balance import BalanceConfig
from drivesim.training.balanced_drives import BalancedDrives
from drivesim.training.clip_pool import ClipPool, PoolConfig
from drivesim.training.data import MOTION_ARRAYS, motion_arrays
from drivesim.training.drive_orders import DriveOrder
from drivesim.training.stream import ClipStream, StreamConfig

DEADLINE_S = 120


def config(**changes):
    settings = {"num_workers": 1, "frames_per_clip": 4, "num_queued_clips": 4}
    return StreamConfig(**(settings | {"balance": BalanceConfig(max_drives=1)} | changes))


def planned(count, *, seed_words=(3, 0, 1, 0x57EA), **changes):
    settings = config(**changes)
    order = DriveOrder(
        seed_words=list(seed_words),
        first_seed=settings.first_seed,
        last_seed=settings.last_seed,
        clips_per_drive=settings.clips_per_drive,
        frames_per_clip=settings.frames_per_clip,
        balance=settings.balance,
    )
    clips = BalancedDrives(order).clips(first_clip=0, worker=0, num_workers=1)
    return list(itertools.islice(clips, count))


def drawn(clip):
    frames = np.zeros((clip.num_frames, 128, 224, 3), np.uint8)
    return {"frames": frames} | clip.draw_into(frames)


def test_roads_for_validation_and_benchmarks_are_never_streamed():
    assert StreamConfig().last_seed == 889_999
    with pytest.raises(ValueError, match="889999"):
        StreamConfig(last_seed=890_000)
    with pytest.raises(ValueError, match="num_workers"):
        StreamConfig(num_workers=0)
    seeds = [WorldSpec.from_log_name(clip.origin.log_name).seed for clip in planned(6, first_seed=889_998)]
    assert set(seeds) <= {889_998, 889_999}


def test_a_clip_is_part_of_the_recording_of_its_origin():
    clip = planned(2, frames_per_clip=5)[1]
    origin = clip.origin
    recording = record(
        WorldSpec.from_log_name(origin.log_name),
        driver=origin.driver,
        driver_seed=origin.driver_seed,
        num_frames=origin.start + 5,
    )
    window = slice(origin.start, origin.start + 5)
    clip_arrays, motion = drawn(clip), motion_arrays(recording)
    np.testing.assert_array_equal(clip_arrays["frames"], np.stack(recording.scene.frames[window]))
    for name in MOTION_ARRAYS:
        np.testing.assert_array_equal(clip_arrays[name], motion[name][window])


def test_clips_do_not_depend_on_the_number_of_processes():
    with ClipStream(config(num_workers=2), batch_size=3, seed=3) as stream:
        batches = [next(stream) for _ in range(2)]
        assert len(multiprocessing.active_children()) >= 2
    expected = [drawn(clip) for clip in planned(6)]
    for name in ("frames", *MOTION_ARRAYS):
        streamed = np.concatenate([getattr(batch, name) for batch in batches])
        np.testing.assert_array_equal(streamed, np.stack([clip[name] for clip in expected]))
    assert batches[0].frames.shape == (3, 4, 128, 224, 3)
    assert batches[0].twist.dtype == np.float32
    assert [clip.origin for clip in planned(3)] == batches[0].origins


def test_a_resumed_stream_goes_on_with_the_same_clips():
    settings = config()
    with ClipStream(settings, batch_size=1, seed=3, start_step=3) as stream:
        resumed = next(stream)
    np.testing.assert_array_equal(resumed.frames[0], drawn(planned(4)[3])["frames"])


def test_training_processes_see_clips_of_their_own():
    first, second = (planned(2, seed_words=(3, rank, 2, 0x57EA)) for rank in (0, 1))
    assert not {clip.origin.log_name for clip in first} & {clip.origin.log_name for clip in second}


def test_the_queue_bounds_what_is_recorded_ahead():
    with ClipStream(config(num_queued_clips=2), batch_size=1) as stream:
        pipe = stream._workers[0]._connection
        slots = [pipe.recv().slot for _ in range(2)]
        assert sorted(slots) == [0, 1]
        assert not pipe.poll(1.0)  # no slot was handed back, so nothing more is recorded
        pipe.send(slots[0])
        assert pipe.recv().slot == slots[0]


def test_a_killed_process_is_said_and_the_others_end():
    with ClipStream(config(num_workers=2), batch_size=1) as stream:
        pids = [worker._process.pid for worker in stream._workers]
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(InputError, match=r"recorder-0.*SIGKILL.*lower num_workers"):
            list(itertools.islice(stream, 20))
    assert not any(is_alive(pid) for pid in pids)


def test_an_error_in_the_training_leaves_no_process():
    def train():
        with ClipStream(config(), batch_size=1) as stream:
            pids.extend(worker._process.pid for worker in stream._workers)
            raise KeyboardInterrupt

    pids = []
    with pytest.raises(KeyboardInterrupt):
        train()
    assert len(pids) == 1
    assert not is_alive(pids[0])


def test_a_dropped_stream_ends_its_processes():
    stream = ClipStream(config(), batch_size=1)
    stream.__enter__()
    pid = stream._workers[0]._process.pid
    del stream
    assert not is_alive(pid)


def test_processes_end_with_a_killed_training(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, time\n"
        "from drivesim.training.stream import ClipStream, StreamConfig\n"
        "if __name__ == '__main__':\n"
        "    with ClipStream(StreamConfig(num_workers=1, frames_per_clip=4), batch_size=1) as stream:\n"
        "        print(stream._workers[0]._process.pid, flush=True)\n"
        "        assert 'torch' not in sys.modules and 'highway_env' not in sys.modules\n"
        "        while True:\n"
        "            next(stream)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.stdout.close()
    process.kill()
    process.wait()
    deadline = time.monotonic() + DEADLINE_S
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(pid)


def test_a_failure_in_a_process_is_shown_whole():
    settings = config()
    settings.balance.max_drives = 0
    with (
        ClipStream(settings, batch_size=1) as stream,
        pytest.raises(RuntimeError, match=r"recorder-0 failed:(.|\n)*AssertionError"),
    ):
        next(stream)


def test_a_machine_without_the_reference_world_is_told_so(monkeypatch):
    monkeypatch.setattr(stream_module, "find_spec", lambda name: None if name == "highway_env" else object())
    with (
        pytest.raises(InputError, match="highway_env cannot be imported"),
        ClipStream(config(), batch_size=1),
    ):
        pass


def test_a_closed_stream_says_so():
    with pytest.raises(RuntimeError, match="not open"):
        next(ClipStream(config(), batch_size=1))


def test_pooled_clips_are_streamed_clips():
    pool = PoolConfig(num_clips=2, num_first_clips=2, new_clips_per_step=0.0, clips_per_part=2)
    held = ClipPool(stream=config(), pool=pool).per_step(start_step=0, seed=3, rank=0, world_size=1)
    clips = next(held)
    np.testing.assert_array_equal(clips.frames[1], drawn(planned(2)[1])["frames"])
    assert clips.frames_per_clip == 4
    assert len(clips) == 2
    held.close()
    assert not [child for child in multiprocessing.active_children() if "recorder" in child.name]


def is_alive(pid):
    """Tell whether a process runs; one that ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
