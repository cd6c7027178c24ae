"""Video models whose prompts a T5 reads: from Python, from the command line, and with a T5 that is not there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from no_network import refuse_network
from small_models import CAUSAL, small_video_model
from small_t5 import DIM, write_small_t5

from drivesim import cli
from drivesim.checkpoint import save_module
from drivesim.errors import InputError
from drivesim.generate import GenerateConfig, text_to_video
from drivesim.world_model.pretrained_video import load_video_model
from drivesim.world_model.prompts import PromptKind
from drivesim.world_model.sampler import SamplerConfig

QUICK = GenerateConfig(sampler=SamplerConfig(num_decode_steps=2, temperature=1.0), num_frames=4)


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return write_small_t5(tmp_path_factory.mktemp("tiny-t5"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that do not say where their T5 is."""
    model = small_video_model(stpt=CAUSAL, prompt=PromptKind.T5, t5="", t5_dim=DIM)
    path = tmp_path_factory.mktemp("weights") / "video.safetensors"
    save_module(model, path, kind="video-model", config=model.config)
    return path


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    refuse_network(monkeypatch)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Return a function that runs a command in an empty folder: (exit code, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return caught.value.code or 0, capsys.readouterr().err

    return run


def test_texts_and_no_text_lead_to_clips_of_their_own(weights, t5):
    model = load_video_model(weights, t5=t5, dtype=torch.float32)
    draws = [text_to_video(model, prompt, QUICK) for prompt in ("a car stops", "a car stops", "", "it rains")]
    first, again, empty, other = (draw.token_ids for draw in draws)
    assert draws[0].frames.shape == (1, 4, 64, 96, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, empty)
    assert not np.array_equal(first, other)


def test_prompts_are_what_the_t5_says_in_the_transformers_width(weights, t5):
    encoder = load_video_model(weights, t5=t5, dtype=torch.float32).prompt_encoder
    prepared = encoder.prepared(["a car stops", ""])
    assert prepared["tokens"].shape[::2] == (2, DIM)
    embedding = encoder(prepared)
    assert embedding.tokens_BKC.shape == (*prepared["tokens"].shape[:2], 32)
    assert embedding.is_given_BK.sum(1).tolist()[0] > embedding.is_given_BK.sum(1).tolist()[1]
    torch.testing.assert_close(embedding.tokens_BKC, encoder.projection(prepared["tokens"]))


def test_a_command_draws_under_a_t5_and_says_which(run, weights, t5, tmp_path):
    flags = ["--weights", weights, "--t5", t5, "--frames", "2", "--rounds", "1", "--out", tmp_path / "a.gif"]
    assert run("generate", "text", "--prompt", "a car stops", *flags)[0] == 0
    assert json.loads((tmp_path / "a.gif.json").read_text())["settings"]["t5"] == str(t5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "none is named; name one with --t5"),
        (["--t5", "none/there"], "there is no T5 'none/there' on this machine"),
        (["--t5", "google-t5/t5-base"], "there is no T5 'google-t5/t5-base' on this machine"),
    ],
)
def test_a_t5_that_is_not_there_is_one_sentence(run, weights, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    code, said = run("generate", "text", "--prompt", "a car", "--weights", weights, *flags, "--out", "a.gif")
    assert code == 2
    assert message in " ".join(said.split())
    assert "Traceback" not in said
    assert not list(tmp_path.glob("a.gif*"))


def test_a_t5_of_another_width_is_refused(t5):
    model = small_video_model(stpt=CAUSAL, prompt=PromptKind.T5, t5=str(t5), t5_dim=DIM + 8)
    with pytest.raises(InputError, match=rf"has {DIM} numbers per token, the model reads {DIM + 8}"):
        text_to_video(model, "a car", QUICK)


def test_too_long_texts_are_cut_with_a_warning(weights, t5, capsys):
    model = load_video_model(weights, t5=t5, dtype=torch.float32)
    frames = text_to_video(model, "it rains " * 2000, replace(QUICK, num_frames=1)).frames
    assert frames.shape == (1, 1, 64, 96, 3)
    assert "tokens are cut" in " ".join(capsys.readouterr().err.split())
