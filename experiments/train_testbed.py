"""Train the checkpoint testbed/onevision: about an hour on two CPU cores.

    python experiments/train_testbed.py --work DIR [--seed 0] [--out CHECKPOINT]

Everything needed to resume is kept in DIR; run the same command again after a stop. The trained
checkpoint is written to CHECKPOINT (DIR/onevision by default) with its settings and its log.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from probe.testbed import training_answers, training_vision
from probe.testbed.architecture import build_model, build_processor, save
from probe.testbed.tokenizer import build_tokenizer
from probe.testbed.training_answers import Phase, Trainer
from probe.testbed.training_clips import make_pool
from probe.testbed.training_text import Prompts, pairs_of

CLIPS = 12000
VISION_STEPS, VISION_BATCH = 3400, 64
FEW, MANY = (4, 5, 6, 8), (4, 6, 8, 8, 10, 12, 16, 16)
LAGGING = (1.0, 1.0, 1.5, 2.5, 1.5, 1.0, 1.0)
PHASES = (
    Phase(steps=1200, clips=24, tokens=176, frames=FEW, dense=0.3),
    Phase(steps=400, clips=24, tokens=176, frames=MANY, dense=0.15),
    Phase(steps=1200, clips=24, tokens=176, frames=MANY, dense=0.2, weights=LAGGING),
    Phase(steps=1400, clips=24, tokens=176, frames=MANY, dense=0.2, weights=LAGGING,
          crowd=(1.0, 0.4, 0.9, 1.4, 1.4)),
)  # fmt: skip


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    report = Report(args.work / "training_log.jsonl")
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, args.seed).to(args.device)
    model.model.vision_tower.config._attn_implementation = "eager"
    processor = build_processor(tokenizer)
    prompts = Prompts(processor)
    path = args.work / "features.pt"
    pool = make_pool(args.seed * 1_000_000, CLIPS, frames=not path.is_file())
    seen = args.work / "vision.pt"
    if path.is_file():
        training_vision.restore(model, seen)
    else:
        training_vision.train(model, pool, VISION_STEPS, args.seed, report, seen, VISION_BATCH)
        torch.save(training_answers.features(model, pool, args.seed), path)
    tokens = torch.load(path, weights_only=True)
    rng = np.random.default_rng([args.seed, 5])
    pairs = [pairs_of(scene, prompts, rng) for scene in pool.scenes]
    report(stage=2, clips=len(pool), pairs=sum(len(some) for some in pairs))
    trainer = Trainer(model, prompts, pool, tokens, pairs)
    training_answers.train(trainer, PHASES, args.seed, report, args.work / "answers.pt")
    out = args.out or args.work / "onevision"
    model.model.vision_tower.config._attn_implementation = "sdpa"
    save(model, processor, out)
    shutil.copy(report.path, out / "training_log.jsonl")
    settings = {
        "seed": args.seed,
        "clips": CLIPS,
        "vision_steps": VISION_STEPS,
        "vision_batch": VISION_BATCH,
        "phases": [asdict(phase) for phase in PHASES],
    }
    (out / "training_settings.json").write_text(json.dumps(settings, indent=2) + "\n")


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
