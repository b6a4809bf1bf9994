"""Models from configs and folders: what is loaded, what is refused in which words, and what is never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from language import FAMILIES, TASK, TINY, bpe_tokenizer, cache_folder, domain, gpt2, saved, short
from safetensors.torch import load_file, save_file
from speakers import LENGTH, PROMPT, model_of, same, says
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    GraniteConfig,
    Lfm2Config,
    PreTrainedConfig,
    PreTrainedModel,
)

from llm import base, sampler
from llm.base import base_model, document_loss, taught
from llm.codec import Codec, word_tokenizer
from llm.config import LoRAConfig, ModelConfig
from llm.models import check_head, context_length, load, prepared
from llm.roles import Whole
from llm.sampler import check_sampler
from unified_irl.errors import UserError

torch.set_num_threads(1)


@torch.no_grad()
def heard(model: PreTrainedModel) -> torch.Tensor:
    logits: torch.Tensor = model(PROMPT, use_cache=False).logits
    return logits


# Made and loaded


@pytest.mark.parametrize("kind", [*FAMILIES, "gpt2"])
def test_a_folder_holds_the_model_that_was_saved(kind: str, tmp_path: Path) -> None:
    """To the bit; also of one whose input and output embeddings are the same, and in several files."""
    model = saved(tmp_path, kind)
    loaded, codec = base_model(ModelConfig(path=str(tmp_path)), TASK, tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(heard(loaded), heard(model))
    assert same(says(sampler, Whole(loaded), 0), says(sampler, Whole(model), 0))
    assert codec.end == 2
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again, _ = base_model(ModelConfig(path=str(tmp_path)), TASK, tmp_path)
    assert torch.equal(heard(again), heard(model))
    name = base.content_of(loaded)
    assert base.content_of(again) == name
    with torch.no_grad():
        next(iter(model.parameters()))[3, 3] += 1e-3
    assert base.content_of(model) != name


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_small_model_is_a_function_of_its_seed(kind: str) -> None:
    before = torch.get_rng_state()
    one, again, other = (heard(model_of(kind, base_seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_a_model_of_pieces_learns_like_one_of_words(tmp_path: Path) -> None:
    """A tokenizer of pieces, without padding and begin, through a whole round and an examination."""
    model, tokenizer = model_of("llama"), bpe_tokenizer()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    world = domain(model=ModelConfig(path=str(tmp_path)))
    assert world.voices.manner.end == tokenizer.eos_token_id
    parts = world.build(short("dpo"))
    assert world.preferences is not None
    first = world.codec.texts(world.preferences.first)
    assert world.codec.trajectories(world.contexts[world.preferences.first.context_id], *first).validated("again")
    metrics = world.evaluate(parts.policy, None)
    assert metrics["kl_to_start"] == pytest.approx(0.0, abs=1e-5)
    assert 0.0 < metrics["said_good"] < 1.0


@pytest.mark.parametrize(
    ("dtype", "rank", "kept"),
    [("float32", 0, "float32"), ("float32", 4, "float32"), ("bfloat16", 0, "float32"), ("bfloat16", 4, "bfloat16")],
)
def test_weights_that_learn_are_kept_in_single_precision(dtype: Any, rank: int, kept: str, tmp_path: Path) -> None:
    """Not even on their way from the file are they rounded."""
    model = saved(tmp_path)
    loaded, _ = load(ModelConfig(path=str(tmp_path), dtype=dtype, lora=LoRAConfig(rank=rank)))
    weights = dict(model.named_parameters())
    for name, value in loaded.named_parameters():
        assert value.dtype == getattr(torch, kept)
        assert torch.equal(value, weights[name].to(value.dtype))
    with Whole(loaded).active():
        assert torch.is_autocast_enabled("cpu") == (dtype == "bfloat16")


def test_how_long_a_text_may_be() -> None:
    """The window, where one slides that the sampler does not know of; Qwen2's setting says whether it does."""
    assert context_length(model_of("llama")) == 64
    mistral, qwen = model_of("mistral"), model_of("qwen")
    assert context_length(mistral) == context_length(qwen) == 64
    mistral.config.sliding_window = qwen.config.sliding_window = 16
    assert context_length(mistral) == 16
    assert context_length(qwen) == 64
    qwen.config.use_sliding_window = True
    assert context_length(qwen) == 16


# What is refused


def change(file: Path, **facts: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


def weights(folder: Path, turn: Callable[[str, torch.Tensor], torch.Tensor | None]) -> None:
    """Every tensor is replaced by what it is turned into, or left out."""
    file = folder / "model.safetensors"
    kept = {name: turn(name, value) for name, value in load_file(file).items()}
    save_file({name: value for name, value in kept.items() if value is not None}, file, {"format": "pt"})


def in_pieces(folder: Path) -> list[Path]:
    (folder / "model.safetensors").unlink()
    model_of("llama").save_pretrained(folder, max_shard_size="30KB")
    return sorted(folder.glob("model-*.safetensors"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def pickled(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def pickled_beside_others(folder: Path) -> None:
    """The weights themselves as a pickle, and something else that is none."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "notes.safetensors")


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("token*"):
        file.unlink()


NAN, INFINITE = float("nan"), float("inf")
WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, r"There is no folder \S+; expected that of a model, or the name of one on the hub\."),
    "no config": (lambda at: (at / "config.json").unlink(), r"holds no config\.json; expected the folder of a model"),
    "damaged config": (lambda at: (at / "config.json").write_text("{"), "cannot be loaded: .* not a valid JSON"),
    "unknown kind": (lambda at: change(at / "config.json", model_type="oracle"), "cannot be loaded: .* type `oracle`"),
    "other kind": (lambda at: change(at / "config.json", model_type="t5"), "cannot be loaded: Unrecognized config"),
    "impossible": (lambda at: change(at / "config.json", num_attention_heads=7), "cannot be loaded: .* not a multiple"),
    "a word": (lambda at: change(at / "config.json", hidden_size="wide"), "cannot be loaded: .* expected int, got str"),
    "no weights": (lambda at: (at / "model.safetensors").unlink(), r"holds no weights; expected \.safetensors"),
    "a pickle": (pickled, r"holds only pytorch_model\.bin, a pickle, which can run code when it is read; expected"),
    "an adapter": (with_an_adapter, "holds an adapter beside or instead of a whole model; merge the two"),
    "a pickle beside others": (pickled_beside_others, "cannot be loaded: .* no file named model.safetensors"),
    "cut short": (lambda at: cut(at / "model.safetensors"), "cannot be loaded: .* incomplete metadata"),
    "empty": (lambda at: (at / "model.safetensors").write_bytes(b""), "cannot be loaded: .* header too small"),
    "another name": (
        lambda at: (at / "model.safetensors").rename(at / "w.safetensors"),
        "cannot be loaded: .* no file",
    ),
    "a missing tensor": (
        lambda at: weights(at, lambda name, value: None if "1.mlp.up" in name else value),
        r"lack model\.layers\.1\.mlp\.up_proj\.weight, which the model has according to its config\.json; restore",
    ),
    "another shape": (
        lambda at: weights(at, lambda name, value: value[:, :8].contiguous() if "lm_head" in name else value),
        "cannot be loaded: ",
    ),
    "NaN": (
        lambda at: weights(at, lambda name, value: value * (NAN if "1.mlp.up" in name else 1.0)),
        r"weights hold NaN or infinite numbers, first in model\.layers\.1\.mlp\.up_proj\.weight; restore a sound copy",
    ),
    "infinite": (
        lambda at: weights(at, lambda name, value: value.fill_(INFINITE) if "lm_head" in name else value),
        r"weights hold NaN or infinite numbers, first in lm_head\.weight; restore a sound copy",
    ),
    "a missing piece": (
        lambda at: in_pieces(at)[1].unlink(),
        r"lacks model-00002-of-\d+\.safetensors, which its index names; copy the whole folder",
    ),
    "a piece cut short": (lambda at: cut(in_pieces(at)[1]), "cannot be loaded: .* incomplete metadata"),
    "a damaged index": (
        lambda at: [in_pieces(at), (at / "model.safetensors.index.json").write_text('{"weight_map": [1]}')],
        r"index\.json is damaged; restore it from where the model came from",
    ),
    "a senseless index": (
        lambda at: [in_pieces(at), (at / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')],
        r"lacks 3, which its index names",
    ),
    "no tokenizer": (without_tokenizer, "cannot be loaded: .* tokenizer"),
    "a damaged tokenizer": (lambda at: (at / "tokenizer.json").write_text("{"), "cannot be loaded: "),
    "no end": (
        lambda at: change(at / "tokenizer_config.json", eos_token=None),
        r"has no end-of-text token, so a completion could never end; name one as eos_token",
    ),
    "a foreign tokenizer": (
        lambda at: word_tokenizer([f"w{k}" for k in range(90)]).save_pretrained(at),
        "has 94 tokens, but the model knows 64; take the tokenizer that the model was trained with",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_that_holds_no_sound_model_is_refused(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    saved(folder)
    spoil, said = WRONG[what]
    spoil(folder)
    with pytest.raises(UserError, match=said) as refused:
        load(ModelConfig(path=str(folder)))
    assert str(folder) in str(refused.value) or what in ("NaN", "infinite")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["nobody/nothing", "nothing"])
def test_a_name_that_is_not_on_this_machine_is_not_looked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asking for it, nobody calls the hub."""
    import socket

    def call(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was called")

    monkeypatch.setattr(socket.socket, "connect", call)
    monkeypatch.setattr(socket, "getaddrinfo", call)
    with pytest.raises(
        UserError, match=rf"no model {name} on this machine, .* set model\.allow_download to ask the hub"
    ):
        load(ModelConfig(path=name))


# What is never run


def test_code_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    """Neither that of a model nor that of a tokenizer; a file of code that nobody names does no harm."""
    mark = tmp_path / "was run"
    for number, where in enumerate(("config.json", "tokenizer_config.json", "")):
        folder = tmp_path / str(number)
        model = saved(folder)
        (folder / "modeling.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
        kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
        if where:
            change(folder / where, auto_map=dict.fromkeys(kinds, "modeling.Anything"), model_type="anything")
            with pytest.raises(UserError, match=r"brings code of its own, which is not run unless asked for; read it"):
                load(ModelConfig(path=str(folder)))
        else:
            assert torch.equal(heard(load(ModelConfig(path=str(folder)))[0]), heard(model))
    assert not mark.exists()


class Payload:
    """A pickle that leaves a mark when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    mark, folder = tmp_path / "was read", tmp_path / "model"
    model = saved(folder)
    torch.save(Payload(mark), folder / "pytorch_model.bin")
    assert torch.equal(heard(load(ModelConfig(path=str(folder)))[0]), heard(model)), (
        "beside sound weights it is no matter"
    )
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="a pickle"):
        load(ModelConfig(path=str(folder)))
    assert not mark.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert mark.exists(), "it would have left its mark"


# What cannot be taught here


def made(config: PreTrainedConfig, attention: str = "sdpa") -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return prepared(model, ModelConfig())


COMMON: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip


def biased() -> PreTrainedModel:
    model = model_of("llama")
    head = nn.Linear(32, 64)
    head.weight = model.get_output_embeddings().weight  # type: ignore[union-attr]
    model.set_output_embeddings(head)
    return model


@pytest.mark.parametrize(
    "strange",
    [
        biased,
        lambda: made(Gemma2Config(**COMMON, head_dim=8, final_logit_softcapping=0.5), "eager"),
        lambda: made(GraniteConfig(**COMMON, logits_scaling=2.0)),
    ],
    ids=["bias", "cap", "scale"],
)
def test_logits_that_are_no_plain_product_are_refused(strange: Callable[[], PreTrainedModel]) -> None:
    said = r"The logits of here are not the plain product .* \(a bias, a scale or a cap is in between\)"
    with pytest.raises(UserError, match=said):
        check_head(strange(), "here")


@pytest.mark.parametrize(
    "strange",
    [
        lambda: made(
            FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True)
        ),
        lambda: made(Lfm2Config(**COMMON, layer_types=["conv", "full_attention"])),
    ],
    ids=["positions by distance", "convolutions"],
)
def test_models_that_cannot_be_sampled_are_refused(strange: Callable[[], PreTrainedModel]) -> None:
    with pytest.raises(
        UserError, match=r"here does not say token by token, .* in one pass \(.*\); choose a model with"
    ):
        check_sampler(strange(), "here")


def test_a_model_that_looks_at_positions_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that counts padding as positions says other things beside a longer prompt."""
    model = gpt2()
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(20.0)
    check_sampler(model, "here")
    said = model.transformer.forward
    monkeypatch.setattr(model.transformer, "forward", lambda *a, **b: said(*a, **b | {"position_ids": None}))
    with pytest.raises(UserError, match=r"in one pass \(they differ by .* nats\)"):
        check_sampler(model, "here")


@pytest.mark.parametrize("kind", [*FAMILIES, "grouped"])
@pytest.mark.parametrize(("dtype", "rank"), [("float32", 0), ("bfloat16", 0), ("bfloat16", 4)])
def test_what_can_be_taught_passes(kind: str, dtype: str, rank: int) -> None:
    model = model_of(kind, dtype=dtype, lora=LoRAConfig(rank=rank))
    check_head(model, "here")
    check_sampler(model, "here")


# The base that has read a task's corpus


def test_a_base_is_taught_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And kept by what it was taught, which seed and shape are part of; nothing else is left in the cache."""
    folder = taught(TINY, TASK, tmp_path)
    monkeypatch.setattr(base, "teach", lambda *_: pytest.fail("it was taught again"))
    assert taught(TINY, TASK, tmp_path) == folder
    assert taught(replace(TINY, lora=LoRAConfig(rank=4), dtype="bfloat16"), TASK, tmp_path) == folder
    monkeypatch.undo()
    others = [replace(TINY, base_seed=1), replace(TINY, documents=401), replace(TINY, family="llama")]
    folders = {folder, *(taught(config, TASK, tmp_path) for config in others)}
    assert len(folders) == 4
    assert set((tmp_path / "bases").iterdir()) == folders
    assert "Writing" not in capsys.readouterr().err
    again = taught(TINY, TASK, tmp_path / "elsewhere")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_teaching_lowers_the_loss() -> None:
    """From that of 16 words guessed, ln 16 = 2.77, to below 2; by hand, −log π of every token but the first."""
    model, codec = base_model(replace(TINY, documents=3000), TASK, cache_folder())
    texts = TASK.corpus(20, torch.Generator().manual_seed(123))
    rows = [[codec.begin, *codec.ids(text), codec.end] for text in texts]
    token, length = base._table(rows)
    with torch.no_grad():
        loss = float(document_loss(model, token, length))
        total = 0.0
        for row in rows:
            log_prob = model(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
            total -= float(log_prob.gather(1, torch.tensor(row[1:])[:, None]).sum())
    assert loss == pytest.approx(total / sum(len(row) - 1 for row in rows), rel=1e-4)
    assert loss < 2.0


def test_a_damaged_base_says_how_it_is_mended(tmp_path: Path) -> None:
    folder = taught(TINY, TASK, tmp_path)
    cut(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"is damaged \(.*\); delete that folder, and it is taught anew"):
        base_model(TINY, TASK, tmp_path)
    shutil.rmtree(folder)
    base_model(TINY, TASK, tmp_path)


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "bases").write_text("in the way")
    with pytest.raises(
        UserError, match=r"cannot be kept in .*; free space, or set cache to a folder that can be written"
    ):
        taught(TINY, TASK, tmp_path)


def test_a_base_leaves_room_for_prompts_and_completions() -> None:
    model, codec = base_model(TINY, TASK, cache_folder())
    longest = max(len(codec.prompt(text)) for text in TASK.prompts)
    assert longest + TASK.max_words <= context_length(model) <= 64
    assert isinstance(codec, Codec)
    assert len(codec.tokenizer) == model.config.vocab_size == len(TASK.words) + 4
    assert int(LENGTH.max()) < 64
