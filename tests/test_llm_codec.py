"""Texts and tokens: there and back, by words and by pieces of them, and a role asked word by word."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language import MANNER, TASK, bpe_tokenizer
from speakers import model_of
from torch import Tensor

from llm.codec import Codec, joined, word_tokenizer
from llm.examination import WordSpeaker, word_columns
from llm.roles import Whole
from llm.sampler import Completions
from llm.speech import Speech
from unified_irl.errors import UserError
from unified_irl.trajectories import Trajectories

torch.set_num_threads(1)

WORDS = Codec(word_tokenizer(TASK.words))
PIECES = Codec(bpe_tokenizer())
BOTH = pytest.mark.parametrize("codec", [WORDS, PIECES], ids=["words", "pieces"])
TEXTS = ("good", "a good good", "so ill", "", "b bad well so e")


def rows(behaviours: Trajectories) -> list[list[int]]:
    return behaviours.data["token"].tolist()


# There and back


@BOTH
def test_texts_come_back(codec: Codec) -> None:
    for text in TEXTS:
        for ended in (True, False):
            tokens = codec.completion(text, ended)
            assert codec.text(tokens) == text
            assert (tokens[-1:] == [codec.end]) == ended
            assert codec.end not in tokens[:-1]
        assert codec.prompt(text)[0] == codec.begin
        assert codec.text(codec.prompt(text)[1:]) == text


@BOTH
def test_behaviours_say_what_was_said(codec: Codec) -> None:
    contexts = codec.contexts(TASK.prompts)[torch.tensor([3, 0, 9, 4, 1, 3])]
    said, ended = [*TEXTS, "good"], [True, False, True, True, False, False]
    own = codec.trajectories(contexts, said, ended).validated("here")
    assert codec.texts(own) == (said, ended)
    assert own.context_id.tolist() == [3, 0, 9, 4, 1, 3]
    assert own.truncated.tolist() == [not over for over in ended]
    assert torch.equal(own.rewarded, own.mask)
    assert not bool(own.behaviour_log_prob.any())
    for row, mask, prompt in zip(own.data["token"], own.mask, own.context_id.tolist(), strict=True):
        asked = codec.prompt(TASK.prompts[prompt])
        assert row[: len(asked)].tolist() == asked
        assert int(mask.int().argmax()) == len(asked)


def test_a_completion_by_hand() -> None:
    """Padding, begin, end and unknown are 0 to 3, the letters 4 to 8, 'ask' 9, 'good' 11, 'bad' 12."""
    contexts = WORDS.contexts(("ask c", "ask", ""))
    assert contexts.data["token"].tolist() == [[1, 9, 6], [1, 9, 0], [1, 0, 0]]
    assert contexts.data["length"].tolist() == [3, 2, 1]
    own = WORDS.trajectories(contexts, ["good bad", "", "zebra"], [False, True, True])
    assert rows(own) == [[1, 9, 6, 11, 12], [1, 9, 2, 0, 0], [1, 3, 2, 0, 0]]
    assert own.mask.int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 1, 1, 0, 0]]
    assert own.terminated.tolist() == [False, True, True]
    assert WORDS.texts(own) == (["good bad", "", "<unknown>"], [False, True, True])


def test_what_is_nobody_s_word_stays_as_a_fault() -> None:
    assert WORDS.text([4, 0, 1, 11, 2]) == "a <pad> <begin> good"


@BOTH
def test_to_say_nothing_and_not_to_end_is_refused(codec: Codec) -> None:
    contexts = codec.contexts(("ask a", "ask b"))
    with pytest.raises(UserError, match="The completion '' has no token and no end; expected at least one of them"):
        codec.trajectories(contexts, ["good", ""], [True, False])


def test_a_tokenizer_of_pieces_needs_neither_padding_nor_begin() -> None:
    """It begins with the end of what came before; a completion's first word has the space before it, as in a text."""
    assert PIECES.tokenizer.pad_token_id is None
    assert PIECES.tokenizer.bos_token_id is None
    assert PIECES.begin == PIECES.end == PIECES.tokenizer.eos_token_id
    assert PIECES.prompt("ask c") + PIECES.completion("good well") == [
        PIECES.end, *PIECES.ids("ask c good well"), PIECES.end
    ]  # fmt: skip
    assert len(PIECES.ids("zebra")) > 1
    assert PIECES.text(PIECES.completion("zebra, gödel ✓")) == "zebra, gödel ✓"


@st.composite
def said(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and completions, of any lengths above zero."""
    tokens = st.lists(st.integers(1, 60), min_size=1, max_size=6)
    count = draw(st.integers(1, 5))
    return [draw(tokens) for _ in range(count)], [draw(tokens) for _ in range(count)]


@settings(max_examples=60, deadline=None)
@given(said(), st.integers(0, 3), st.integers(0, 3))
def test_rows_are_a_prompt_and_what_followed(
    both: tuple[list[list[int]], list[list[int]]], wider: int, longer: int
) -> None:
    """Whatever room prompts and completions were given, a row is the one behind the other, then zeros."""

    def table(given_: list[list[int]], extra: int) -> tuple[Tensor, Tensor]:
        width = max(map(len, given_)) + extra
        return torch.tensor([row + [0] * (width - len(row)) for row in given_]), torch.tensor([*map(len, given_)])

    prompts, completions = both
    contexts = WORDS.contexts(["a"] * len(prompts))
    contexts.data["token"], contexts.data["length"] = table(prompts, wider)
    token, length = table(completions, longer)
    over = length % 2 == 0
    own = joined(contexts, Completions(token, length, over, -token.float())).validated("here")
    width = max(len(one) + len(two) for one, two in zip(prompts, completions, strict=True))
    for k, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        rest = [0] * (width - len(prompt) - len(completion))
        assert own.data["token"][k].tolist() == [*prompt, *completion, *rest]
        assert own.mask[k].int().tolist() == [0] * len(prompt) + [1] * len(completion) + rest
        assert own.behaviour_log_prob[k].tolist() == [
            *(0.0 for _ in prompt),
            *(-float(one) for one in completion),
            *rest,
        ]
    assert torch.equal(own.terminated, over)
    assert torch.equal(own.truncated, ~over)


# Word by word


@BOTH
def test_a_role_is_asked_word_by_word(codec: Codec) -> None:
    """Against plain passes over prompt and words so far, one at a time."""
    model = model_of("llama")
    if codec is PIECES:
        model.resize_token_embeddings(len(codec.tokenizer))
    columns = word_columns(codec, TASK.words)
    assert columns is not None
    speaker = WordSpeaker(Speech(Whole(model), MANNER), codec, codec.contexts(TASK.prompts), columns)
    prompts, completions = torch.tensor([7, 0, 2]), ["good so", "", "a bad ill well"]
    log_next = speaker.log_next(prompts, completions)
    assert log_next.shape == (3, 5, 13)
    assert bool(log_next.isfinite().all())
    for row, (prompt, text) in enumerate(zip(prompts.tolist(), completions, strict=True)):
        words = text.split()
        for place in range(len(words) + 1):
            tokens = codec.prompt(TASK.prompts[prompt]) + codec.completion(" ".join(words[:place]), ended=False)
            with torch.no_grad():
                log_prob = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            expected = [log_prob[codec.completion(word)[0]] for word in TASK.words]
            torch.testing.assert_close(
                log_next[row, place].float(), torch.stack([*expected, log_prob[codec.end]]), atol=1e-4, rtol=0.0
            )


def test_words_that_are_cut_into_pieces_cannot_be_asked_for() -> None:
    assert word_columns(PIECES, [*TASK.words, "zebra"]) is None
    assert word_columns(WORDS, ["good", "zebra", "giraffe"]) is None, "both of them are unknown"
