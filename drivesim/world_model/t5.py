"""Texts as a frozen T5 reads them (the paper's text encoder), computed once and kept on disk.

Nothing is downloaded and nothing is trained here. transformers is an optional dependency and is imported only when a
text is not in the cache. Letters: see ``drivesim/world_model/__init__.py``; `K` prompt tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from drivesim.checkpoint import header_of, read_checkpoint
from drivesim.console import warn
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.torchvision_guard import ensure_torchvision
from drivesim.world_model.prompts import PromptEmbedding

CACHE_KIND = "t5-prompt"
CONFIG_NAME = "config.json"
WEIGHTS_PATTERNS = ("model*.safetensors", "pytorch_model*.bin")
TOKENIZER_NAMES = ("tokenizer.json", "spiece.model")
TEXTS_PER_BATCH = 16


@dataclass(kw_only=True, slots=True)
class _Embedded:
    """One text, without padding."""

    tokens_KC: Tensor
    num_tokens: int  # of the whole text, before it was cut


class T5Embeddings:
    """Turns texts into the last hidden states of a pretrained T5 encoder.

    Args:
        name_or_folder: a T5 that is in the Hugging Face cache of this machine, or a folder with one.
        max_tokens: longer texts are cut, with a warning the first time; the end-of-text token is one of them.
        cache_folder: where embeddings are kept, a file for each text; None keeps none.
        is_lazy: read the weights when a text is first missing in the cache, instead of now.
        device: where the model runs; embeddings are returned on the CPU.

    Raises:
        InputError: there is no such T5 on this machine, its files do not fit, or transformers is not installed.
    """

    def __init__(
        self,
        name_or_folder: str | Path,
        *,
        max_tokens: int = 77,
        cache_folder: Path | None = None,
        is_lazy: bool = False,
        device: str = "cpu",
    ) -> None:
        """Find the files; read the weights unless ``is_lazy``."""
        if max_tokens < 1:
            raise InputError(f"max_tokens must be >= 1, got {max_tokens}")
        self.folder = _local_folder(name_or_folder)
        self.dim = _width(self.folder / CONFIG_NAME)
        self.max_tokens, self.cache_folder, self.device = max_tokens, cache_folder, device
        self._identity = _identity(name_or_folder, self.folder)
        self._parts: tuple[Any, Any] | None = None
        self._has_warned = False
        if not is_lazy:
            self._tokenizer_and_model()

    @property
    def is_loaded(self) -> bool:
        """Return whether the weights are in memory."""
        return self._parts is not None

    def encode(self, texts: Sequence[str]) -> PromptEmbedding:
        """Return the texts' tokens in float32, padded to the longest of them; K is ``max_tokens`` at most."""
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of texts, got the one text {texts!r}")
        keys = {text: self._key(text) for text in texts}
        known = {text: entry for text, key in keys.items() if (entry := self._read(key)) is not None}
        missing = [text for text in keys if text not in known]
        for first in range(0, len(missing), TEXTS_PER_BATCH):
            batch = missing[first : first + TEXTS_PER_BATCH]
            for text, entry in zip(batch, self._computed(batch), strict=True):
                self._write(keys[text], entry)
                known[text] = entry
        self._warn_of_cut(known)
        return _padded([known[text].tokens_KC for text in texts], self.dim)

    @torch.no_grad()
    def _computed(self, texts: list[str]) -> list[_Embedded]:
        tokenizer, model = self._tokenizer_and_model()
        whole = [tokenizer(text, verbose=False).input_ids for text in texts]
        cut = [torch.tensor(_cut(ids, self.max_tokens)) for ids in whole]
        ids_BK = pad_sequence(cut, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
        lengths = [len(ids) for ids in cut]
        is_given_BK = torch.arange(ids_BK.shape[1]) < torch.tensor(lengths).unsqueeze(1)
        with torch.autocast(torch.device(self.device).type, enabled=False):
            output = model(ids_BK.to(self.device), attention_mask=is_given_BK.long().to(self.device))
        tokens_BKC = output.last_hidden_state.float().cpu()
        return [
            _Embedded(tokens_KC=tokens_BKC[i, :length].clone(), num_tokens=len(whole[i]))
            for i, length in enumerate(lengths)
        ]

    def _tokenizer_and_model(self) -> tuple[Any, Any]:
        if self._parts is None:
            self._parts = _load(self.folder, self.device)
        return self._parts

    def _key(self, text: str) -> str:
        try:
            content = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the prompt holds {text[error.start]!r}, which is no character; leave it out"
            ) from error
        return hashlib.sha256(f"{self._identity} {self.max_tokens} ".encode() + content).hexdigest()

    def _read(self, key: str) -> _Embedded | None:
        if self.cache_folder is None or not (path := self.cache_folder / f"{key}.safetensors").is_file():
            return None
        try:
            checkpoint = read_checkpoint(path, kind=CACHE_KIND)
        except InputError:
            return None  # damaged; written anew
        tokens_KC, num_tokens = checkpoint.tensors.get("tokens_KC"), checkpoint.facts.get("num_tokens")
        if tokens_KC is None or tokens_KC.shape[1:] != (self.dim,) or not isinstance(num_tokens, int):
            return None
        return _Embedded(tokens_KC=tokens_KC, num_tokens=num_tokens)

    def _write(self, key: str, entry: _Embedded) -> None:
        if self.cache_folder is None:
            return
        tensors = {"tokens_KC": entry.tokens_KC}
        header = header_of(tensors, kind=CACHE_KIND, config={}, facts={"num_tokens": entry.num_tokens})
        try:
            with atomic_path(self.cache_folder / f"{key}.safetensors") as temporary:
                temporary.write_bytes(save(tensors, metadata=header))
        except OSError as error:
            raise InputError(
                f"prompts cannot be kept in {self.cache_folder} ({error}); choose another cache_folder"
            ) from error

    def _warn_of_cut(self, entries: dict[str, _Embedded]) -> None:
        longer = {text: e.num_tokens for text, e in entries.items() if e.num_tokens > self.max_tokens}
        if longer and not self._has_warned:
            self._has_warned = True
            text, num_tokens = next(iter(longer.items()))
            warn(
                f"prompts of more than {self.max_tokens} tokens are cut; the first has {num_tokens}: {text[:60]!r}"
            )


def _cut(ids: list[int], max_tokens: int) -> list[int]:
    return ids if len(ids) <= max_tokens else ids[: max_tokens - 1] + ids[-1:]


def _padded(rows: list[Tensor], dim: int) -> PromptEmbedding:
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    tokens_BKC = pad_sequence(rows, batch_first=True) if rows else torch.zeros(0, 0, dim)
    is_given_BK = torch.arange(tokens_BKC.shape[1]) < lengths.unsqueeze(1)
    return PromptEmbedding(tokens_BKC=tokens_BKC, is_given_BK=is_given_BK)


def _local_folder(name_or_folder: str | Path) -> Path:
    """Return the folder of a T5's files: the given one, or the one of that name in the Hugging Face cache."""
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        found = _cached_config(str(name_or_folder))
        if found is None:
            raise InputError(
                f"there is no T5 {str(name_or_folder)!r} on this machine, neither as a folder nor in the Hugging Face "
                f"cache; {_remedy(name_or_folder)}"
            )
        folder = found.parent
    weights = [path for pattern in WEIGHTS_PATTERNS for path in folder.glob(pattern)]
    lacks = [] if (folder / CONFIG_NAME).is_file() else [CONFIG_NAME]
    lacks += [] if weights else ["model.safetensors"]
    lacks += [] if any((folder / name).is_file() for name in TOKENIZER_NAMES) else [TOKENIZER_NAMES[0]]
    if lacks:
        raise InputError(
            f"the T5 {str(name_or_folder)!r} lacks {' and '.join(lacks)} in {folder}; {_remedy(name_or_folder)}"
        )
    return folder


def _remedy(name_or_folder: str | Path) -> str:
    example = "google-t5/t5-base" if Path(name_or_folder).is_dir() else name_or_folder
    return f"fetch it where there is network (hf download {example}) or name a folder that holds one"


def _cached_config(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, CONFIG_NAME)
    except ValueError:  # no name of a model
        return None
    return Path(found) if isinstance(found, str) else None


def _width(path: Path) -> int:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind, width = values["model_type"], values["d_model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no configuration of a T5 ({error}); fetch the model again") from error
    if kind != "t5" or not isinstance(width, int):
        raise InputError(f"{path} is of a model of type {kind!r}, but 't5' is needed; name a T5")
    return width


def _identity(name_or_folder: str | Path, folder: Path) -> str:
    """Return a hash that changes with the model: its name or folder, configuration, and files by size and time."""
    name = str(folder.resolve()) if Path(name_or_folder).expanduser().is_dir() else str(name_or_folder)
    digest = hashlib.sha256(json.dumps(name).encode() + (folder / CONFIG_NAME).read_bytes())
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".bin", ".json", ".model"}:
            stat = path.stat()
            digest.update(json.dumps([path.name, stat.st_size, stat.st_mtime_ns]).encode())
    return digest.hexdigest()


def _load(folder: Path, device: str) -> tuple[Any, Any]:
    """Return the tokenizer and the frozen encoder in float32: T5 overflows in float16."""
    transformers = _transformers()
    options = {"local_files_only": True}
    try:
        with _quiet(transformers.utils.logging):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
            model, report = transformers.T5EncoderModel.from_pretrained(
                str(folder), output_loading_info=True, **options
            )
    except (OSError, ImportError, KeyError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the T5 in {folder} cannot be loaded ({reason}); fetch it again") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"the T5 in {folder} lacks {len(missing)} tensors of its encoder (first: {missing[0]}); fetch it again"
        )
    if tokenizer("").input_ids != [tokenizer.eos_token_id] or len(tokenizer) > model.config.vocab_size:
        raise InputError(f"the tokenizer in {folder} is not that of its T5; fetch it again")
    return tokenizer, model.float().to(device).eval().requires_grad_(False)


def _transformers() -> Any:
    try:
        ensure_torchvision()
        import transformers
        from transformers import AutoTokenizer, T5EncoderModel  # noqa: F401 - they are imported on first use only
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"T5 prompts need transformers, which cannot be imported ({reason}); run: pip install 'drivesim[t5]'"
        ) from error
    return transformers


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Keep transformers from printing a progress bar and its remarks on decoder weights."""
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
