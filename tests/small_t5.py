"""A T5 of a few thousand random weights in a folder, for tests."""

from pathlib import Path

import torch

from drivesim.torchvision_guard import ensure_torchvision

DIM = 16
TEXTS = ["a car stops", "", "the road turns left in the rain at night"]
WORDS = " ".join([*TEXTS, "along a snowy bridge, drives right"]).split()


def write_small_t5(folder: Path) -> Path:
    """Write configuration, tokenizer and weights, decoder and all, into a folder, and return it."""
    import sentencepiece

    ensure_torchvision()
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    torch.manual_seed(0)
    sizes = {"d_model": DIM, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 256}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder
