"""Between texts and tokens: prompts begin with the begin token, completions end with the end token or were cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from llm.sampler import Completions
from unified_irl.errors import UserError
from unified_irl.trajectories import Contexts, Trajectories

PAD, BEGIN, END, UNKNOWN = "<pad>", "<begin>", "<end>", "<unknown>"


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token for each word."""
    vocabulary = {word: number for number, word in enumerate((PAD, BEGIN, END, UNKNOWN, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END, unk_token=UNKNOWN
    )


@dataclass(frozen=True)
class Codec:
    """A tokenizer, and what is made of it here."""

    tokenizer: PreTrainedTokenizerFast

    @property
    def end(self) -> int:
        """The token that ends a completion."""
        return int(self.tokenizer.eos_token_id)

    @property
    def begin(self) -> int:
        """The token before a prompt; that of the end where the tokenizer has none of its own."""
        first = self.tokenizer.bos_token_id
        return self.end if first is None else int(first)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, text: str) -> list[int]:
        return [self.begin, *self.ids(text)]

    def completion(self, text: str, ended: bool = True) -> list[int]:
        """Its tokens, after a prompt; a tokenizer that looks at spaces sees the one in between."""
        said = self.ids(f" {text}") if text else []
        return [*said, self.end] if ended else said

    def text(self, tokens: Sequence[int]) -> str:
        """What was said, without special tokens but for those that are nobody's words, which stay as faults."""
        pieces = [token for token in tokens if token != self.end]
        return str(self.tokenizer.decode(pieces, skip_special_tokens=False, clean_up_tokenization_spaces=False)).strip()

    def contexts(self, prompts: Sequence[str]) -> Contexts:
        token, length = _padded([self.prompt(text) for text in prompts])
        return Contexts(ids=torch.arange(len(prompts)), data={"token": token, "length": length})

    def trajectories(self, contexts: Contexts, completions: Sequence[str], ended: Sequence[bool]) -> Trajectories:
        """Whole completions of these contexts; who made them, and with which probability, is not known."""
        said = [self.completion(text, over) for text, over in zip(completions, ended, strict=True)]
        if empty := [text for text, tokens in zip(completions, said, strict=True) if not tokens]:
            raise UserError(f"The completion '{empty[0]}' has no token and no end; expected at least one of them.")
        token, length = _padded(said)
        nobody_knows = torch.zeros(token.shape)
        return joined(contexts, Completions(token, length, torch.tensor(list(ended)), nobody_knows))

    def texts(self, behaviours: Trajectories) -> tuple[list[str], list[bool]]:
        """What was said in each, and whether it was ended."""
        tokens = [row[mask].tolist() for row, mask in zip(behaviours.data["token"], behaviours.mask, strict=True)]
        return [self.text(one) for one in tokens], behaviours.terminated.tolist()


def joined(contexts: Contexts, said: Completions) -> Trajectories:
    """Prompts and what followed them, each row from the first column on."""
    prompt_BP, start_B = contexts.data["token"], contexts.data["length"]
    count, num_new = len(prompt_BP), int(said.length_B.max())
    column = torch.arange(int((start_B + said.length_B).max()))
    after = column - start_B[:, None]
    mask = (after >= 0) & (after < said.length_B[:, None])
    place = after.clamp(0, num_new - 1)
    before = prompt_BP.gather(1, column.clamp(max=prompt_BP.shape[1] - 1).expand(count, -1))
    return Trajectories(
        data={"token": torch.where(mask, said.token_BM.gather(1, place), before * (after < 0))},
        mask=mask,
        rewarded=mask.clone(),
        context_id=contexts.ids,
        weight=torch.ones(count),
        behaviour_log_prob=said.log_prob_BM.gather(1, place) * mask,
        start_step=torch.zeros(count, dtype=torch.long),
        terminated=said.ended_B,
        truncated=~said.ended_B,
    )


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """long[B, P] with zeros behind, and the lengths."""
    length = torch.tensor([len(row) for row in rows])
    token = torch.zeros(len(rows), int(length.max()), dtype=torch.long)
    for place, row in zip(token, rows, strict=True):
        place[: len(row)] = torch.tensor(row, dtype=torch.long)
    return token, length
