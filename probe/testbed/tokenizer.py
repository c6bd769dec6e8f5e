"""A byte-level tokenizer with a small vocabulary, made for the testbed's words."""

from __future__ import annotations

from typing import Any

from probe.testbed.prior import COUNTS
from probe.testbed.question import WORDINGS
from probe.testbed.scene import COLORS, MOTIONS, SHAPES

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
VOCABULARY = 640
ROLES = ("user", "assistant", "system")


def words() -> tuple[str, ...]:
    """Every word of questions, answers and captions; each becomes one token."""
    text = " ".join(wording for pair in WORDINGS.values() for wording in pair)
    for mark in "{}?.,":
        text = text.replace(mark, " ")
    found = [*COLORS, *SHAPES, *MOTIONS, *COUNTS, *ROLES, *text.split()]
    found += ["yes", "no", "a", "and", "moves", "A", "B", "C", "D", "E", "F"]
    return tuple(dict.fromkeys(found))


def build_tokenizer(more: tuple[str, ...] = ()) -> Any:
    """The tokenizer as a transformers object: all bytes, so that any text round-trips.

    Args:
        more: special tokens to put behind all others.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([f"{word}\n {word}" for word in words()] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    if more:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(more)}, replace_extra_special_tokens=False
        )
    return tokenizer
