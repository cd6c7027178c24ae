"""The folder of one closed-loop run: who may write into it, what of the run is in it, the table of its episodes.

An episode's files (arrays, film, last of all its json) appear whole or not at all, so a killed run can go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.closed_loop_episodes import EpisodeJob, EpisodeResult, World
from benchmarks.drive_contents import CONTENTS, said_of_contents
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.metrics.scores import SCORE_NAMES, EpisodeScores
from drivesim.run_lock import LOCK, locked

CONFIGURATION, EPISODES, SUMMARY, PAGE, TABLE = (
    "run.json",
    "episodes",
    "summary.json",
    "report.html",
    "episodes.parquet",
)


class RunFolder:
    """Where a run writes; made by `opened`."""

    def __init__(
        self, path: Path, *, policy_contents: Mapping[str, str] | None = None, flag: str = "--out"
    ) -> None:
        """Name the folder, the contents of policies that come from files, and the flag that named the folder.

        Nothing is read or written yet.
        """
        self.path, self._flag = path, flag
        self._contents = dict(policy_contents or {})
        self._episodes = path / EPISODES

    @property
    def is_finished(self) -> bool:
        """Tell whether the run has come to its end."""
        return all((self.path / name).is_file() for name in (SUMMARY, TABLE, PAGE))

    def has(self, job: EpisodeJob) -> bool:
        """Tell whether an episode was driven."""
        return self._file(job, ".json").is_file()

    def save(self, result: EpisodeResult) -> None:
        """Keep a driven episode."""
        self._episodes.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._file(result.job, ".npz")) as path:
            np.savez_compressed(path, **result.arrays)
        if result.video:
            with atomic_path(self._file(result.job, ".mp4")) as path:
                path.write_bytes(result.video)
        with atomic_path(self._file(result.job, ".json")) as path:
            contents = {"policy_contents": self._contents.get(result.job.policy, "")}
            path.write_text(json.dumps(_plain(result) | contents, indent=1) + "\n", encoding="utf-8")

    def load(self, job: EpisodeJob) -> EpisodeResult:
        """Return a driven episode.

        Raises:
            InputError: its files were changed or damaged, or its policy's were changed since it was driven.
        """
        try:
            plain = json.loads(self._file(job, ".json").read_text(encoding="utf-8"))
            contents = str(plain.get("policy_contents", ""))
            with np.load(self._file(job, ".npz"), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            film = self._file(job, ".mp4")
            result = EpisodeResult(
                job=job,
                world=World(plain["world"]),
                scores=EpisodeScores.from_dict(plain["scores"]),
                end_reason=plain["end_reason"],
                failure=plain["failure"],
                arrays=arrays,
                video=film.read_bytes() if film.is_file() else b"",
                rate_hz=plain["rate_hz"],
                policy_s=plain["policy_s"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"episode {job.id} in {self.path} cannot be read ({error}); "
                f"remove {self._file(job, '.json')} and {self._again} to drive it again"
            ) from error
        self._require_contents(job, contents)
        return result

    def _require_contents(self, job: EpisodeJob, noted: str) -> None:
        """Refuse a drive whose policy came from other files, or that did not note them."""
        if noted == self._contents.get(job.policy, ""):
            return
        said = (
            f"drives of {job.policy} with other contents: a file was changed since, or not counted then"
            if noted
            else f"drives of {job.policy} that did not note the contents of its files, so they may be of others"
        )
        raise InputError(f"{self.path} holds {said}; name a new folder for {self._flag}")

    @property
    def _again(self) -> str:
        return "add --resume" if self._flag == "--out" else "start again"

    def _file(self, job: EpisodeJob, suffix: str) -> Path:
        return self._episodes / f"{job.id}{suffix}"

    def _require_fit(self, configuration: Mapping[str, Any], *, resumes: bool) -> None:
        """Refuse a folder that holds something else than this run.

        Raises:
            InputError: another run, or an unfinished one without ``--resume``.
        """
        known = self.path / CONFIGURATION
        if not known.is_file() or not any(self._episodes.glob("*.json")):
            return  # a run that was there ended before it had anything
        before = _read_configuration(known, flag=self._flag)
        noted, configuration = {CONTENTS: {}} | before, {CONTENTS: {}} | dict(configuration)
        changed = sorted(
            (key for key in {*noted, *configuration} if noted.get(key) != configuration.get(key)),
            key=lambda key: (key == CONTENTS, key),
        )
        if changed:
            key = changed[0]
            said = f"a run with another {key} ({before.get(key)}, not {configuration.get(key)})"
            if key == CONTENTS:
                said = said_of_contents(before.get(key), configuration[key])
            raise InputError(f"{self.path} holds {said}; name a new folder for {self._flag}")
        if not (resumes or self.is_finished):
            raise InputError(
                f"{self.path} holds an unfinished run of this configuration; add --resume to go on"
            )


@contextmanager
def opened(
    path: Path,
    configuration: Mapping[str, Any],
    *,
    resumes: bool,
    policy_contents: Mapping[str, str] | None = None,
    flag: str = "--out",
) -> Iterator[RunFolder]:
    """Open a folder for a run, alone, and note the run's configuration in it.

    Args:
        path: made if needed.
        configuration: everything that the results depend on, as json has it.
        resumes: go on with an unfinished run.
        policy_contents: hashes of the policies that come from files; kept with their episodes.
        flag: that named the folder, for what is said.

    Raises:
        InputError: the folder cannot be written, another process writes into it, or it holds something else.
    """
    is_run = (path / CONFIGURATION).is_file() or not path.is_dir()
    if not is_run and any(entry.name != LOCK for entry in path.iterdir()):
        raise InputError(f"{path} is not empty and holds no run; name a new folder for {flag}")
    with locked(path, flag=flag):
        folder = RunFolder(path, policy_contents=policy_contents, flag=flag)
        plain = json.loads(json.dumps(configuration))
        folder._require_fit(plain, resumes=resumes)
        with atomic_path(path / CONFIGURATION) as temporary:
            temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        yield folder


def _read_configuration(path: Path, *, flag: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); name a new folder for {flag}") from error
    return found if isinstance(found, dict) else {}


def _plain(result: EpisodeResult) -> dict[str, Any]:
    return {
        "policy": result.job.policy,
        "scene": result.job.scene,
        "seed": result.job.seed,
        "world": result.world.value,
        "end_reason": result.end_reason,
        "failure": result.failure,
        "num_steps": result.num_steps,
        "rate_hz": result.rate_hz,
        "policy_s": result.policy_s,
        "scores": result.scores.as_dict(),
    }


# ---------------------------------------------------------------------------------------------- the table


def episode_row(result: EpisodeResult) -> dict[str, Any]:
    """Return one row of the table; a score that is not valid is None."""
    reward = result.arrays.get("reward")
    row: dict[str, Any] = {
        "episode": result.job.id,
        "policy": result.job.policy,
        "scene": result.job.scene,
        "seed": result.job.seed,
        "world": result.world.value,
        "end_reason": result.end_reason,
        "failure": result.failure or None,
        "num_steps": result.num_steps,
        "total_reward": float(reward.sum()) if reward is not None else 0.0,
    }
    for name, score in result.scores.results().items():
        row[name] = score.value if score.is_valid else None
    return row | {"pdms_parts": result.scores.pdms_parts, "hd_parts": result.scores.hd_parts}


def require_parquet() -> None:
    """Refuse to begin where the table could not be written in the end.

    Raises:
        InputError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError("the table of episodes needs pyarrow: pip install 'drivesim[bench]'") from error


def write_table(path: Path, results: Sequence[EpisodeResult], configuration: Mapping[str, Any]) -> None:
    """Write one row per episode as Parquet, the run's configuration in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = ("episode", "policy", "scene", "world", "end_reason", "failure"), ("seed", "num_steps")
    columns = [
        *[(name, pa.string()) for name in text],
        *[(name, pa.int64()) for name in number],
        *[(name, pa.float64()) for name in ("total_reward", *SCORE_NAMES)],
        *[(name, pa.string()) for name in ("pdms_parts", "hd_parts")],
    ]
    metadata = {"drivesim.configuration": json.dumps(configuration)}
    table = pa.Table.from_pylist(
        [episode_row(result) for result in results], schema=pa.schema(columns, metadata)
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
