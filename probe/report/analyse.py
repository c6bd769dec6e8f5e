"""One clip, one question: everything a report shows, in one go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.ablate.base import Ablation
from probe.ablate.compose import in_order, label
from probe.ablate.knockout import Knockout
from probe.ablate.recipes.rotary import edvt
from probe.ablate.reduce import fastv
from probe.capture.contributions import Contributions
from probe.capture.entropy import AttentionEntropy
from probe.capture.lens import LogitLens
from probe.capture.mass import AttentionMass
from probe.capture.norms import TokenNorms
from probe.capture.received import AttentionReceived
from probe.diagnose.hallucination import counterfactuals, influence
from probe.diagnose.items import existence
from probe.diagnose.margin import Margin, margin
from probe.diagnose.redundancy import KEEP, droppable_from, redundancy
from probe.report.ablated import by_layer, check, visual_tokens
from probe.report.checks import checks
from probe.report.findings import Findings

if TYPE_CHECKING:
    import pandas as pd

    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel
    from probe.video import Clip

READERS = ("question", "last")  # query groups whose attention is shown


@dataclass(frozen=True)
class Asked:
    """What a user asked about a clip.

    Attributes:
        clip: the frames.
        question: the question.
        options: choices, used as the rivals of the answer; not written into the prompt.
        gold: the right answer, where known.
        evidence: (frame, box) that decides it, where known.
        notes: what the reader must see first.
    """

    clip: Clip
    question: str
    options: tuple[str, ...] = ()
    gold: str | None = None
    evidence: tuple[tuple[int, tuple[int, int, int, int]], ...] = ()
    notes: tuple[str, ...] = ()


def analyse(
    model: VideoModel,
    asked: Asked,
    *,
    ablate: Mapping[str, list[Ablation]] | None = None,
    existence_items: int = 0,
    max_new_tokens: int = 32,
    manifest: dict[str, Any] | None = None,
    progress: Callable[[str], object] = lambda step: None,
) -> Findings:
    """Run, ablate and diagnose; one forward pass for everything that is captured.

    Args:
        model: what to look into.
        asked: clip and question.
        ablate: ablations of the user's, added to the table: lists that are applied together, by
            the name of their row.
        existence_items: testbed items a split for the existence questions; 0 leaves them out.
        max_new_tokens: length of the answer at most.
        manifest: settings to store with the findings.
        progress: called with the name of each step as it starts.
    """
    progress("reading the clip and answering")
    x = model.encode(asked.clip, asked.question, frames=None)
    own = {name: in_order(ablations) for name, ablations in (ablate or {}).items()}
    check(model, x, own)
    generated = model.generate(x, max_new_tokens=max_new_tokens)
    plain = model.run(x)
    follow = margin(model, x, plain, options=asked.options)
    progress("attention, norms and contributions, every layer")
    target = Contributions(follow.target_id, versus=follow.versus_id, by_position=True)
    captured = model.run(
        x,
        [
            AttentionMass(queries=READERS),
            AttentionReceived(queries=READERS),
            AttentionEntropy(queries=READERS),
            TokenNorms(),
            target,
            LogitLens(),
        ],
    )
    progress("visual influence of each generated token")
    tokens = influence(model, x, generated)
    progress("how much of the video is needed")
    redundant = redundancy(model, x, follow, keep=KEEP)
    progress("other clips, and none")
    others = counterfactuals(model, x, follow)
    hallucinated = {"counterfactuals": others}
    if existence_items:
        progress("existence questions over the testbed")
        hallucinated["existence"] = existence(model, existence_items)
    progress("ablations")
    table = _ablations(model, x, follow, plain, own)
    progress("checking the numbers")
    found = checks(model, x, plain, captured, generated)
    # A family that cannot do without a clip is shown a grey one.
    blind = float(others.set_index("clip")["margin"].iloc[-1])
    return Findings(
        model=model.name,
        clip=asked.clip,
        question=asked.question,
        answer=generated.text or "",
        target=follow.target,
        versus=follow.versus,
        gold=asked.gold,
        layout=x.layout,
        data=captured.data,
        tokens=tokens,
        redundancy=redundant,
        hallucination=hallucinated,
        full_margin=follow.of(plain),
        blind_margin=blind,
        ablations=table,
        checks=found,
        summary=_summary(follow, plain, captured, redundant, others, tokens, blind),
        manifest=(manifest or {}) | captured.meta,
        evidence=asked.evidence,
        notes=asked.notes,
    )


def _ablations(
    model: VideoModel, x: Example, follow: Margin, plain: Run, own: Mapping[str, list[Ablation]]
) -> pd.DataFrame:
    import pandas as pd

    half = model.n_layers // 2
    k = min(2, model.n_layers - 1)
    standard = [
        [fastv(k=k, keep=0.5)],
        [fastv(k=k, keep=0.1)],
        [edvt()],
        [Knockout("video -> question")],
        [Knockout("video -> last")],
        [Knockout("video -> text", layers=range(half))],
        [Knockout("video -> text", layers=range(half, model.n_layers))],
    ]
    rows = [_row("nothing", follow, plain, False)]
    rows += [_row(label(one), follow, model.run(x, ablate=one), False) for one in standard]
    rows += [_row(name, follow, model.run(x, ablate=one), True) for name, one in own.items()]
    return pd.DataFrame(rows)


def _row(name: str, follow: Margin, run: Run, own: bool) -> dict[str, Any]:
    counts, cost = visual_tokens(run), run.cost
    whole = len(run.layout.select("video")) if run.layout is not None and run.layout.clips else 0
    return {
        "name": name,
        "margin": follow.of(run),
        "answer": run.tokens[0],
        "tokens_kept": float(np.mean(counts)) / max(whole, 1),
        "flops_ratio": cost.macs / cost.macs_full,
        "kv_ratio": (cost.kv_bytes or 0) / (cost.kv_bytes_full or 1),
        "visual_tokens": by_layer(counts),
        "own": own,
    }


def _summary(follow, plain, captured, redundant, others, tokens, blind) -> tuple[str, ...]:
    mass = redundant["attention_to_video"]
    top = int(mass["mass"].idxmax())
    part = captured.data.contributions_attention.sum(["layer", "head"])
    frames = [g for g in part.source_group.values if str(g).startswith("frame")]
    strongest = str(part.sel(source_group=frames).idxmax("source_group").item())
    adds = "add" if strongest.startswith("frames") else "adds"
    drop = droppable_from(redundant["drop_from_layer"], blind)
    layers = len(mass)
    kept = redundant["kept"].query("score == 'attention' and answer == @plain.tokens[0]")
    fewest = kept.loc[kept["tokens"].idxmin()]
    most = tokens.loc[tokens["influence"].idxmax()]
    when = (
        f"All video can go from layer {drop} of {layers} on and 95 % of the margin stays"
        if drop < layers
        else "In every layer the margin needs the video (95 % of it must stay)"
    )
    survives = others[others["answer"] == plain.tokens[0]]["clip"].tolist()
    kept_by = ", ".join(name for name in survives if name != "as is") or "none of them"
    return (
        f"It answers '{plain.tokens[0].strip()}' with probability {follow.probability(plain):.2f}, "
        f"{follow.of(plain):.1f} logits ahead of '{follow.versus.strip()}'; without the clip "
        f"the margin is {blind:.1f}.",
        f"It looks at the video most in layer {top} ({mass['mass'][top]:.0%} of the last "
        f"position's attention); {strongest} {adds} most to the answer.",
        f"{when}; {int(fewest['tokens'])} of {int(kept['tokens'].max())} tokens, chosen by "
        "attention, are the fewest tried that still give the same answer.",
        f"The same answer comes out for these other clips: {kept_by}.",
        f"The generated token that depends most on the video is '{most['token'].strip()}' "
        f"({most['influence']:.1f} nats); the mean is {tokens['influence'].mean():.1f} nats.",
    )


def sha256(array: np.ndarray) -> str:
    """Hash of the frames the model saw."""
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
