"""Recipes as tests run them on tiny models: active, and with neutral parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probe.ablate.recipes.frame_merging import bvllm, longvlm, scene_tilling, storm
from probe.ablate.recipes.layer_pruning import atp, mod_skip, mqt, relevance_prune, yopo_drop
from probe.ablate.recipes.pooling import dpn, fourier_vlm, llavolta, m3, pllava, ppllava
from probe.ablate.recipes.schedules import p_sigmoid, schedule
from probe.ablate.recipes.tower_pruning import fastervlm, hired, holitom
from probe.ablate.reduce import Reduce, fastv
from probe.ablate.scores_encoder import EncoderReceived

SEEN, EARLY = EncoderReceived(), EncoderReceived(0)
ACTIVE: dict[str, Callable[[], Any]] = {
    "fastv": lambda: fastv(1, 0.5),
    "fastervlm": lambda: fastervlm(0.5, SEEN),
    "hired": lambda: hired(0.5, score=SEEN, spread=EARLY),
    "holitom": lambda: holitom(0.5, -0.1, k=2),
    "holitom context": lambda: holitom(0.5, 0.0, k=2, context=0.5, variant="paper"),
    "pllava": lambda: pllava((2, 1, 2)),
    "ppllava": lambda: ppllava((2, 1, 2)),
    "m3": lambda: m3(1),
    "dpn": lambda: dpn((1, 2)),
    "llavolta": lambda: llavolta(1, 3),
    "fourier_vlm": lambda: fourier_vlm((1, 2)),
    "fourier_vlm in time": lambda: fourier_vlm((2, 1, 2), "legacy"),
    "longvlm": lambda: longvlm(2, (4, 2)),
    "bvllm": lambda: bvllm(0.3, 2),
    "scene_tilling": lambda: scene_tilling(deepest=1),
    "storm": lambda: storm(2),
    "storm mean": lambda: storm(2, "mean"),
    "yopo_drop": lambda: yopo_drop(2),
    "mod_skip": lambda: mod_skip((1, 2), 0.5),
    "atp": lambda: atp(1, 0.25, 2, 2),
    "relevance_prune": lambda: relevance_prune(),
    "mqt": lambda: mqt(2),
    "schedule": lambda: schedule((1, 0.8, 0.4)),
    "p_sigmoid": lambda: p_sigmoid(3, 0.3, 10.0, 0.1),
}
NEUTRAL: dict[str, Callable[[], Any]] = {
    "fastervlm": lambda: fastervlm(1.0, SEEN),
    "hired": lambda: hired(1.0, score=SEEN, spread=EARLY),
    "holitom": lambda: holitom(1.0, 1.0, k=2, half=1.0),
    "m3": lambda: pllava((None, None, None)),
    "ppllava": lambda: ppllava((None, None, None)),
    "dpn": lambda: dpn((1, 2), kernel=1),
    "llavolta": lambda: llavolta(1, 1),
    "fourier_vlm": lambda: fourier_vlm((None, None)),
    "longvlm": lambda: longvlm(2, r=()),
    "bvllm": lambda: bvllm(1.0),
    "scene_tilling": lambda: scene_tilling(out=(None, None, None)),
    "storm": lambda: storm(1),
    "storm mean": lambda: storm(1, "mean"),
    "mod_skip": lambda: mod_skip((1, 2), 1.0),
    "atp": lambda: atp(1, 1.0),
    "atp, all of the lattice": lambda: atp(1, 0.1, 1, 1),
    "relevance_prune": lambda: relevance_prune(1.0),
    "mqt": lambda: mqt(256),
    "schedule": lambda: schedule((1, 1, 1)),
}


def listed(made: Any) -> list[Reduce]:
    return list(made) if isinstance(made, list) else [made]
