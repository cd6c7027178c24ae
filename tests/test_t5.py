"""T5 prompts: what transformers gives, kept on disk, padded, cut, and without network."""

import json
import shutil
import sys

import pytest
import torch
from no_network import refuse_network
from small_t5 import DIM, TEXTS, WORDS, write_small_t5

from drivesim.errors import InputError
from drivesim.world_model.prompts import PromptEmbedding
from drivesim.world_model.t5 import T5Embeddings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of a tiny T5 with random weights, decoder and all, not to be changed."""
    return write_small_t5(tmp_path_factory.mktemp("tiny-t5"))


@pytest.fixture
def copied(folder, tmp_path):
    """Return the folder, to damage."""
    return shutil.copytree(folder, tmp_path / "t5")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    refuse_network(monkeypatch)


def reference(folder, text):
    """Return (K, C) by transformers alone."""
    from transformers import AutoTokenizer, T5EncoderModel

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.no_grad():
        return T5EncoderModel.from_pretrained(folder)(**tokens).last_hidden_state[0]


def assert_same(embedding: PromptEmbedding, other: PromptEmbedding):
    torch.testing.assert_close(embedding.tokens_BKC, other.tokens_BKC)
    assert torch.equal(embedding.is_given_BK, other.is_given_BK)


def test_embeddings_are_those_of_transformers(folder):
    encoder = T5Embeddings(folder)
    embedding = encoder.encode(TEXTS)
    assert encoder.dim == DIM
    assert embedding.tokens_BKC.dtype == torch.float32
    assert embedding.is_given_BK.dtype == torch.bool
    assert not embedding.tokens_BKC.requires_grad
    for text, row, is_given in zip(TEXTS, embedding.tokens_BKC, embedding.is_given_BK, strict=True):
        wanted = reference(folder, text)
        assert is_given.sum() == len(wanted)
        torch.testing.assert_close(row[: len(wanted)], wanted, atol=1e-5, rtol=1e-5)
        assert is_given[: len(wanted)].all()
        assert not row[len(wanted) :].any()


def test_an_empty_text_is_the_end_of_text_token(folder):
    embedding = T5Embeddings(folder).encode([""])
    assert embedding.tokens_BKC.shape == (1, 1, DIM)
    assert embedding.is_given_BK.tolist() == [[True]]


def test_no_texts_give_no_rows(folder):
    embedding = T5Embeddings(folder, is_lazy=True).encode([])
    assert embedding.tokens_BKC.shape == (0, 0, DIM)
    assert embedding.is_given_BK.shape == (0, 0)


def test_one_text_instead_of_a_list_is_refused(folder):
    with pytest.raises(ValueError, match="must be a list of texts"):
        T5Embeddings(folder, is_lazy=True).encode("a car")


def test_longer_texts_are_cut_with_one_warning(folder, tmp_path, capsys):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = T5Embeddings(folder, max_tokens=6, cache_folder=tmp_path)
    embedding = encoder.encode(TEXTS)
    encoder.encode([TEXTS[2] + " again"])
    num_tokens = len(tokenizer(TEXTS[2]).input_ids)
    printed = capsys.readouterr().err
    assert printed.count("warning:") == 1
    assert "more than 6 tokens are cut" in printed
    assert embedding.tokens_BKC.shape[1] == 6
    ids = tokenizer(TEXTS[2], truncation=True, max_length=6, return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = encoder._tokenizer_and_model()[1](ids).last_hidden_state
    torch.testing.assert_close(embedding.tokens_BKC[2:], wanted, atol=1e-5, rtol=1e-5)

    T5Embeddings(folder, max_tokens=6, cache_folder=tmp_path, is_lazy=True).encode(TEXTS[2:])
    assert f"has {num_tokens}" in capsys.readouterr().err  # from the cache as well


def test_a_cached_set_needs_no_model(folder, tmp_path, monkeypatch):
    first = T5Embeddings(folder, cache_folder=tmp_path / "cache").encode(TEXTS)
    assert len(list((tmp_path / "cache").iterdir())) == len(TEXTS)
    monkeypatch.setitem(sys.modules, "transformers", None)
    lazy = T5Embeddings(folder, cache_folder=tmp_path / "cache", is_lazy=True)
    again = lazy.encode(TEXTS[::-1] + TEXTS)
    assert not lazy.is_loaded
    assert torch.equal(again.tokens_BKC[3:], first.tokens_BKC)
    assert torch.equal(again.tokens_BKC[:3].flip(0), first.tokens_BKC)
    with pytest.raises(InputError, match=r"pip install 'drivesim\[t5\]'"):
        lazy.encode(["something new"])


def test_the_cache_knows_model_and_length(copied, tmp_path):
    def files():
        return len(list((tmp_path / "cache").iterdir()))

    options = {"cache_folder": tmp_path / "cache", "is_lazy": True}
    T5Embeddings(copied, **options).encode(["a car"])
    T5Embeddings(copied, **options).encode(["a car"])
    assert files() == 1
    T5Embeddings(copied, max_tokens=9, **options).encode(["a car"])
    assert files() == 2
    weights = copied / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\0\0\0")  # the same size, later
    T5Embeddings(copied, **options).encode(["a car"])
    assert files() == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "other"])
def test_damaged_entries_are_computed_again(folder, tmp_path, damage):
    encoder = T5Embeddings(folder, cache_folder=tmp_path)
    first = encoder.encode(TEXTS)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        if damage == "cut":
            path.write_bytes(content[:20])
        elif damage == "flip":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            path.write_bytes(b"not safetensors at all")
    assert_same(encoder.encode(TEXTS), first)
    fresh = T5Embeddings(folder, cache_folder=tmp_path, is_lazy=True)
    assert_same(fresh.encode(TEXTS), first)
    assert not fresh.is_loaded


def test_more_texts_than_a_batch_keep_their_order(folder):
    texts = [" ".join(WORDS[: 1 + i % 7]) + f" {i}" for i in range(35)]
    encoder = T5Embeddings(folder)
    embedding = encoder.encode(texts)
    for index in (0, 17, 34):
        alone = encoder.encode([texts[index]])
        num_tokens = alone.tokens_BKC.shape[1]
        torch.testing.assert_close(embedding.tokens_BKC[index, :num_tokens], alone.tokens_BKC[0])
        assert embedding.is_given_BK[index].sum() == num_tokens


def test_autocast_changes_nothing(folder):
    encoder = T5Embeddings(folder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder.encode(TEXTS)
    assert_same(inside, encoder.encode(TEXTS))


def test_weights_kept_in_float16_compute_in_float32(folder, tmp_path):
    from transformers import T5EncoderModel

    half = shutil.copytree(folder, tmp_path / "half")
    T5EncoderModel.from_pretrained(folder).half().save_pretrained(half)
    embedding = T5Embeddings(half).encode(TEXTS)
    wanted = T5Embeddings(folder).encode(TEXTS)
    torch.testing.assert_close(embedding.tokens_BKC, wanted.tokens_BKC, atol=2e-2, rtol=2e-2)


def test_a_name_is_found_in_the_local_cache(folder, tmp_path, monkeypatch):
    kept = tmp_path / "hub" / "models--tiny--t5"
    shutil.copytree(folder, kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    encoder = T5Embeddings("tiny/t5")
    assert encoder.folder == kept / "snapshots" / "abc"
    assert_same(encoder.encode(TEXTS), T5Embeddings(folder).encode(TEXTS))
    with pytest.raises(
        InputError, match=r"there is no T5 'tiny/other' on this machine.*hf download tiny/other"
    ):
        T5Embeddings("tiny/other")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=f"there is no T5 '{tmp_path}/none' .*name a folder"):
        T5Embeddings(tmp_path / "none")


@pytest.mark.parametrize(
    ("names", "lacks"),
    [
        (["config.json"], "config.json"),
        (["model.safetensors"], "model.safetensors"),
        (["tokenizer.json", "spiece.model", "config.json"], "config.json and tokenizer.json"),
    ],
)
def test_missing_files_are_named(copied, names, lacks):
    for name in names:
        (copied / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match=f"lacks {lacks} in {copied}; fetch it"):
        T5Embeddings(copied)


def test_other_models_and_damaged_files_are_refused(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(InputError, match="of type 'bert', but 't5' is needed"):
        T5Embeddings(copied)
    (copied / "config.json").write_text(json.dumps(config | {"num_layers": 3}))
    with pytest.raises(InputError, match="lacks 8 tensors of its encoder"):
        T5Embeddings(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(InputError, match="no configuration of a T5"):
        T5Embeddings(copied)
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "model.safetensors").write_bytes(b"too short")
    with pytest.raises(InputError, match=r"cannot be loaded .*; fetch it again"):
        T5Embeddings(copied)


def test_a_tokenizer_of_another_model_is_refused(copied):
    from transformers import T5Config, T5EncoderModel

    config = T5Config(**json.loads((copied / "config.json").read_text()) | {"vocab_size": 40})
    T5EncoderModel(config).save_pretrained(copied)
    with pytest.raises(InputError, match="is not that of its T5"):
        T5Embeddings(copied)


def test_a_cache_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    encoder = T5Embeddings(folder, cache_folder=tmp_path / "file")
    with pytest.raises(InputError, match=r"prompts cannot be kept in .*choose another cache_folder"):
        encoder.encode(["a car"])


def test_what_cannot_be_a_prompt_is_refused(folder):
    with pytest.raises(InputError, match="max_tokens must be >= 1, got 0"):
        T5Embeddings(folder, max_tokens=0)
    with pytest.raises(InputError, match="which is no character"):
        T5Embeddings(folder, is_lazy=True).encode(["\ud800"])


def test_loading_prints_nothing(folder, capfd):
    T5Embeddings(folder).encode(["a car"])
    assert capfd.readouterr() == ("", "")
