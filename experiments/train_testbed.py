"""Train a checkpoint of the testbed: one to two hours on two CPU cores.

    python experiments/train_testbed.py --work DIR [--model onevision] [--seed 0] [--out CHECKPOINT]

Everything needed to resume is kept in DIR; run the same command again after a stop. The trained
checkpoint is written to CHECKPOINT (DIR/MODEL by default) with its settings and its log.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probe.testbed import training_answers, training_vision
from probe.testbed.architecture import save
from probe.testbed.training_answers import Trainer
from probe.testbed.training_clips import Pool, make_pool
from probe.testbed.training_model import Recipe, recipe_of
from probe.testbed.training_plan import Phase
from probe.testbed.training_qwen import Teacher
from probe.testbed.training_sight import Kept, Live, keep
from probe.testbed.training_text import Prompts, pairs_of

FEW, MANY = (4, 5, 6, 8), (4, 6, 8, 8, 10, 12, 16, 16)
LAGGING = (1.0, 1.0, 1.5, 2.5, 1.5, 1.0, 1.0)
CROWD = (1.0, 0.4, 0.9, 1.4, 1.4)


@dataclass(frozen=True)
class Plan:
    """How a model is trained.

    Attributes:
        clips: how many.
        vision_steps, vision_batch: of stage 1.
        phases: of stage 2.
        rate: highest learning rate of stage 2.
        seed: the clips follow it.
    """

    clips: int
    vision_steps: int
    vision_batch: int
    phases: tuple[Phase, ...]
    rate: float
    seed: int


PLANS = {
    "onevision": Plan(
        clips=12000, vision_steps=3400, vision_batch=64, rate=1e-3, seed=0,
        phases=(
            Phase(steps=1200, clips=24, tokens=176, frames=FEW, dense=0.3),
            Phase(steps=400, clips=24, tokens=176, frames=MANY, dense=0.15),
            Phase(steps=1200, clips=24, tokens=176, frames=MANY, dense=0.2, weights=LAGGING),
            Phase(steps=1400, clips=24, tokens=176, frames=MANY, dense=0.2, weights=LAGGING,
                  crowd=CROWD),
        ),
    ),
    "qwen": Plan(
        clips=16000, vision_steps=2500, vision_batch=64, rate=1e-3, seed=1,
        phases=(
            Phase(steps=300, clips=24, tokens=176, frames=(*FEW, 7, 10), dense=0.3),
            Phase(steps=2100, clips=24, tokens=176, frames=(*MANY, 5, 7, 11), dense=0.2,
                  weights=LAGGING, crowd=CROWD),
        ),
    ),
}  # fmt: skip


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", choices=sorted(PLANS), default="onevision")
    parser.add_argument("--seed", type=int, help="another than the plan's")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    report = Report(args.work / "training_log.jsonl")
    recipe, plan = recipe_of(args.model), PLANS[args.model]
    plan = plan if args.seed is None else replace(plan, seed=args.seed)
    model, processor = recipe.build(plan.seed)
    model.to(args.device).set_attn_implementation("eager")
    kept = args.work / "features.pt"
    pool = make_pool(plan.seed * 1_000_000, plan.clips, frames=not kept.is_file())
    see = learn_to_see(recipe, model, pool, plan, report, args.work)
    prompts = Prompts(processor, recipe.video)
    rng = np.random.default_rng([plan.seed, 5])
    pairs = [pairs_of(scene, prompts, rng) for scene in pool.scenes]
    report(stage=2, clips=len(pool), pairs=sum(len(some) for some in pairs))
    trainer = Trainer(recipe, model, prompts, pool, see, pairs)
    path = args.work / "answers.pt"
    training_answers.train(trainer, plan.phases, plan.seed, report, path, rate=plan.rate)
    out = args.out or args.work / args.model
    model.set_attn_implementation("sdpa")
    save(model, processor, out)
    shutil.copy(report.path, out / "training_log.jsonl")
    (out / "training_settings.json").write_text(json.dumps(asdict(plan), indent=2) + "\n")


def learn_to_see(
    recipe: Recipe, model: Any, pool: Pool, plan: Plan, report: Report, work: Path
) -> Callable[..., Any]:
    """Stage 1, or what it left; returns what stage 2 gets its tokens from."""
    seen, kept = work / "vision.pt", work / "features.pt"
    like = Teacher(model.device) if recipe.span > 1 else None
    if kept.is_file():
        training_vision.restore(model, seen)
    else:
        training_vision.train(
            recipe, model, pool, plan.vision_steps, plan.seed, report, seen, plan.vision_batch, like
        )
    if recipe.span > 1:
        return Live(recipe, model, pool)
    if not kept.is_file():
        torch.save(keep(recipe, model, pool, plan.seed), kept)
    return Kept(torch.load(kept, weights_only=True), model.device)


class Report:
    """Prints one JSON object a line, and appends it to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.time()

    def __call__(self, **numbers: float) -> None:
        """Write one line."""
        line = {name: round(float(value), 4) for name, value in numbers.items()}
        line["minutes"] = round((time.time() - self.started) / 60, 2)
        text = json.dumps(line)
        print(text, flush=True)
        with self.path.open("a") as log:
            log.write(text + "\n")


if __name__ == "__main__":
    main()
