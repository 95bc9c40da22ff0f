"""Text to token ids: bytes, a Hugging Face `tokenizer.json`, or a tiktoken vocabulary.

Special tokens in a text are read as ordinary text; only `gptplan data` inserts end-of-text tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from planner.activity import doing
from planner.errors import DataError, MissingExtraError, UnknownNameError
from planner.files import ordinary_bytes
from reference_trainer.data.corpus.texts import TextDocument

TokenIds = npt.NDArray[np.integer[Any]]

BYTE_VALUES = 256
END_OF_TEXT = 256  # the first value that no byte has
# what models call it: GPT-2 and its relatives, Llama 3, Llama 2 and Mistral, Gemma, Qwen's base models
END_OF_TEXT_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end▁of▁sentence|>")
MOST_TOKENIZER_BYTES = 256 << 20  # the largest there are have 40 MB
TIKTOKEN = "tiktoken:"
SAME_VOCABULARY = {"gpt2": "r50k_base"}  # one file instead of two, the same ids


class Tokenizer(Protocol):
    """vocab: one more than the largest id. sha256: of its file, None without a file."""

    @property
    def name(self) -> str: ...
    @property
    def vocab(self) -> int: ...
    @property
    def end_of_text(self) -> int: ...
    @property
    def sha256(self) -> str | None: ...

    def encode(self, documents: Sequence[TextDocument]) -> list[TokenIds]:
        """The ids of each document, without end of text. Raises DataError for one that it cannot read."""


@dataclass(frozen=True, slots=True)
class ByteTokenizer:
    """One token per byte; end of text is 256."""

    name: str = "byte"
    vocab: int = BYTE_VALUES + 1
    end_of_text: int = END_OF_TEXT
    sha256: str | None = None

    def encode(self, documents: Sequence[TextDocument]) -> list[TokenIds]:
        """The bytes, in any encoding."""
        return [np.frombuffer(document.content, np.uint8) for document in documents]


@dataclass(frozen=True, slots=True)
class HuggingFaceTokenizer:
    """A `tokenizer.json` of the package tokenizers."""

    name: str
    vocab: int
    end_of_text: int
    sha256: str | None
    inner: Any

    def encode(self, documents: Sequence[TextDocument]) -> list[TokenIds]:
        """The ids without the special tokens of the file's post-processor."""
        texts = [document.text() for document in documents]
        with package_errors(f"{self.name} cannot read these texts"):
            found = self.inner.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in found]


@dataclass(frozen=True, slots=True)
class TiktokenTokenizer:
    """A vocabulary of the package tiktoken."""

    name: str
    vocab: int
    end_of_text: int
    sha256: str | None
    inner: Any

    def encode(self, documents: Sequence[TextDocument]) -> list[TokenIds]:
        """Ordinary tokens only."""
        texts = [document.text() for document in documents]
        with package_errors(f"{self.name} cannot read these texts"):
            found = self.inner.encode_ordinary_batch(texts, num_threads=4)
        return [np.array(ids, np.uint32) for ids in found]


@contextmanager
def package_errors(what: str) -> Iterator[None]:
    """Raises DataError in place of what a tokenizer's package raises: Exception itself, or a panic of its Rust code."""
    try:
        yield
    except BaseException as error:
        # pyo3's PanicException is no Exception, and no package exports it
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = str(error) or type(error).__name__
        raise DataError(what, why=why, remedy="give the tokenizer.json of a model") from error


@doing("loading the tokenizer")
def load_tokenizer(name: str, end_of_text: int | None = None) -> Tokenizer:
    """`byte`, the path of a tokenizer.json, `tiktoken:NAME`, or `tiktoken:NAME:FILE` with a local vocabulary file.

    end_of_text: the id between texts, if the tokenizer's own is unknown or not to be used.
    Raises DataError for a file that is not a tokenizer or an end of text outside its vocabulary, MissingExtraError,
    UnknownNameError for a tiktoken name.
    """
    if name == "byte":
        return ByteTokenizer(
            end_of_text=_checked_end(name, END_OF_TEXT if end_of_text is None else end_of_text, BYTE_VALUES + 1)
        )
    if name.startswith(TIKTOKEN):
        return _tiktoken(name, end_of_text)
    return _hugging_face(Path(name), end_of_text)


def _hugging_face(path: Path, end_of_text: int | None) -> HuggingFaceTokenizer:
    try:
        content = ordinary_bytes(path, MOST_TOKENIZER_BYTES)
    except OSError as error:
        raise DataError(
            f"cannot read the tokenizer {str(path)!r}",
            why=str(error),
            remedy="give byte, a tokenizer.json, or tiktoken:NAME",
        ) from error
    if find_spec("tokenizers") is None:
        raise MissingExtraError("tokenizers", "tokenizers", f"the tokenizer {path.name}")
    import tokenizers

    with package_errors(f"{str(path)!r} is not a tokenizer"):
        inner = tokenizers.Tokenizer.from_str(content.decode())
    inner.encode_special_tokens = True  # a text that spells "<|endoftext|>" does not end there
    inner.no_padding()
    inner.no_truncation()
    # ids may have gaps, and added tokens lie past the vocabulary's size (allenai/open-instruct#1862)
    ids: dict[str, int] = inner.get_vocab(with_added_tokens=True)
    vocab = max(ids.values(), default=-1) + 1
    if end_of_text is None:
        known = [text for text in END_OF_TEXT_NAMES if text in ids]
        if len(known) != 1:
            raise DataError(
                f"which token of {str(path)!r} ends a text is not clear",
                why=f"it has {' and '.join(known)}" if known else f"it has none of {', '.join(END_OF_TEXT_NAMES)}",
                remedy="give its id with --eot",
            )
        end_of_text = ids[known[0]]
    digest = hashlib.sha256(content).hexdigest()
    return HuggingFaceTokenizer(path.name, vocab, _checked_end(path.name, end_of_text, vocab), digest, inner)


def _tiktoken(name: str, end_of_text: int | None) -> TiktokenTokenizer:
    if find_spec("tiktoken") is None:
        raise MissingExtraError("tiktoken", "tiktoken", f"the tokenizer {name}")
    import tiktoken

    short, _, file = name.removeprefix(TIKTOKEN).partition(":")
    if short not in tiktoken.list_encoding_names():
        raise UnknownNameError("tiktoken vocabulary", short, tiktoken.list_encoding_names())
    digest = None
    try:
        if file:
            digest = hashlib.sha256(ordinary_bytes(Path(file), MOST_TOKENIZER_BYTES)).hexdigest()
            inner = tiktoken.Encoding(**_from_file(short, file))
        else:
            inner = tiktoken.get_encoding(short)
    except (OSError, ValueError) as error:  # the errors of its HTTP client are OSErrors
        raise DataError(
            f"cannot load the vocabulary of {name}",
            why=str(error),
            remedy=f"give its file: tiktoken:{short}:FILE, or TIKTOKEN_CACHE_DIR a directory that has it"
            if not file
            else f"give the .tiktoken file that OpenAI publishes for {SAME_VOCABULARY.get(short, short)}",
        ) from error
    end = inner.eot_token if end_of_text is None else end_of_text
    shown = TIKTOKEN + short
    return TiktokenTokenizer(
        shown, inner.max_token_value + 1, _checked_end(shown, end, inner.max_token_value + 1), digest, inner
    )


def _from_file(short: str, file: str) -> dict[str, Any]:
    """The arguments of an Encoding whose ranks are read from `file`, checked against the hash that tiktoken states.

    Only the package has the pattern and the special tokens, next to the URL of the file: its own loader
    is called with the local file instead of the URL.
    """
    import tiktoken_ext.openai_public as public
    from tiktoken.load import check_hash, load_tiktoken_bpe

    def load(address: str, expected_hash: str) -> dict[bytes, int]:
        if not check_hash(ordinary_bytes(Path(file), MOST_TOKENIZER_BYTES), expected_hash):
            raise ValueError(f"{file!r} is not what {address} holds: its sha256 is not {expected_hash}")
        ranks: dict[bytes, int] = load_tiktoken_bpe(file)
        return ranks

    before = public.load_tiktoken_bpe
    public.load_tiktoken_bpe = load
    try:
        found: dict[str, Any] = public.ENCODING_CONSTRUCTORS[SAME_VOCABULARY.get(short, short)]()
    finally:
        public.load_tiktoken_bpe = before
    return found


def _checked_end(name: str, end_of_text: int, vocab: int) -> int:
    if not 0 <= end_of_text < vocab:
        raise DataError(
            f"the end of text {end_of_text} is not a token of {name}",
            why=f"its ids go from 0 to {vocab - 1}",
            remedy="give another with --eot",
        )
    return end_of_text
