"""All cards beside each other, for people and for scripts."""

import dataclasses
from typing import Any

from pipeline.backbones import zoo
from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import backbone_names


def cards() -> list[BackboneCard]:
    """Return the cards of the registered backbones, by name."""
    return [zoo.backbone(name).card for name in backbone_names()]


def card_dicts() -> list[dict[str, Any]]:
    """Return the cards as JSON has them."""
    return [dataclasses.asdict(card) for card in cards()]


def card_lines() -> list[str]:
    """Return a table, then source, licence and note of each."""
    lines = [f"{'name':<22}{'input':>9}  {'channels':<9}{'embedding':>9}{'parameters':>13}"]
    for card in cards():
        size = f"{card.width}x{card.height}"
        lines.append(f"{card.name:<22}{size:>9}  {card.channels:<9}{card.embedding:>9,}{card.parameters:>13,}")
    for card in cards():
        lines += ["", card.name, f"  weights: {card.source}", f"  licence: {card.licence}"]
        if card.note:
            lines.append(f"  note: {card.note}")
    return lines
