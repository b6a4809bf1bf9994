"""Texts and conversations as tokens, with what was answered told from all that was asked.

A chat template is asked for the text before an answer and for the text up to its end; the answer is what lies between.
A template that writes earlier answers differently once later messages follow (some drop earlier thoughts) has no such
places for them, and learning from all answers is refused: what was sampled would not be what is learnt from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from llm.data.records import Conversation, Prompt, Reply, Unfit
from llm.models import in_one_line
from unified_irl.errors import UserError

Span = tuple[int, int]
"""From one place of a text, or of its tokens, up to another."""
MARK = "Ω"
PROBE: Conversation = (("user", "?"), ("assistant", MARK))
"""A conversation whose answer no template contains."""


@dataclass(frozen=True)
class Spoken:
    """Tokens that end with an answer, and where each answer lies among them."""

    tokens: list[int]
    answers: list[Span]

    @property
    def prompt(self) -> list[int]:
        """All before the last answer."""
        return self.tokens[: self.answers[-1][0]] if self.answers else self.tokens


class Scribe:
    """How a tokenizer writes down what was asked and answered."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template_file: str = "") -> None:
        self.tokenizer = tokenizer
        if template_file:
            try:
                tokenizer.chat_template = Path(template_file).read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"The chat template {template_file} cannot be read: {in_one_line(error)}") from error

    def prompt(self, asked: Prompt) -> list[int]:
        """Tokens of what was asked, the words that invite an answer included."""
        if isinstance(asked, str):
            return self._begun(asked)
        return self._tokens(self._written(asked, invites=True))

    def spoken(self, asked: Prompt, answered: Reply, *, all_answers: bool = False) -> Spoken:
        """What was asked and the answer to it, or all answers in it. An answer ends with the token by which its speaker
        says so; what a template writes after that is nobody's choice."""
        if isinstance(answered, str):
            if not isinstance(asked, str):
                raise Unfit("has messages as its prompt and a text as its answer; expected both alike")
            return self._plain(asked, answered)
        if isinstance(asked, str):
            asked = (("user", asked),)
        return self._conversation((*asked, *answered), all_answers)

    @cached_property
    def end(self) -> int:
        """The token that ends an answer of a conversation: the last special one that the template puts behind it, or
        the tokenizer's own end where it puts none."""
        behind = self._tokens(self._written(PROBE).rpartition(MARK)[2])
        special = [token for token in behind if token in self.tokenizer.all_special_ids]
        return special[-1] if special else int(self.tokenizer.eos_token_id)

    def _plain(self, asked: str, answered: str) -> Spoken:
        prompt = self._begun(asked)
        joint = self._begun(asked + answered)
        # Where a token would reach across, the answer is spelt by itself, as a sampler would have to.
        said = joint[len(prompt) :] if joint[: len(prompt)] == prompt else self._tokens(answered)
        return Spoken([*prompt, *said, int(self.tokenizer.eos_token_id)], [(len(prompt), len(prompt) + len(said) + 1)])

    def _begun(self, text: str) -> list[int]:
        """As this tokenizer begins a text; one without words is its begin or, lacking that, its end."""
        tokens = list(self.tokenizer(text)["input_ids"])
        if tokens and tokens[-1] == self.tokenizer.eos_token_id and text:
            tokens.pop()
        if tokens:
            return tokens
        begin = self.tokenizer.bos_token_id
        return [int(self.tokenizer.eos_token_id if begin is None else begin)]

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _conversation(self, messages: Conversation, all_answers: bool) -> Spoken:
        whole = self._written(messages)
        answers = [k for k, (role, _) in enumerate(messages) if role == "assistant"]
        spans = [self._span(messages, k, whole) for k in (answers if all_answers else answers[-1:])]
        pieces = self._pieces(whole, [place for span in spans for place in span])
        tokens: list[int] = []
        found: list[Span] = []
        for number, piece in enumerate(pieces):
            begin = len(tokens)
            if number % 2 == 0:  # what is asked
                tokens += piece
                continue
            ends = [k for k, token in enumerate(piece) if token == self.end]
            if ends:
                found.append((begin, begin + ends[-1] + 1))
                tokens += piece
            else:  # a template without an end: it is added where the conversation stops, or an answer never would
                is_last = number == len(pieces) - 2
                tokens += [*piece, self.end] if is_last else piece
                found.append((begin, len(tokens)))
        return Spoken(tokens[: found[-1][1]], found)

    def _span(self, messages: Conversation, k: int, whole: str) -> Span:
        """Where answer k lies in the text of the whole conversation."""
        head, upto = self._written(messages[:k], invites=True), self._written(messages[: k + 1])
        if not (upto.startswith(head) and whole.startswith(upto)):
            raise UserError(
                "The model's chat template writes an answer differently once other messages follow (or invites it with "
                "other words than it begins with), so the tokens to learn from are not those that would be said; learn "
                "from the last answer alone (data.answers last), or give another template (data.chat_template_file)."
            )
        return len(head), len(upto)

    def _pieces(self, text: str, cuts: Sequence[int]) -> list[list[int]]:
        """Tokens of the text between the cuts. Where a token would reach across a cut, the pieces are spelt one by one:
        a prompt cannot contain the beginning of its answer."""
        bounds = list(pairwise([0, *cuts, len(text)]))
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens, places = encoded["input_ids"], encoded["offset_mapping"]
        if any(first < cut < last for first, last in places for cut in cuts):
            return [self._tokens(text[begin:end]) for begin, end in bounds]
        return [
            [token for token, (first, _) in zip(tokens, places, strict=True) if begin <= first < end]
            for begin, end in bounds
        ]

    def _written(self, messages: Conversation, *, invites: bool = False) -> str:
        if not self.tokenizer.chat_template:
            raise UserError(
                "The data are conversations, but the model's tokenizer has no chat template; give one with "
                "data.chat_template_file, or data of plain prompts and completions."
            )
        given = [{"role": role, "content": content} for role, content in messages]
        try:
            return str(self.tokenizer.apply_chat_template(given, tokenize=False, add_generation_prompt=invites))
        except TemplateError as error:
            raise Unfit(f"is refused by the chat template: {in_one_line(error)}") from error
