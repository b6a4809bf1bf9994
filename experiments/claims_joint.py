"""What AIHF says of learning from demonstrations and preferences at once."""

from __future__ import annotations

from experiments.claims import Claim
from experiments.evidence import Ahead, FixedPoint, Level, OverGrid

AIHF = "AIHF (arXiv 2406.06874v2), abstract"
GPU = "Needs a GPU, and data and a model from the hub."
LANGUAGE = (
    ("language-walks.json", "walks-text"),
    ("language-walks-75.json", "walks-text"),
    ("language-walks-25.json", "walks-text"),
    ("language.json", "reviews"),
    ("language.json", "instructions"),
)
SLIPS = (("language-walks-slips.json", "walks-text"),)
"""Demonstrators that slip three times in ten, and 24 comparisons; without rft."""
SMALL = (
    "models of two layers taught here; 200 demonstrations (walks-text also 75 and 25), 200 comparisons; walks-text "
    "also with demonstrators that slip and 24 comparisons"
)
ROBOTS = (
    ("control-quick.json", "pendulum"),
    ("control-quick.json", "inverted-double-pendulum"),
    ("control-halfcheetah.json", "halfcheetah"),
)
SIMULATED = "one demonstration of our own experts; halfcheetah cut to 100,000 updates"
EXACT = "exact world, 20 graphs, 24 places of the grid"


def in_language(second: str, first: str = "aihf") -> tuple[Ahead, ...]:
    where = (*LANGUAGE, *SLIPS) if first == "aihf" else LANGUAGE
    return tuple(Ahead(file=file, task=task, first=first, second=second) for file, task in where)


def on_robots(second: str, first: str = "aihf") -> tuple[Ahead, ...]:
    return tuple(Ahead(file=file, task=task, first=first, second=second) for file, task in ROBOTS)


JOINT: tuple[Claim, ...] = (
    Claim(
        name="joint-beats-stages",
        says="Learning in successive stages under-uses the data; learning jointly aligns the policy better than RLHF.",
        source=AIHF,
        command="unified-irl science joint",
        scale=EXACT,
        evidence=(
            OverGrid(first="aihf", second="rlhf"),
            OverGrid(first="aihf", second="rlhf", where={"slips": 0.0}),
            OverGrid(first="aihf", second="rlhf", where={"slips": 0.3, "num_preferences": 128}),
        ),
        remark="Where demonstrators slip and comparisons are many, an even weighting loses to stages.",
    ),
    Claim(
        name="joint-beats-each",
        says="Using both kinds of feedback improves on using either alone.",
        source=f"{AIHF} and title",
        command="unified-irl science joint",
        scale=EXACT,
        evidence=tuple(OverGrid(first="aihf", second=other) for other in ("bc", "ml-irl", "dpo", "direct-aihf")),
        remark="Against `bc`, `ml-irl` and `dpo`, the joint method also has more data.",
    ),
    Claim(
        name="weighted-average",
        says="The joint policy is about a weighted average of those of IRL and RLHF, and so varies less.",
        source="AIHF, section 3.4 (described by its reviewers)",
        otherwise="not measured",
        remark="Stored results hold scores, not the policies of all three for one draw of the data.",
    ),
    Claim(
        name="few-comparisons",
        says="The lead over RLHF and DPO is largest where good preference data are limited.",
        source=AIHF,
        command="unified-irl science joint",
        scale=EXACT,
        evidence=tuple(
            OverGrid(first="aihf", second=other, where={"num_preferences": 16}, less={"num_preferences": 128})
            for other in ("rlhf", "dpo")
        ),
    ),
    Claim(
        name="mismatch",
        says="Stages leave the learnt reward mismatched with the distribution of the policy that is made from it.",
        source=AIHF,
        command="unified-irl bench control-quick --tasks pendulum inverted-double-pendulum",
        scale=SIMULATED,
        evidence=tuple(
            Ahead(file=file, task=task, first="aihf", second="rlhf", metric="reward/return_spearman")
            for file, task in ROBOTS
        ),
        remark="Rank correlation of learnt and true return, on the behaviours that the examination takes.",
    ),
    Claim(
        name="reduces-to-known",
        says="The formulation reduces to RLHF and DPO, and a suite of methods follows from it.",
        source=AIHF,
        otherwise="holds by construction",
        remark="All of them are rows of one table; a joint row without one of its terms is the plain row, to the bit.",
        test="tests/test_learner.py::test_a_joint_row_without_one_term_is_the_plain_row",
    ),
    Claim(
        name="dpo-is-a-case",
        says="With the reward written as a ratio of policies, the preference term is DPO's loss.",
        source=AIHF,
        command="unified-irl science fixed_points",
        scale="exact world of few walks",
        evidence=(FixedPoint(link="preferences, implicit, start", beta=1.0),),
        test="tests/test_objectives.py::test_dpo_by_hand",
    ),
    Claim(
        name="minor-changes",
        says="Existing alignment pipelines need only minor changes.",
        source=AIHF,
        otherwise="holds by construction",
        remark="`aihf`, `direct-aihf` and `self-play-aihf` differ from the other rows in a few columns.",
        test="tests/test_methods.py::test_single_stage_rows_are_those_of_the_design",
    ),
    Claim(
        name="language-rlhf",
        says="On language models the joint method beats RLHF by large margins.",
        source=AIHF,
        command="unified-irl bench language-walks",
        scale=SMALL,
        evidence=in_language("rlhf"),
    ),
    Claim(
        name="language-dpo",
        says="On language models the joint method beats DPO by large margins.",
        source=AIHF,
        command="unified-irl bench language",
        scale=SMALL,
        evidence=in_language("dpo"),
        remark="With one setting for all the lead is wide; on walks-text with every method tuned alike it is gone.",
    ),
    Claim(
        name="language-sft",
        says="On language models the joint method improves on SFT.",
        source=f"{AIHF} and title",
        command="unified-irl bench language",
        scale=SMALL,
        evidence=in_language("bc"),
    ),
    Claim(
        name="language-direct",
        says="The joint method works directly on the policy too: cloning and preferences together beat DPO.",
        source=AIHF,
        command="unified-irl bench language",
        scale=SMALL,
        evidence=in_language("dpo", first="direct-aihf"),
    ),
    Claim(
        name="language-pythia",
        says="The same on Pythia models and Anthropic-HH, joint against RLHF and SFT.",
        source="AIHF, experiments on Anthropic-HH (named by its reviewers)",
        command="unified-irl compare --tasks hh --methods bc rlhf aihf --seeds 3",
        scale="Anthropic-HH, its first 10,000 answers as demonstrations, and Pythia-1.4B",
        remark=GPU,
    ),
    Claim(
        name="language-sizes",
        says="The lead over RLHF and SFT narrows as the model grows.",
        source="AIHF, figure on several sizes of Pythia (described by its reviewers)",
        command="unified-irl compare --tasks hh --methods bc rlhf aihf --set task.model.path=EleutherAI/pythia-160m",
        scale="the paper's data, one size at a time",
        remark=GPU,
    ),
    Claim(
        name="language-zephyr",
        says="The direct and self-play forms improve a Zephyr 7B on UltraChat and UltraFeedback, by a few percent.",
        source="AIHF, experiments on UltraFeedback (named by its reviewers)",
        command="unified-irl compare --tasks ultrafeedback --methods dpo direct-aihf self-play-aihf --seeds 1",
        scale="the paper's data and a Zephyr 7B",
        remark=GPU,
    ),
    Claim(
        name="robots-rlhf",
        says="On MuJoCo's robots the joint method beats RLHF by a large margin.",
        source=AIHF,
        command="unified-irl bench control --tasks halfcheetah",
        scale=SIMULATED,
        evidence=on_robots("rlhf"),
        remark="On the pendulum RLHF is at the expert's level, so nothing is left to win.",
    ),
    Claim(
        name="robots-dpo",
        says="On MuJoCo's robots the joint method beats DPO by a large margin.",
        source=AIHF,
        command="unified-irl bench control --tasks halfcheetah",
        scale=SIMULATED,
        evidence=on_robots("dpo"),
        remark="On segments `dpo` is contrastive preference learning. The paper itself reports no DPO on robots.",
    ),
    Claim(
        name="robots-irl",
        says="On robots, preferences add to what demonstrations alone teach.",
        source=f"{AIHF} and title",
        command="unified-irl bench control-quick --tasks pendulum inverted-double-pendulum",
        scale=SIMULATED,
        evidence=on_robots("ml-irl"),
    ),
)

IRL = "ML-IRL (arXiv 2210.01808)"
INVERSE: tuple[Claim, ...] = (
    Claim(
        name="one-demonstration",
        says="Learning a reward from a single demonstration imitates robots that cloning cannot.",
        source=f"{IRL}, experiments with one expert trajectory",
        command="unified-irl bench control --tasks halfcheetah",
        scale=SIMULATED,
        evidence=on_robots("bc", first="ml-irl"),
        remark="Pendulums and a cheetah; for others see below.",
    ),
    Claim(
        name="five-robots",
        says="From one trajectory it comes near the expert on Hopper, HalfCheetah, Walker, Ant and Humanoid.",
        source="PIRO, table 1: an independent re-run, best returns of training",
        command="unified-irl bench control --tasks hopper walker2d ant humanoid --methods bc ml-irl",
        scale="the same robots in their newer versions",
        otherwise="not measured",
        remark="Single runs, which have no intervals, end near the expert on Hopper (`hopper-ml-irl.json`, half of the "
        "practice episodes beginning in demonstrated states) and on HalfCheetah (`halfcheetah-ml-irl.json`). Walker, "
        "Ant and Humanoid have not been run.",
    ),
    Claim(
        name="reward-recovered",
        says="Reward and policy are built at once, and the reward ranks behaviours as the true one does.",
        source="RFT and IRFT (NeurIPS 2024), abstract; the ranking is our test of it",
        command="unified-irl bench control-quick --tasks pendulum inverted-double-pendulum",
        scale=SIMULATED,
        evidence=tuple(
            Level(file=file, task=task, method="ml-irl", metric="reward/return_spearman") for file, task in ROBOTS
        ),
        remark="A correlation above zero is what is asked.",
    ),
    Claim(
        name="reward-transfer",
        says="A reward of the state, learnt on an ant, teaches an ant with two crippled legs.",
        source=f"{IRL}, transfer experiment (code and configurations)",
        command="unified-irl transfer runs/transfer-ant-ml-irl-0 --task crippled-ant",
        scale="the paper's pair of ants",
        remark="Hours of simulation; after `train transfer-ant ml-irl --task.reward.inputs s`.",
    ),
)
