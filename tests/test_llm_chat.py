"""Conversations as tokens: what the assistant chose, in five templates, token by token as written down by hand.

Each template writes messages as a family of models does. The tokenizer makes one token of a word, of a space and of a
line end, so that an expectation can be read: tokens are divided by bars, and what was chosen stands in brackets.
"""

from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llm.data.chat import Scribe, Spoken
from llm.data.records import Unfit
from unified_irl.errors import UserError

SPECIAL = (
    "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|system|>", "<|assistant|>", "<|begin|>", "<|head|>",
    "<|/head|>", "<|eot|>", "<turn>", "</turn>", "[INST]", "[/INST]",
)  # fmt: skip
WORDS = (
    "be",
    "kind",
    "hi",
    "hello",
    "you",
    "how",
    "fine",
    "thanks",
    "system",
    "user",
    "assistant",
    "model",
    " ",
    "\n",
    ".",
    "?",
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA = (
    "<|begin|>{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}<s>"
    "{% for m in rest %}{% if m.role == 'user' %}[INST] {% if loop.first %}{{ first }}{% endif %}"
    "{{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
GEMMA = (
    "<s>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m.role %}"
    "{% endif %}<turn>{{ role }}\n{{ m.content }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split(' ')[-1] }}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of earlier answers only the last word is kept, as some drop earlier thoughts."""
ENDLESS = (
    "{% for m in messages %}{{ m.role }} {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)

SYSTEM = ("system", "be kind")
ONE = (("user", "hi you"), ("assistant", "hello"))
TWO = (*ONE, ("user", "how?"), ("assistant", "fine thanks."))

EXPECTED = {
    "chatml": (
        CHATML, (SYSTEM, *TWO), "<|im_end|>",
        r"<|im_start|>|system|\n|be| |kind|<|im_end|>|\n|<|im_start|>|user|\n|hi| |you|<|im_end|>|\n|"
        r"<|im_start|>|assistant|\n|[hello]|[<|im_end|>]|\n|<|im_start|>|user|\n|how|?|<|im_end|>|\n|"
        r"<|im_start|>|assistant|\n|"
        r"[fine]|[ ]|[thanks]|[.]|[<|im_end|>]",
    ),
    "zephyr": (
        ZEPHYR, (SYSTEM, *TWO), "</s>",
        r"<|system|>|\n|be| |kind|</s>|\n|<|user|>|\n|hi| |you|</s>|\n|<|assistant|>|\n|[hello]|[</s>]|\n|"
        r"<|user|>|\n|how|?|</s>|\n|<|assistant|>|\n|[fine]|[ ]|[thanks]|[.]|[</s>]",
    ),
    "llama": (
        LLAMA, (SYSTEM, *TWO), "<|eot|>",
        r"<|begin|>|<|head|>|system|<|/head|>|\n|\n|be| |kind|<|eot|>|<|head|>|user|<|/head|>|\n|\n|hi| |you|<|eot|>|"
        r"<|head|>|assistant|<|/head|>|\n|\n|[hello]|[<|eot|>]|<|head|>|user|<|/head|>|\n|\n|how|?|<|eot|>|"
        r"<|head|>|assistant|<|/head|>|\n|\n|[fine]|[ ]|[thanks]|[.]|[<|eot|>]",
    ),
    "mistral": (
        MISTRAL, (SYSTEM, *TWO), "</s>",
        r"<s>|[INST]| |be| |kind|\n|\n|hi| |you| |[/INST]|[ ]|[hello]|[</s>]|[INST]| |how|?| |[/INST]|"
        r"[ ]|[fine]|[ ]|[thanks]|[.]|[</s>]",
    ),
    "gemma": (
        GEMMA, TWO, "</turn>",
        r"<s>|<turn>|user|\n|hi| |you|</turn>|\n|<turn>|model|\n|[hello]|[</turn>]|\n|<turn>|user|\n|how|?|</turn>|\n|"
        r"<turn>|model|\n|[fine]|[ ]|[thanks]|[.]|[</turn>]",
    ),
}  # fmt: skip


def tokenizer(template: str | None, end: str = "</s>") -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(("<unknown>", *SPECIAL, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s|\w+|[^\w\s]"), "isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unknown>", bos_token="<s>", eos_token=end,
        additional_special_tokens=list(SPECIAL),
    )  # fmt: skip
    made.chat_template = template
    return made


def read(expected: str) -> list[tuple[str, bool]]:
    """Tokens divided by bars (those that have bars themselves are known), and whether brackets say they were chosen."""
    held = expected.replace("|>", "¦>").replace("<|", "<¦")
    parts = [part.replace("¦", "|").replace("\\n", "\n") for part in held.split("|")]
    known = {*SPECIAL, *WORDS}
    return [(part, False) if part in known else (part[1:-1], True) for part in parts]


def told(scribe: Scribe, spoken: Spoken) -> list[tuple[str, bool]]:
    chosen = {place for begin, end in spoken.answers for place in range(begin, end)}
    tokens = scribe.tokenizer.convert_ids_to_tokens(spoken.tokens)
    return [(token, place in chosen) for place, token in enumerate(tokens)]


@pytest.mark.parametrize("name", EXPECTED)
def test_all_answers_of_a_conversation(name: str) -> None:
    template, conversation, end, expected = EXPECTED[name]
    scribe = Scribe(tokenizer(template))
    spoken = scribe.spoken(conversation[:-1], conversation[-1:], all_answers=True)
    assert told(scribe, spoken) == read(expected)
    assert scribe.tokenizer.convert_ids_to_tokens(scribe.end) == end


@pytest.mark.parametrize("name", EXPECTED)
def test_the_last_answer_alone(name: str) -> None:
    """The same tokens, of which only the last answer was chosen; what comes before is what one would sample from."""
    template, conversation, _, expected = EXPECTED[name]
    scribe = Scribe(tokenizer(template))
    spoken = scribe.spoken(conversation[:-1], conversation[-1:])
    every = read(expected)
    last = max(place for place, (_, chosen) in enumerate(every) if not chosen)
    assert told(scribe, spoken) == [(token, chosen and place > last) for place, (token, chosen) in enumerate(every)]
    assert spoken.prompt == scribe.prompt(conversation[:-1]) == spoken.tokens[: last + 1]


def test_what_a_template_will_not_write_is_said() -> None:
    scribe = Scribe(tokenizer(GEMMA))
    with pytest.raises(Unfit, match="is refused by the chat template: System role not supported"):
        scribe.spoken((SYSTEM, *TWO[:-1]), TWO[-1:])


def test_a_template_that_rewrites_history_is_refused() -> None:
    scribe = Scribe(tokenizer(FORGETFUL))
    again = (*TWO, ("user", "hi"), ("assistant", "hello"))
    with pytest.raises(UserError, match="writes an answer differently once other messages follow"):
        scribe.spoken(again[:-1], again[-1:], all_answers=True)
    spoken = scribe.spoken(again[:-1], again[-1:])
    assert [token for token, chosen in told(scribe, spoken) if chosen] == ["hello", "<|im_end|>"]
    assert spoken.prompt == scribe.prompt(again[:-1])


def test_a_template_that_invites_otherwise_than_it_answers_is_refused() -> None:
    scribe = Scribe(tokenizer(CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>model\n{% endif %}")))
    with pytest.raises(UserError, match="invites it with other words than it begins with"):
        scribe.spoken(ONE[:-1], ONE[-1:])


def test_an_answer_without_an_end_gets_the_tokenizers() -> None:
    scribe = Scribe(tokenizer(ENDLESS))
    spoken = scribe.spoken(TWO[:-1], TWO[-1:], all_answers=True)
    assert told(scribe, spoken) == read(
        r"user| |hi| |you|\n|assistant| |[hello]|[\n]|user| |how|?|\n|assistant| |[fine]|[ ]|[thanks]|[.]|[\n]|[</s>]"
    )


def test_an_empty_answer_ends_at_once() -> None:
    scribe = Scribe(tokenizer(CHATML))
    spoken = scribe.spoken(ONE[:1], (("assistant", ""),))
    assert [token for token, chosen in told(scribe, spoken) if chosen] == ["<|im_end|>"]


def test_conversations_need_a_template() -> None:
    with pytest.raises(UserError, match="the model's tokenizer has no chat template; give one with"):
        Scribe(tokenizer(None)).spoken(ONE[:1], ONE[1:])


def test_plain_texts() -> None:
    scribe = Scribe(tokenizer(None))
    assert told(scribe, scribe.spoken("hi you", " hello")) == read("hi| |you|[ ]|[hello]|[</s>]")
    assert told(scribe, scribe.spoken("", "hello")) == read("<s>|[hello]|[</s>]"), "something has to come first"
    assert told(scribe, scribe.spoken("hi", "")) == read("hi|[</s>]")


def test_a_token_never_reaches_from_a_prompt_into_its_answer() -> None:
    """`thanks` is one token, but not where its first half was asked and its second half answered."""
    scribe = Scribe(tokenizer(None))
    spoken = scribe.spoken("tha", "nks")
    assert told(scribe, spoken) == [("<unknown>", False), ("<unknown>", True), ("</s>", True)]
    assert spoken.prompt == scribe.prompt("tha")
