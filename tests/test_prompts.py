"""Prompts: pieces of texts, their bytes, and what the encoder of bytes makes of them."""

import pytest
import torch

from drivesim.errors import InputError
from drivesim.world_model.prompts import (
    BYTES_PER_PIECE,
    BytesEncoder,
    BytesEncoderConfig,
    byte_ids,
    pieces_of,
)

DIM = 24


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return BytesEncoder(BytesEncoderConfig(dim=32, max_pieces=16), DIM).eval()


def embedded(encoder, *texts):
    with torch.no_grad():
        return encoder(encoder.prepared(texts))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        (" \t\n ", []),
        ("A red Ball, rolling.", [b"a", b"red", b"ball", b",", b"rolling", b"."]),
        ("wait...what?!", [b"wait", b".", b".", b".", b"what", b"?", b"!"]),
        ("incomprehensibilities", [b"incomprehens", b"ibilities"]),
        ("\N{DOG FACE}", ["\N{DOG FACE}".encode()]),
    ],
)
def test_texts_are_cut_into_words_and_marks(text, pieces):
    assert pieces_of(text, 32) == pieces


@pytest.mark.parametrize(
    "text", ["\N{DOG FACE}" * 20, "собака и кот", "犬が公園を走っている様子を撮影した", "a\0b"]
)
def test_every_script_is_kept_byte_by_byte(text):
    pieces = pieces_of(text, 32)
    assert b"".join(pieces) == text.replace(" ", "").encode()
    assert max(map(len, pieces)) <= BYTES_PER_PIECE


@pytest.mark.parametrize("text", ["a dog \ud800", "İİİ\udcff", "\udcff"])
def test_what_is_no_character_is_named(text):
    with pytest.raises(InputError, match=r"'\\ud(800|cff)', which is no character"):
        pieces_of(text, 32)


def test_texts_that_are_too_long_are_refused():
    assert len(pieces_of("a " * 32, 32)) == 32
    with pytest.raises(InputError, match=r"66 characters in 33 words .* read 32; shorten"):
        pieces_of("a " * 33, 32)
    with pytest.raises(InputError, match="100000 characters in 8334 words"):
        pieces_of("x" * 100_000, 32)


def test_byte_ids_are_padded_with_zeros():
    ids = byte_ids(["Hi \0", "", "one two three"], 8)
    assert ids.shape == (3, 3, BYTES_PER_PIECE)
    assert ids[0, 0, :3].tolist() == [ord("h") + 1, ord("i") + 1, 0]
    assert ids[0, 1, 0] == 1  # a byte of zero is no padding
    assert not ids[1].any()
    assert byte_ids(["", ""], 8).shape == (2, 0, BYTES_PER_PIECE)


def test_an_empty_text_is_one_token(encoder):
    prompt = embedded(encoder, "", "")
    assert prompt.tokens_BKC.shape == (2, 1, DIM)
    assert prompt.is_given_BK.all()
    assert prompt.tokens_BKC.isfinite().all()


@pytest.mark.parametrize("has_gradient", [True, False])
def test_padding_does_not_change_the_embedding(encoder, has_gradient):
    texts = ["", "a red ball", "seven words that make a longer prompt"]
    with torch.set_grad_enabled(has_gradient):  # without it PyTorch takes another path
        together = encoder(encoder.prepared(texts))
        for row, text in enumerate(texts):
            alone = encoder(encoder.prepared([text]))
            count = alone.tokens_BKC.shape[1]
            assert together.is_given_BK[row].sum() == count
            torch.testing.assert_close(
                together.tokens_BKC[row, :count], alone.tokens_BKC[0], rtol=0, atol=1e-5
            )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dog bites man", "man bites dog"),
        ("a ball", "a bell"),
        ("stop", "tops"),
        ("a dog", "a \N{DOG FACE}"),
        ("", "a"),
    ],
)
def test_words_letters_and_their_order_matter(encoder, one, other):
    first, second = (embedded(encoder, text).tokens_BKC[:, 0] for text in (one, other))
    assert (first - second).abs().max() > 1e-3


def test_case_does_not_matter(encoder):
    assert torch.equal(embedded(encoder, "A Dog").tokens_BKC, embedded(encoder, "a dog").tokens_BKC)


def test_the_longest_prompt_fits_and_repeats(encoder):
    prompt = embedded(encoder, "a " * 16, "b").repeated(3)
    assert prompt.tokens_BKC.shape == (6, 17, DIM)
    assert torch.equal(prompt.tokens_BKC[0], prompt.tokens_BKC[2])
    assert prompt.is_given_BK.sum(1).tolist() == [17, 17, 17, 2, 2, 2]


@pytest.mark.parametrize("bad", [{"num_heads": 3}, {"max_pieces": 0}, {"num_layers": -1}])
def test_encoders_that_cannot_be_built_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        BytesEncoderConfig(**bad)
