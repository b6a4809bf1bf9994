"""What the papers say that are listed beside AIHF as related."""

from __future__ import annotations

from experiments.claims import Claim
from experiments.claims_joint import GPU, SMALL, in_language

NO_ROW = "No row of the table says this method; what a row lacks is named in `docs/migrating.md`."


def _without_a_row(name: str, says: str, source: str) -> Claim:
    return Claim(name=name, says=says, source=source, remark=NO_ROW)


RELATED: tuple[Claim, ...] = (
    Claim(
        name="dpo-as-good-as-rlhf",
        says="DPO aligns language models as well as RLHF or better, and is stable and light.",
        source="DPO (arXiv 2305.18290), abstract",
        command="unified-irl bench language",
        scale=SMALL,
        evidence=in_language("rlhf", first="dpo"),
        remark="A difference above zero is asked for; level would bear out its weaker half.",
    ),
    Claim(
        name="sft-against-over-optimisation",
        says="A supervised loss beside the preference loss mitigates over-optimisation.",
        source="RPO (2024-05-26), abstract",
        command="unified-irl bench language-walks --methods dpo direct-aihf",
        scale=SMALL,
        evidence=in_language("dpo", first="direct-aihf"),
        remark="`direct-aihf` has the same form, on demonstrations instead of preferred answers.",
    ),
    Claim(
        name="online-alignment",
        says="Self-improving online alignment is much better than offline, at little cost.",
        source="SAIL (2024-06-21), abstract",
        command="unified-irl train ultrafeedback aihf --method.phases.0.queries 8",
        scale="the papers' data and a Zephyr 7B",
        remark=f"{GPU} A row that asks while it learns is the nearest; its gradient is not SAIL's.",
    ),
    _without_a_row(
        "robust-to-prompts",
        "Distributionally robust RLHF learns more accurate rewards where prompts shift, above all on reasoning.",
        "Distributionally robust RLHF (2025-03-01), abstract",
    ),
    _without_a_row(
        "reward-weighted-sft",
        "RLHF as reward-weighted SFT trains more stably and effectively.",
        "Variational reward-weighted SFT (2025-02-16), abstract",
    ),
    _without_a_row(
        "zeroth-order",
        "Without inferring a reward, a zeroth-order gradient from preferences is provably efficient in general RL.",
        "Zeroth-order policy gradient (2024-09-25), abstract",
    ),
    _without_a_row(
        "multi-turn",
        "Preferences between whole conversations can be learnt from over several turns.",
        "Multi-turn RL from preferences (2024-05-23), abstract",
    ),
    _without_a_row(
        "listwise",
        "Listwise rewards improve alignment over several benchmarks with little tuning.",
        "LIRE (2024-05-22), abstract",
    ),
    _without_a_row(
        "nash",
        "A Nash equilibrium of a preference model is an alternative to a reward, reached by mirror descent.",
        "Nash learning from human feedback (2023-12-01), abstract",
    ),
    _without_a_row(
        "principles",
        "A reward model instructed by principles aligns a model with little human supervision.",
        "SALMON (2023-10-09), abstract",
    ),
    _without_a_row(
        "bilevel",
        "Reward design as a bilevel problem mends the distribution shift of RLHF and improves alignment in RL.",
        "PARL (2023-08-03), abstract",
    ),
)
