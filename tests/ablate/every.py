"""Small cases of every operator and recipe, with parameters that fit models of four layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from probe.ablate import Patch, SparseReconstruction, Steer, parse
from probe.ablate.base import Ablation
from probe.ablate.recipes.heads import visual_head_pruning
from probe.ablate.recipes.schedules import g_search, schedule
from probe.capture import Activations
from probe.models.encode import Example
from probe.models.selection import Selection
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families import models

Make = str | Callable[[VideoModel, Example], Ablation | Sequence[Ablation]]


@dataclass(frozen=True)
class Case:
    """One way to ablate.

    Attributes:
        name: registered name that it is about.
        make: text as on the command line, or a function of the model and the example.
        neutral: the same with parameters that change nothing; "" where there are none.
        on: the tiny model it is tried on; "video_llava" has a CLS token and a token for each patch.
        text: it acts on text too, so that a prompt without a clip is no neutral case.
        late: the first logits are as they were: it acts behind the prompt.
        frames: of the clip, where the family does not fix it.
    """

    name: str
    make: Make
    neutral: Make = ""
    on: str = "tiny"
    text: bool = False
    late: bool = False
    frames: int = 5

    def __str__(self) -> str:
        return self.make if isinstance(self.make, str) else self.name

    def made(self, model: VideoModel, x: Example) -> list[Ablation]:
        """The ablations of the case."""
        return listed(self.make, model, x)


def listed(make: Make, model: VideoModel, x: Example) -> list[Ablation]:
    """Ablations from text or a function."""
    if isinstance(make, str):
        return parse(make)
    found = make(model, x)
    return [found] if isinstance(found, Ablation) else list(found)


@cache
def model_of(name: str) -> VideoModel:
    """The model with that name; built once."""
    return tiny.build(tiny.EVEN, seed=2) if name == "tiny" else models.build(name)


def shown(model: VideoModel, frames: int = 5, **more) -> Example:
    """A clip and a question."""
    clip = tiny.clip(model.family.frames or frames, 40, 60)
    return model.encode(clip, "What moves?", frames=None, **more)


def _patch(at: Selection, **more) -> Make:
    def make(model: VideoModel, x: Example) -> Patch:
        other = model.encode(tiny.clip(len(x.clips[0]), 40, 60, seed=9), "What moves?", frames=None)
        captures = [Activations(site, "all") for site in (more.get("site", "residual"),)]
        return Patch(model.run(other, captures), at=at, **more)

    return make


def _steer(scale: float) -> Make:
    direction = np.random.default_rng(0).normal(size=32)
    return lambda model, x: Steer(direction[: model.width], at="video", layers=[1, 2], scale=scale)


def _sparse(off: tuple) -> Make:
    rng, width = np.random.default_rng(1), 32
    shapes = [(width, 8), (8,), (8, width), (width,)]
    weights = [(rng.normal(size=shape) / width**0.5).tolist() for shape in shapes]
    return lambda model, x: SparseReconstruction(weights, 2, at="video", off=off, error=True)


def _heads(model: VideoModel, x: Example) -> Ablation:
    return visual_head_pruning(model, [x], left=2)


def _searched(model: VideoModel, x: Example) -> list[Ablation]:
    return list(g_search(model, [x], 0.3, lambda run: float(np.exp(run.logits[0, 40] / 5))))


SEEN = "score=EncoderReceived()"
OPERATORS = [
    Case("Carrier", "Carrier()"),
    Case("Carrier", 'Carrier(position="reindex", embedding="token", stream=True)'),
    Case("Contrast", 'Contrast("blank", 0.5, 0.01)', 'Contrast("blank", 0.0, 0.0)'),
    Case("Contrast", 'Contrast(Knockout("video -> text"), 0.5, 0.0)'),
    Case("Encoder", "Encoder(layers=0)", "Encoder(layers=-1)"),
    Case("Encoder", "Encoder(skip=[1])", "Encoder()"),
    Case(
        "SelectFrames",
        "SelectFrames(FrameChange(), keep=3, budget=1.0)",
        "SelectFrames(FrameChange(), keep=5, budget=1.0)",
    ),
    Case("Frames", 'Frames("reverse")', 'Frames("keep", frames=[0, 1, 2, 3, 4])'),
    Case("Frames", 'Frames("drop", frames=[1, 3])', 'Frames("blank", frames=[])'),
    Case("Interleave", "Interleave(2)", "Interleave(1)", on="qwen2_5_vl", frames=8),
    Case("BlindHeads", "BlindHeads([[1, 0], [2, 3]])", "BlindHeads([])"),
    Case("BlindHeads", 'BlindHeads([[0, 1]], renorm=True, queries="also")'),
    Case("Knockout", 'Knockout("video -> text", layers="1-2")', "Knockout([])"),
    Case("Knockout", 'Knockout("video -> video", random=1)'),
    Case("Cache", "Cache(score=Norm(), keep=0.5)", "Cache(score=Norm(), keep=1.0)", late=True),
    Case("Cache", 'Cache(layers="1-", score=LastQuery(), keep_tokens=3, when="step", how="hide")',
         late=True),
    Case("Cache", 'Cache(score=Norm(), keep=0.5, when="video")'),
    Case("Mask", 'Mask("neighbour", radius=0)', 'Mask("neighbour", radius=9, frames=9)'),
    Case("Mask", 'Mask("frame_causal", layers=[1])'),
    Case("Mask", 'Mask("blackout", layers="1-2", frozen=True)'),
    Case("Mask", 'Mask("window", queries="text")', 'Mask("window", frames=9, queries="text")'),
    Case("NoRope", 'NoRope("video -> text")', 'NoRope("video -> text", blend=1.0)'),
    Case("NoRope", 'NoRope("video -> text", layers=[1], blend=0.5)'),
    Case("NoRope", 'NoRope("video -> text", axis="time")', on="qwen2_5_vl"),
    Case("Patch", _patch("frame 1", layers=[2]), _patch((), layers=[2])),
    Case("Patch", _patch("video", layers=[1], site="head", heads=[0, 2])),
    Case("Patch", _patch("video", layers=[1], site="mlp")),
    Case(
        "Reduce",
        "Reduce(at=layer(1), score=LastQuery(), keep=0.5)",
        "Reduce(at=layer(1), score=LastQuery(), keep=1.0)",
    ),
    Case(
        "Reduce",
        'Reduce(at=tokens(), score=Norm(), keep=0.4, rest=Merge(), position="reindex")',
        'Reduce(at=tokens(), score=Norm(), keep=1.0, rest=Merge(), position="reindex")',
    ),
    Case("Reduce", "Reduce(at=mid(1), score=LastQuery(), keep=0.5, rest=Merge())",
         "Reduce(at=mid(1), score=LastQuery(), keep=1.0)"),
    Case("Reduce", "Reduce(at=mid(0), score=Norm(), keep_tokens=0)"),
    Case("Reduce", "Reduce(at=layer(2), score=Norm(), keep=0.3, rest=Bypass())",
         "Reduce(at=layer(2), score=Norm(), keep=1.0, rest=Bypass())"),
    Case("Reduce", 'Reduce(at=layer(2), score=Received(), keep=0.3, cache="retroactive")',
         'Reduce(at=layer(2), score=Received(), keep=1.0, cache="retroactive")'),
    Case("Reduce", "Reduce(at=vision(1), segment=PerFrame(), score=Norm(), keep=0.5)",
         "Reduce(at=vision(1), segment=PerFrame(), score=Norm(), keep=1.0)", on="video_llava"),
    Case("Reduce", "Reduce(at=vision_out(), segment=PerFrame(), score=CLS(), keep=0.5)",
         "Reduce(at=vision_out(), segment=PerFrame(), score=CLS(), keep=1.0)", on="video_llava"),
    Case("Reduce", 'Reduce(at=tokens(), score=Random(1), keep=0.5)', on="qwen2_5_vl"),
    Case("Ablate", 'Ablate("mlp", layers=[1], at="video")', 'Ablate("mlp", at=[])'),
    Case("Ablate", 'Ablate("head", layers=[1, 2], heads=[0], at="video", with_="mean")'),
    Case("Ablate", 'Ablate("layer", layers=[2])', text=True),
    Case("Rope", "Rope(time=1.0)", "Rope()"),
    Case("Rope", "Rope(compress=2.0)"),
    Case("Rope", "Rope(ntk=3.0, layers=[1, 2])", "Rope(ntk=1.0, layers=[1, 2])"),
    Case("Rope", "Rope(reindex=True)", on="qwen2_5_vl"),
    Case("SparseReconstruction", _sparse(tuple(range(8))), _sparse(())),
    Case("Scale", 'Scale("head", layers=[1], heads=[1, 2], at="video", factor=0.5)',
         'Scale("head", factor=1.0)'),
    Case("Scale", 'Scale("attention", factor=0.5)', text=True),
    Case("SliceMLP", "SliceMLP(2.0)", "SliceMLP(1.0)"),
    Case("Steer", _steer(1.0), _steer(0.0)),
    Case("Thumbnail", "Thumbnail(4)"),
    Case("Thumbnail", 'Thumbnail(4, "before", "frame")'),
]  # fmt: skip
RECIPES = [
    Case("dart", "dart(1, 0.5, 2, 2)", "dart(1, 1.0)"),
    Case("mustdrop", f"mustdrop(2, 0.9, 0.3, 0.4, [1, 2], {SEEN})"),
    Case("mustdrop", "mustdrop(0.0)", on="video_llava"),
    Case("pyramiddrop", "pyramiddrop([1, 2], [0.5, 0.2])", "pyramiddrop([1, 2], [1.0, 1.0])"),
    Case("pyramiddrop", 'pyramiddrop([1, 3], [0.5, 0.2], position="keep")'),
    Case("sparsevlm", "sparsevlm(layers=[1, 2], counts=[300, 110])",
         "sparsevlm(layers=[1], counts=[576])"),
    Case("sparsevlm", 'sparsevlm(192, "v2", [1, 2], [300, 118])'),
    Case("sparsevlm", "sparsevlm(rank=True)"),
    Case("damro", "damro(4)", "damro(4, 0.0, 0.0)", on="video_llava"),
    Case("dycoke_cache", "dycoke_cache(0.7, 2)", "dycoke_cache(0.0, 2)", late=True),
    Case("dycoke_cache", 'dycoke_cache(0.6, 2, variant="code")', late=True),
    Case("livevlm", "livevlm(9, 4, 1, 0.4, 4)", "livevlm(1000, 4, 1, 1.0, 4)"),
    Case("mustdrop_cache", "fastv(2, 0.5); mustdrop_cache(1, 2)"),
    Case("text_kv", "text_kv(0.0, 0)", "text_kv(1.0, 0)", text=True, late=True),
    Case("vcd", "vcd()", "vcd(0.0, 0.0)"),
    Case("videoscan", "videoscan(2)"),
    Case("videoscan", "videoscan(3, keep_frames=True)"),
    Case("divprune", "divprune(0.3)", "divprune(1.0)"),
    Case("unicomp", "unicomp(0.5)", "unicomp(1.0, tau=-1.0)"),
    Case("vidcom2", "vidcom2(0.5)", "vidcom2(1.0, temperature=1000000000.0)"),
    Case("vispruner", f"vispruner(0.5, r=1, {SEEN})", f"vispruner(1.0, {SEEN})"),
    Case("vispruner", "vispruner(0.5, at=vision_out())", on="video_llava"),
    Case("bvllm", "bvllm(0.3)", "bvllm(1.0)"),
    Case("bvllm", "bvllm(0.3, 2)"),
    Case("longvlm", "longvlm(3, [2], heads=4)", "longvlm(3, [], heads=4)"),
    Case("scene_tilling", "scene_tilling(deepest=1)",
         "scene_tilling(most=0, out=[None, None, None])"),
    Case("storm", "storm(2)", "storm(1)"),
    Case("storm", 'storm(2, "mean")', 'storm(1, "mean")'),
    Case("intp", "intp(2)", "intp(1)", on="qwen2_5_vl", frames=8),
    Case("quota", "quota(EqualFrames(), 10)", "quota(EqualFrames(), 20)"),
    Case("quota", 'quota(FrameChange(), 12, how="pick")'),
    Case("st_llm", "st_llm(0.5)", "st_llm(0.0)"),
    Case("temple", "temple()"),
    Case("temple", 'temple("drop", 4)'),
    Case("ts_llava", "ts_llava(9, 4)"),
    Case("tstar", "tstar(FrameChange(), 3, 1.0)", "tstar(FrameChange(), 5, 1.0)"),
    Case("ffn_slicing", "ffn_slicing(4.0)", "ffn_slicing(1.0)"),
    Case("visual_head_pruning", _heads, lambda model, x: visual_head_pruning(model, [x], left=4)),
    Case("atp", "atp(1, 0.25, 2, 2)", "atp(1, 1.0, 2, 2)"),
    Case("mod_skip", "mod_skip([1, 3], 0.3)", "mod_skip([1, 3], 1.0)"),
    Case("mqt", "mqt(2)", "mqt(4)"),
    Case("relevance_prune", "relevance_prune(0.4)", "relevance_prune(1.0)"),
    Case("yopo_drop", "yopo_drop(2)"),
    Case("visual_blackout", 'visual_blackout("2-")'),
    Case("yopo_neighbour", "yopo_neighbour(0)", "yopo_neighbour(9, 9, \"paper\")"),
    Case("dpn", "dpn([1, 2], 2)", "dpn([1, 2], 1)"),
    Case("fourier_vlm", "fourier_vlm([1, 1])", "fourier_vlm([2, 2])"),
    Case("fourier_vlm", "fourier_vlm([3, 1, 2])"),
    Case("llavolta", "llavolta(1, 2)", "llavolta(1, 1)"),
    Case("m3", "m3(1)", "m3(2)"),
    Case("pllava", "pllava([2, 1, 2])", "pllava([None, None, None])"),
    Case("ppllava", "ppllava([2, 1, 2], 0.5)", "ppllava([None, 2, 2])"),
    Case("edvt", "edvt()", "edvt(1.0)"),
    Case("edvt", 'edvt(0.5, "none")'),
    Case("intp_rope", "intp_rope(4.0)", "intp_rope(1.0)"),
    Case("tc_llava", "tc_llava()", "tc_llava(0.0, False)"),
    Case("g_search", _searched),
    Case("p_sigmoid", "p_sigmoid(4, 0.4, 12.0, 0.1)"),
    Case("schedule", "schedule([1, 0.8, 0.5, 0.2])", lambda model, x: schedule([1, 1, 1, 1])),
    Case("dycoke", "dycoke(0.5, layer=2, prune=0.6)", "dycoke(1.0, prune=0.0, layer=2)"),
    Case("dycoke", 'dycoke(0.5, False, variant="code")'),
    Case("earlytom", "earlytom(0.5, layers=[], k=2)",
         "earlytom(1.0, 2.0, [0, 1], 1, inner=1.0)"),
    Case("earlytom", "earlytom(0.5, 0.1, [0, 1], k=2)", on="video_llava"),
    Case("fastvid", f"fastvid(0.6, 3, 0.5, 0.6, {SEEN})"),
    Case("prunevid", "prunevid(0.5, 0.3, k=1, smallest=1)", "prunevid(1.0, 1.0, cluster=1.0)"),
    Case("framefusion", "framefusion(0.6, 0.9, layers=3)", "framefusion(1.0, 1.1, layers=3)"),
    Case("prumerge", f"prumerge(k=2, {SEEN})"),
    Case("prumerge", "prumerge(True, 2)", on="video_llava"),
    Case("tome", "tome(2, 2)", "tome(0, 2)", on="video_llava"),
    Case("visionzip", f"visionzip(3, dominant=2, {SEEN})",
         f"visionzip(keep=1.0, dominant=1.0, {SEEN})"),
    Case("visionzip", "visionzip(4, dominant=2, at=vision_out())", on="video_llava"),
    Case("fastervlm", f"fastervlm(0.5, {SEEN})", f"fastervlm(1.0, {SEEN})"),
    Case("fastervlm", "fastervlm(0.3)", "fastervlm(1.0)", on="video_llava"),
    Case("hired", "hired(0.4)", "hired(1.0)", on="video_llava"),
    Case("holitom", "holitom(0.5, 0.2, k=2)", "holitom(1.0, 1.0, inner=False)"),
    Case("holitom", 'holitom(0.4, 0.2, False, variant="paper", context=0.5)'),
    Case("fastv", "fastv(2, 0.5)", "fastv(2, 1.0)"),
]  # fmt: skip
CASES = [*OPERATORS, *RECIPES]
