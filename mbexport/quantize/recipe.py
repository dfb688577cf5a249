"""The ingredients of the recipe, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The ingredients; each can be left out to see what it is worth."""

    equalising: bool = True
    """Bring channels nearer to one magnitude across sums and ReLUs, in the float network."""
    weighted_ranges: bool = True
    """End each range where the error is least, weighted with the weights that read it; else at the extremes."""
    folding: bool = True
    """One scale a channel between a product and a depthwise one, where it folds into the weights."""
    by_channel: bool = True
    """One scale a channel at the other inputs of depthwise products, where the engine can."""
    caution: bool = True
    """Draw the ranges of channels together as far as held-out pictures ask for."""
    refitting: bool = True
    """Fit weights to rounded inputs; else keep the float network's."""
    making_up: bool = True
    """Round weights one input at a time, the others making up for it; else each to the nearest."""
    bias_correction: bool = True
    fitted_islands: bool = True
    """Fit what stays in float32 to rounded inputs too, in bf16's numbers where an engine will compute it in bf16."""
    whole_pixels: bool = True
    """Pixels are whole numbers in 8 bits too."""
    widening: bool = True
    """Add channels of 0 where the engine computes another number of them slowly."""
