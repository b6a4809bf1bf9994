"""What RFT and IRFT say of learning a reward from demonstrations, with the theory they stand on; and SPIN."""

from __future__ import annotations

from experiments.claims import Claim
from experiments.claims_joint import EXACT, GPU, IRL, SMALL, in_language
from experiments.evidence import Ahead, FixedPoint, OverGrid, Slope

ABSTRACT = "RFT and IRFT (NeurIPS 2024), abstract"
POSTER = "RFT and IRFT (NeurIPS 2024), poster"
SPIN = "SPIN (arXiv 2401.01335)"
GRID_COMMAND = "unified-irl bench irft-grid"
WALKS = "models of two layers, 200 demonstrations"
PAPERS_SCALE = "the paper's data and a Zephyr 7B"

THEORY: tuple[Claim, ...] = (
    Claim(
        name="gradient",
        says="The gradient of the demonstrations' likelihood is a difference between what was shown and own samples.",
        source=f"{POSTER}, equation 2",
        command="unified-irl science gradient",
        scale="exact world, 16 to 16,384 samples",
        evidence=tuple(
            Slope(file="gradient.json", keys=("slopes", kind), expected=-0.5) for kind in ("free", "linear", "network")
        ),
        remark="Sampled gradients approach the exact one as they must if they have no bias.",
    ),
    Claim(
        name="stationary",
        says="The algorithms converge to stationary points of the IRL problem.",
        source=f"{ABSTRACT}; {IRL}",
        command="unified-irl science fixed_points",
        scale="exact world of few walks",
        evidence=(
            FixedPoint(link="linear (ml-irl)", beta=1.5),
            FixedPoint(link="linear, implicit, fresh own samples", beta=1.0),
            FixedPoint(link="pairwise, implicit, previous self (spin)", beta=1.0, to="kl_expert"),
            FixedPoint(link="pairwise, explicit (rft)", beta=1.0, to="kl_expert"),
        ),
        remark="The pairwise link with an explicit reward stops at a mixture of reference and demonstrator, and full "
        "self-play rounds with β below ½ diverge.",
    ),
    Claim(
        name="finite-time",
        says="The single loop's mean squared gradient norm falls as one over the root of the rounds.",
        source=f"{IRL}, convergence; the grant's title asks for finite-time guarantees",
        command="unified-irl science convergence",
        scale="exact world, 16 to 4,096 rounds",
        evidence=tuple(
            Slope(file="convergence.json", keys=("slopes", kind), expected=-0.5) for kind in ("linear", "network")
        ),
    ),
    Claim(
        name="maximum-entropy",
        says="With a linear reward the likelihood formulation is maximum-entropy inverse RL.",
        source=f"{IRL}, abstract",
        command="unified-irl science samples",
        scale="exact world, well-specified linear reward",
        otherwise="not measured",
        remark="Both have the same gradient: the difference of feature sums, shown less own.",
        test="tests/test_objectives.py::test_linear_by_hand",
    ),
    Claim(
        name="finite-sample",
        says="With more demonstrations the learnt policy approaches the demonstrator at the parametric rate.",
        source="NSF award, CIF Small: estimation with finite time and sample guarantees, title",
        command="unified-irl science samples",
        scale="exact world, well-specified linear reward",
        evidence=tuple(
            Slope(file="samples.json", keys=("slopes", distance, learner), expected=expected)
            for distance, expected in (("total_variation", -0.5), ("kl", -1.0))
            for learner in ("ml-irl", "ml-irl, exact")
        ),
    ),
)

REWARDS: tuple[Claim, ...] = (
    Claim(
        name="reward-helps-exact",
        says="Building a reward from demonstrations helps, against cloning them.",
        source=f"{POSTER}, the question it poses; abstract",
        command="unified-irl science joint",
        scale=EXACT,
        evidence=(
            OverGrid(first="ml-irl", second="bc"),
            OverGrid(first="ml-irl", second="bc", where={"num_demonstrations": 4}),
            OverGrid(first="ml-irl", second="bc", where={"num_demonstrations": 256}),
        ),
        remark="Through structure that the reward shares; with one free reward per step both are equal, by theorem.",
    ),
    Claim(
        name="rft-helps-language",
        says="Learning an explicit reward from demonstrations (RFT) improves language models over SFT.",
        source=f"{ABSTRACT}; {POSTER}, figure 2",
        command="unified-irl bench language",
        scale=SMALL,
        evidence=in_language("bc", first="rft"),
        remark="On `reviews`, much longer cloning comes level where prompts were demonstrated.",
    ),
    Claim(
        name="irft-helps-language",
        says="Learning an implicit reward from demonstrations (IRFT) improves language models over SFT.",
        source=f"{ABSTRACT}; {POSTER}, table",
        command="unified-irl bench language-walks --methods bc irft",
        scale=WALKS,
        evidence=(Ahead(file="language-walks.json", task="walks-text", first="irft", second="bc"),),
        remark="One setting for all, with which self-play begins at the clone and loses what it knew.",
    ),
    Claim(
        name="robust",
        says="Reward learning withstands demonstrations of low quality better than cloning.",
        source=ABSTRACT,
        command="unified-irl science joint",
        scale=EXACT,
        evidence=(
            OverGrid(first="ml-irl", second="bc", where={"slips": 0.3}),
            OverGrid(first="ml-irl", second="bc", where={"slips": 0.3}, less={"slips": 0.0}),
        ),
        remark="The second reading asks whether the lead grows as the demonstrator gets worse.",
    ),
    Claim(
        name="spin-is-a-case",
        says="SPIN is IRFT whose previous self is refreshed once per pass over the data.",
        source=f"{ABSTRACT}; {POSTER}, table (SPIN's rows are T = 1 and 2)",
        otherwise="holds by construction",
        remark="The two rows differ in the share of prompts that a round covers, and in the steps on it.",
        test="tests/test_methods.py::test_self_play_differs_in_the_prompts_of_a_round",
    ),
    Claim(
        name="refreshing-oftener",
        says="Refreshing the previous self several times per pass (T > 1) is worth it.",
        source=f"{POSTER}, table: T = 10 against SPIN's first iteration",
        command="unified-irl bench language-walks --methods spin irft",
        scale=WALKS,
        evidence=(Ahead(file="language-walks.json", task="walks-text", first="irft", second="spin"),),
    ),
    Claim(
        name="throughout",
        says="It is beneficial to learn a reward in all stages of alignment.",
        source=ABSTRACT,
        command="unified-irl bench language",
        scale=SMALL,
        evidence=in_language("direct-aihf"),
        remark="With a reward in every stage (`aihf`) against cloning with preferences (`direct-aihf`).",
    ),
    Claim(
        name="efficient",
        says="The new algorithms are efficient to implement.",
        source=ABSTRACT,
        otherwise="not measured",
        remark="Each is a row here. What they cost beside SFT was not compared at equal results.",
        test="tests/test_methods.py::test_rows_are_data",
    ),
    Claim(
        name="log-prob-gap",
        says="RFT widens the gap of log-probability between preferred and rejected answers, trained on preferred only.",
        source=f"{POSTER}, figure 2a: Pythia-1.4B, best 10,000 of Anthropic-HH",
        command="unified-irl train hh rft",
        scale="Anthropic-HH, its first 10,000 answers as demonstrations, and Pythia-1.4B",
        remark=f"{GPU} The poster's text holds no numbers of the figure; its direction is our reading.",
    ),
    Claim(
        name="average-score",
        says="RFT raises the average score under a reward model over SFT.",
        source=f"{POSTER}, figure 2b: Pythia-1.4B, best 10,000 of Anthropic-HH",
        command="unified-irl compare --tasks hh --methods bc rft --seeds 3",
        scale="Anthropic-HH, its first 10,000 answers as demonstrations, and Pythia-1.4B",
        remark=f"{GPU} The judge that picked the data is a classifier of the hub (`--task.judge`).",
    ),
    Claim(
        name="all-rows-beat-sft",
        says="Every row of IRFT and SPIN has a higher average on six tasks than the SFT model it starts from.",
        source=f"{POSTER}, table: Zephyr-7B, UltraChat-200k",
        command=GRID_COMMAND,
        scale=PAPERS_SCALE,
        remark=f"{GPU} The rows are below.",
    ),
    Claim(
        name="best-of-the-grid",
        says="The best average of the grid is that of IRFT with T = 10, level with SPIN's second round.",
        source=f"{POSTER}, table: Zephyr-7B, UltraChat-200k",
        command=GRID_COMMAND,
        scale=PAPERS_SCALE,
        remark=GPU,
    ),
    Claim(
        name="open-leaderboard",
        says="1B and 7B models improve significantly on a reward benchmark and the Open LLM Leaderboard.",
        source=ABSTRACT,
        command="unified-irl harness runs/exported/policy",
        scale="the papers' six tasks, on a policy that was trained at the papers' scale",
        remark=GPU,
    ),
    Claim(
        name="spin-helps",
        says="SPIN improves the Open LLM average from 58.14 to 63.16, and MT-Bench from 5.94 to 6.78.",
        source=f"{SPIN}, headline as others report it",
        command="unified-irl train spin-data spin",
        scale="the paper's 50,000 conversations and Zephyr-7B",
        remark=GPU,
    ),
    Claim(
        name="spin-helps-small",
        says="Self-play improves on SFT.",
        source=SPIN,
        command="unified-irl bench language-walks --methods bc spin",
        scale=SMALL,
        evidence=(
            Ahead(file="language-walks.json", task="walks-text", first="spin", second="bc"),
            Ahead(file="language.json", task="reviews", first="spin", second="bc"),
            Ahead(file="language.json", task="instructions", first="spin", second="bc"),
        ),
    ),
    Claim(
        name="spin-stops-at-data",
        says="Self-play stops only where the policy is the demonstrator.",
        source=SPIN,
        command="unified-irl science fixed_points",
        scale="exact world of few walks",
        evidence=tuple(
            FixedPoint(link="pairwise, implicit, previous self (spin)", beta=beta, to="kl_expert")
            for beta in (1.0, 0.75, 0.5)
        ),
        remark="Each solved round multiplies the log-error by 1 − 1/β: at β = ½ it swings for ever, below it grows.",
    ),
)

SIX_TASKS = ("ARC", "TruthfulQA", "Winogrande", "GSM8k", "HellaSwag", "MMLU", "average")
GRID: dict[str, tuple[float, ...]] = {
    "SFT (zephyr-7b-sft-full)": (74.83, 34.07, 76.09, 31.92, 81.09, 58.86, 59.48),
    "SPIN, iteration 0: T = 1": (75.08, 36.57, 76.01, 33.59, 82.81, 57.83, 60.32),
    "SPIN, iteration 1: T = 2": (76.13, 36.56, 76.64, 35.56, 83.39, 57.82, 61.02),
    "IRFT, T = 5": (75.82, 39.99, 77.19, 31.24, 82.07, 57.93, 60.71),
    "IRFT, T = 10": (76.78, 36.84, 77.43, 34.34, 83.05, 57.72, 61.03),
    "IRFT, T = 8": (75.23, 36.67, 75.85, 31.84, 80.89, 58.60, 59.85),
    "IRFT, T = 16": (75.79, 35.55, 76.56, 32.52, 82.3, 58.77, 60.25),
}
"""The poster's table, row by row; K is two epochs on each part throughout."""
