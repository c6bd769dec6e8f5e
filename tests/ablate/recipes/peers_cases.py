"""The recipes as tests run them on tiny models, and with neutral parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probe.ablate.base import Ablation
from probe.ablate.recipes import attention_pruning, diversity, time_pruning, token_merging
from probe.ablate.recipes.attention_pruning import dart, mustdrop, pyramiddrop, sparsevlm
from probe.ablate.recipes.diversity import divprune, unicomp, vidcom2, vispruner
from probe.ablate.recipes.time_pruning import dycoke, earlytom, fastvid, prunevid
from probe.ablate.recipes.token_merging import framefusion, prumerge, visionzip
from probe.ablate.scores_encoder import EncoderReceived

SEEN = EncoderReceived()
FRAMES = 9
SELECTIONS: dict[str, Callable[[], Any]] = {  # in the decoder, positions kept, nothing merged
    "dart": lambda: dart(1, 0.5, 2, 2),
    "divprune": lambda: divprune(0.3),
    "mustdrop": lambda: mustdrop(2, 0.9, 0.3, 0.4, [1], SEEN),
    "pyramiddrop": lambda: pyramiddrop([1, 2], [0.5, 0.2], position="keep"),
    "sparsevlm v2": lambda: sparsevlm(192, "v2", [1, 2], [300, 118]),
    "vispruner": lambda: vispruner(0.5, r=1, score=SEEN, position="keep"),
}
TOKENS: dict[str, Callable[[], Any]] = {  # one reduction before the language model
    "dycoke": lambda: dycoke(0.5, decode=False),
    "dycoke code": lambda: dycoke(0.5, decode=False, variant="code"),
    "earlytom": lambda: earlytom(0.5, layers=(), inner=1.0),
    "fastvid": lambda: fastvid(0.6, 3, 0.5, 0.6, score=SEEN),
    "framefusion": lambda: framefusion(0.5, -1.0, layers=4)[:1],
    "prumerge": lambda: prumerge(k=2, score=SEEN),
    "prunevid": lambda: prunevid(1.0, tau=0.3, smallest=1),
    "unicomp": lambda: unicomp(0.5),
    "vidcom2": lambda: vidcom2(0.5),
    "visionzip": lambda: visionzip(3, dominant=2, score=SEEN),
}
SEVERAL: dict[str, Callable[[], Any]] = {
    "dycoke": lambda: dycoke(0.5, layer=2, prune=0.6),
    "earlytom": lambda: earlytom(0.5, layers=(), k=2),
    "framefusion": lambda: framefusion(0.6, 0.9, layers=3),
    "prunevid": lambda: prunevid(0.5, k=1, tau=0.3, smallest=1),
    "pyramiddrop": lambda: pyramiddrop([1, 2], [0.5, 0.2]),
    "sparsevlm": lambda: sparsevlm(layers=[1, 2], counts=[300, 110]),
    "sparsevlm rank": lambda: sparsevlm(rank=True),
}
EVERY = {**SELECTIONS, **TOKENS, **{f"{name} (all)": make for name, make in SEVERAL.items()}}
NEUTRAL: dict[str, Callable[[], Any]] = {
    "dart": lambda: dart(1, 1.0),
    "divprune": lambda: divprune(1.0),
    "dycoke": lambda: dycoke(1.0, prune=0.0, layer=2),
    "earlytom": lambda: earlytom(1.0, tau=2.0, longest=1, layers=(0, 1), inner=1.0),
    "framefusion": lambda: framefusion(1.0, 1.1, layers=3),
    "prunevid": lambda: prunevid(1.0, tau=1.0, cluster=1.0),
    "pyramiddrop": lambda: pyramiddrop([1, 2], [1.0, 1.0]),
    "sparsevlm": lambda: sparsevlm(layers=[1], counts=[576]),
    "unicomp": lambda: unicomp(1.0, tau=-1.0),
    "vidcom2": lambda: vidcom2(1.0, temperature=1e9),
    "vispruner": lambda: vispruner(1.0, score=SEEN),
}
RECIPES = {
    name: made
    for module in (attention_pruning, diversity, time_pruning, token_merging)
    for name, made in vars(module).items()
    if hasattr(made, "card") and made.__module__ == module.__name__
}


def listed(made: Any) -> list[Ablation]:
    return list(made) if isinstance(made, list) else [made]
