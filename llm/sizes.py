"""How large the small models are, from seconds on a CPU to a day on a GPU. No tensor library here."""

from __future__ import annotations

from dataclasses import dataclass

from llm.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model made from nothing, and how it is taught its language."""

    layers: int
    width: int
    heads: int
    documents: int
    passes: int
    batch: int = 64
    learning_rate: float = 3e-3


SIZES: dict[str, Shape] = {
    "seconds": Shape(layers=1, width=32, heads=2, documents=2_000, passes=2),
    "minutes": Shape(layers=2, width=64, heads=4, documents=20_000, passes=3),
    "hour": Shape(layers=4, width=128, heads=4, documents=100_000, passes=4, learning_rate=2e-3),
    "gpu-day": Shape(layers=12, width=512, heads=8, documents=2_000_000, passes=4, batch=512, learning_rate=6e-4),
}


def shape_of(config: ModelConfig) -> Shape:
    """The size's numbers, with those that the settings name in their place."""
    usual = SIZES[config.size]
    return Shape(
        layers=config.layers or usual.layers,
        width=config.width or usual.width,
        heads=config.heads or usual.heads,
        documents=config.documents or usual.documents,
        passes=config.passes or usual.passes,
        batch=usual.batch,
        learning_rate=usual.learning_rate,
    )
