"""What every domain owes the core, as small named checks. A new domain calls `check_domain` in its tests."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace

import torch

from unified_irl.batch import Normaliser
from unified_irl.conformance_bench import (
    JOINT,
    NUM_QUERIES,
    Bench,
    JunkOutside,
    close,
    must,
    reloaded,
    same,
    samplers,
    shows,
    watched,
)
from unified_irl.contracts import Domain
from unified_irl.implicit import ImplicitReward
from unified_irl.methods import METHODS, Method
from unified_irl.objectives import returns
from unified_irl.rows import Query


def check_domain(
    domain: Domain,
    method_rows: Iterable[Method] = (METHODS["aihf"], METHODS["self-play-aihf"]),
    seed: int = 0,
    contexts_are_chosen: bool = True,
    somebody_answers: bool = False,
) -> list[str]:
    """The names of the checks passed; a broken promise is an AssertionError: name, method, sentence.

    `somebody_answers` adds the checks of a domain that can be asked while it is learnt in.
    """
    passed = []
    for row in method_rows:
        for check in (*CHECKS, *(ANSWERS if somebody_answers else ())):
            name = f"{check.__name__} ({row.name})"
            try:
                check(Bench(domain, row, seed, contexts_are_chosen))
            except Exception as error:
                raise AssertionError(f"{name}: {error}") from error
            passed.append(name)
    return passed


def contexts_are_numbered(bench: Bench) -> None:
    contexts = bench.domain.contexts
    must(same(contexts.ids, torch.arange(len(contexts))), "the ids of the contexts must be 0, 1, 2, …")
    must(all(len(value) == len(contexts) for value in contexts.data.values()), "contexts need data for every id.")


def data_are_valid(bench: Bench) -> None:
    if (shown := bench.domain.demonstrations) is not None:
        ids, count = shown.validated().trajectories.context_id, len(bench.domain.contexts)
        must(bool(((ids >= -1) & (ids < count)).all()), "a demonstration answers a context that does not exist.")
    if bench.domain.preferences is not None:
        bench.domain.preferences.validated()


def builds_start_afresh(bench: Bench) -> None:
    first, again = (bench.build() for _ in range(2))
    before = bench.seen(first.policy, first.reference.log_prob, first.reward)
    bench.trained(first)
    seen = bench.seen(again.policy, again.reference.log_prob, again.reward)
    must(same(before, seen), "two builds of one method must be alike, and training one must not move the other.")


def samples_answer_their_contexts(bench: Bench) -> None:
    for who, sampler in samplers(bench.build()):
        answer = sampler.sample(bench.asked, bench.draw("answer")).validated(f"samples of the {who}")
        must(same(answer.context_id, bench.asked.ids), f"the {who} must answer each context once, in their order.")
        must(not bool(answer.start_step.any()), f"the {who} must give whole behaviours, from their first step on.")


def samples_depend_on_the_generator(bench: Bench) -> None:
    for who, sampler in samplers(bench.trained()):
        drawn = []
        for name, elsewhere in (("one", 1), ("one", 2), ("two", 1)):
            with torch.random.fork_rng():
                torch.manual_seed(elsewhere)
                drawn.append(sampler.sample(bench.contexts, bench.draw(name)).state_dict())
        must(same(drawn[0], drawn[1]), f"the {who} must act alike with generators of one seed.")
        must(not same(drawn[0], drawn[2]), f"the {who} must act differently with generators of different seeds.")


def log_probs_fit_the_samples(bench: Bench) -> None:
    parts = bench.trained()
    must(not parts.reference.log_prob(bench.shown).requires_grad, "the reference must carry no gradient.")
    for who, sampler in samplers(parts):
        own = sampler.sample(bench.contexts, bench.draw("own"))
        for some in (bench.shown, own):
            log_prob, learns = sampler.log_prob(some).cpu(), who == "policy"
            must(log_prob.shape == some.mask.shape, f"log_prob of the {who} must be of shape [behaviours, steps].")
            must(not bool(log_prob[~some.mask].any()), f"log_prob of the {who} must be zero off the mask.")
            must(log_prob.requires_grad == learns, f"the policy's log_prob alone must carry a gradient ({who}).")
        close(f"log_prob of the {who} must be what it was in acting", sampler.log_prob(own), own.behaviour_log_prob)


def frozen_stays(bench: Bench) -> None:
    parts = bench.trained()
    frozen = parts.policy.frozen()
    before, acts = bench.seen(frozen), [one.sample(bench.contexts, bench.draw("a")) for one in (frozen, parts.policy)]
    must(same(*(one.data for one in acts)), "frozen() must act like the policy it is taken from.")
    close("frozen() must speak like the policy", frozen.log_prob(bench.shown), parts.policy.log_prob(bench.shown))
    bench.trained(parts)
    must(same(before, bench.seen(frozen)), "what frozen() gave must stay as it is while the policy learns.")


def descent_goes_down(bench: Bench) -> None:
    for one in bench.learning(bench.build(micro_batch_size=3)):
        stands, _ = float(bench.measure(one)), bench.descend(one, step_size=0.0)
        measured, first, then = (float(does(one)) for does in (bench.measure, bench.descend, bench.measure))
        must(abs(measured - stands) <= 1e-6, f"a step of no length must leave the {one.who} where it stands.")
        must(abs(measured - first) <= 1e-6, f"measure must say what descend says of the {one.who}, and learn nothing.")
        must(then < first, f"a small step must lower the loss of the {one.who}; it goes from {first:g} to {then:g}.")


def micro_batches_add_up(bench: Bench) -> None:
    whole, pieces = (bench.learning(bench.build(micro_batch_size=size)) for size in (0, 1))
    for one, other in zip(whole, pieces, strict=True):
        close(f"the losses of micro-batches must add up ({one.who})", *(bench.descend(each) for each in (other, one)))
        close(f"micro-batches must move the {one.who} like one batch", other.says(bench.shown), one.says(bench.shown))


def micro_batches_keep_pairs_and_normaliser(bench: Bench) -> None:
    given = {name: value if value is None else 3.0 * value for name, value in vars(bench.batch.normaliser()).items()}
    for one in bench.learning(bench.build(micro_batch_size=3)):
        loss, pieces, scales = watched(one.loss)
        one.learner.descend(loss, bench.marked, Normaliser(**given))
        must(all(same(vars(scale), given) for scale in scales), f"the {one.who} must pass its normaliser on.")
        shown, own = ([getattr(piece, name).weight for piece in pieces] for name in ("demonstrations", "own"))
        must(same(shown, own), f"descend of the {one.who} must keep each demonstration with its own sample.")
        must(same(torch.cat(shown).sort()[0], bench.marks), f"descend of the {one.who} must see each row once.")


def checkpoints_hold_everything(bench: Bench) -> None:
    parts, others = bench.trained(bench.build_with_memory()), bench.build_with_memory()
    here, there = bench.held(parts), bench.held(others)
    for other, state in zip(there, reloaded([one.state_dict() for one in here]), strict=True):
        other.load_state_dict(state)
    must(same(bench.seen(*here), bench.seen(*there)), "a checkpoint must bring back what was saved.")
    bench.trained(parts)
    bench.trained(others)
    must(same(bench.seen(*here), bench.seen(*there)), "learning must go on as if it had never been interrupted.")
    must(same(*([one.state_dict() for one in side] for side in (here, there))), "states must go on alike, too.")


def improve_climbs_and_touches_nothing_else(bench: Bench) -> None:
    parts = bench.trained()
    if parts.reward is None:
        return
    bench.descend(bench.learning(parts)[1])  # a policy that is best for its reward already would stay where it is
    still, before = bench.seen(parts.reward, parts.reference.log_prob), bench.seen(parts.policy)
    metrics, own = bench.improve(parts, parts.reward)
    own.validated("behaviours of improve")
    answered = set(bench.contexts.ids.tolist()) <= set(own.context_id.tolist()) or not bench.chosen
    must(answered and not bool(own.start_step.any()), "improve must hand back whole behaviours for each context.")
    must(math.isfinite(metrics.get("policy_loss", math.nan)), f"improve must say 'policy_loss'; got {metrics}.")
    must(not same(before, bench.seen(parts.policy)), "improve must move the policy.")
    must(same(still, bench.seen(parts.reward, parts.reference.log_prob)), "improve must not move reward or reference.")


def only_rewarded_steps_count(bench: Bench) -> None:
    plain, junk = bench.trained(), bench.trained()
    must(bench.reward(plain)(bench.padded).requires_grad, "the reward must be differentiable.")
    if plain.reward is not None:
        bench.improve(plain, plain.reward)
        bench.improve(junk, JunkOutside(junk.reward))
    must(same(bench.seen(plain.policy), bench.seen(junk.policy)), "improve must not read the reward off `rewarded`.")


def padding_changes_nothing(bench: Bench) -> None:
    parts, both = bench.trained(), (bench.padded, bench.shown)
    reward, num_steps = bench.reward(parts), bench.shown.num_steps
    close("log_prob must not depend on padding", *(parts.policy.log_prob(one)[:, :num_steps] for one in both))
    gamma, batches = bench.method.gamma, [replace(bench.batch, demonstrations=one) for one in both]
    close("returns must not depend on padding", *(returns(reward(one).cpu(), one.discount(gamma)) for one in both))
    for one in bench.learning(parts):
        losses = (bench.measure(one, batch) for batch in batches)
        close(f"the loss of the {one.who} must not depend on padding", *losses)


def evaluation_is_only_looking(bench: Bench) -> None:
    parts = bench.trained()
    state = copy.deepcopy([one.state_dict() for one in bench.held(parts)])
    metrics = bench.domain.evaluate(parts.policy, bench.reward(parts))
    finite = all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    must(finite and "score" in metrics, f"evaluate must give finite floats, 'score' among them; got {metrics}.")
    must(same(state, [one.state_dict() for one in bench.held(parts)]), "evaluate must leave policy and reward alone.")


def implicit_reward_moves_the_policy_alone(bench: Bench) -> None:
    parts = bench.trained()
    reference = parts.policy.frozen()
    reward = ImplicitReward(parts.policy, reference, bench.method.beta)
    close("the implicit reward must be zero where policy is reference", reward(bench.shown), torch.zeros(1))
    before, still = bench.seen(parts.policy), bench.seen(reference)
    parts.policy.descend(bench.loss(parts, JOINT, reward), bench.batch, bench.batch.normaliser())
    must(not same(before, bench.seen(parts.policy)), "a loss of the implicit reward must move the policy.")
    must(same(still, bench.seen(reference)), "a loss of the implicit reward must not move its reference.")


def answers_are_about_what_was_done(bench: Bench) -> None:
    parts, held = bench.trained(), bench.domain.preferences
    own = bench.done_twice(parts)
    for query in queries_of(bench):
        answers = bench.ask(parts, own, query, "ask")
        must(answers is not None and len(answers) > 0, f"asked about different behaviours ({query}), somebody answers.")
        assert answers is not None
        answers.validated(f"answers ({query})")
        must(
            len(answers) <= NUM_QUERIES, f"at most {NUM_QUERIES} answers were asked for ({query}); {len(answers)} came."
        )
        for side in (answers.first, answers.second):
            must(all(shows(side, own)), f"answers ({query}) must be about the given behaviours, or pieces of them.")
        must(held is None or held.level == answers.level, f"answers ({query}) must be at the level of the comparisons.")


def answers_depend_on_the_generator(bench: Bench) -> None:
    parts = bench.trained()
    own = bench.done_twice(parts)
    for query in queries_of(bench):
        drawn = []
        for name, elsewhere in (("one", 1), ("one", 2), ("two", 1)):
            with torch.random.fork_rng():
                torch.manual_seed(elsewhere)
                drawn.append(bench.said(parts, own, query, name))
        must(same(drawn[0], drawn[1]), f"generators of one seed must give the same answers ({query}).")
        must(query != "uniform" or not same(drawn[0], drawn[2]), "generators of different seeds must ask differently.")


def asking_changes_nothing(bench: Bench) -> None:
    parts = bench.trained()
    own = bench.done_twice(parts)
    states = [own.state_dict(), *(one.state_dict() for one in bench.held(parts))]
    before = copy.deepcopy(states)
    for query in queries_of(bench):
        bench.ask(parts, own, query, "ask")
    after = [own.state_dict(), *(one.state_dict() for one in bench.held(parts))]
    must(same(before, after), "asking must leave the behaviours, the policy and the reward as they are.")


def queries_of(bench: Bench) -> tuple[Query, ...]:
    """What the method can ask by, in any domain."""
    return ("uniform", "entropy") if bench.method.reward == "explicit" else ("uniform",)


CHECKS = (
    contexts_are_numbered, data_are_valid, builds_start_afresh, samples_answer_their_contexts,
    samples_depend_on_the_generator, log_probs_fit_the_samples, frozen_stays, descent_goes_down, micro_batches_add_up,
    micro_batches_keep_pairs_and_normaliser, checkpoints_hold_everything, improve_climbs_and_touches_nothing_else,
    only_rewarded_steps_count, padding_changes_nothing, evaluation_is_only_looking,
    implicit_reward_moves_the_policy_alone,
)  # fmt: skip
ANSWERS = (answers_are_about_what_was_done, answers_depend_on_the_generator, asking_changes_nothing)
