"""What captures cost: time and peak memory against a bare forward pass and eager attention.

    python experiments/bench_capture.py [--out figures/bench_capture.md]

The model has random weights: a LLaVA-OneVision with a decoder of 6 layers, 8 heads (8 key-value
heads) and width 512, an MLP 2.75 times as wide, a vision tower too small to matter, and 196
tokens a frame as in the published checkpoints. Times are taken in one process, the variants in
turn, and a ratio is the median over rounds of the time by that round's bare time, so that other
load on the machine cancels. Peak memory is of a fresh process for each variant, all with the same
imports, after one forward pass.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
import xarray  # noqa: F401  (a run imports it; every variant has it)

import probe
from probe.capture import AttentionEntropy, AttentionMass, AttentionReceived, TokenNorms
from probe.testbed.architecture import CHAT_TEMPLATE
from probe.testbed.tokenizer import build_tokenizer

LAYERS, HEADS, WIDTH, MLP = 6, 8, 512, 1408
SIDE, PATCH = 112, 4  # 28 x 28 patches, pooled to 14 x 14 tokens
FRAME_TOKENS = 196
TOKENS = (2000, 4100)
ROUNDS = 9
CLOCK = "cpu: processor time, with --threads 1 on a machine that is busy with other things"
EVERY = {"queries": "tokens"}
CAPTURES = {
    "text rows: mass, entropy, norms": [AttentionMass(), AttentionEntropy(), TokenNorms()],
    "all rows: mass, entropy, norms": [
        AttentionMass(**EVERY, keys="frames"),
        AttentionEntropy(**EVERY),
        TokenNorms(),
    ],
    "all rows: the same and received": [
        AttentionMass(**EVERY, keys="frames"),
        AttentionEntropy(**EVERY),
        TokenNorms(),
        AttentionReceived(queries="roles"),
    ],
}
BARE, EAGER = "bare forward", "eager, output_attentions=True"
VARIANTS = (BARE, *CAPTURES, EAGER)


def build(tokens: int, device: str, dtype: torch.dtype, eager: bool) -> tuple:
    """The model with random weights, and an example of about that many tokens."""
    tokenizer = build_tokenizer()
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
            image_size=SIDE, patch_size=PATCH, vision_use_head=False,
        ),
        text_config=transformers.Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=MLP,
            num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
            max_position_embeddings=32768, initializer_range=0.08,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIDE, SIDE]], vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )  # fmt: skip
    attention = {"text_config": "eager" if eager else "sdpa", "vision_config": "sdpa"}
    torch.manual_seed(0)
    kind = transformers.LlavaOnevisionForConditionalGeneration
    hf = kind._from_config(config, attn_implementation=attention, dtype=dtype).to(device).eval()
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=[[SIDE, SIDE]]
        ),
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokenizer,
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )
    frames = round(tokens / FRAME_TOKENS)
    video = np.random.default_rng(0).integers(0, 255, (frames, SIDE, SIDE, 3), dtype=np.uint8)
    model = probe.load((hf, processor))
    return model, model.encode(video, "Which object moves first?", frames=frames)


def forward(variant: str, options: argparse.Namespace, tokens: int) -> tuple[Callable, int]:
    """One variant as a function without arguments, and the number of tokens."""
    dtype = getattr(torch, options.dtype)
    model, x = build(tokens, options.device, dtype, eager=variant == EAGER)
    readout = torch.as_tensor(x.layout.readout, device=options.device)

    def bare() -> object:
        with torch.no_grad():
            attentions = {"output_attentions": True} if variant == EAGER else {}
            return model.hf(**x.inputs, use_cache=False, logits_to_keep=readout, **attentions)

    def captured() -> object:
        return model.run(x, CAPTURES[variant])

    return captured if variant in CAPTURES else bare, len(x.layout)


def seconds(function: Callable, options: argparse.Namespace) -> float:
    """Time of one call."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    started = clock()
    function()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def peak(options: argparse.Namespace, tokens: int) -> float:
    """Peak memory in MB of this process after one call of the variant it was started for."""
    function, _ = forward(options.variant, options, tokens)
    function()
    if options.device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would begin at the parent's size
        line = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def peak_elsewhere(variant: str, options: argparse.Namespace, tokens: int) -> float:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--variant", variant, "--tokens", str(tokens)]
    command += ["--device", options.device, "--dtype", options.dtype]
    command += ["--threads", str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def check(run: probe.Run, exact: bool) -> None:
    """Every row's mass sums to 1 and its entropy lies between 0 and log of its keys."""
    tolerance = 1e-5 if exact else 5e-3
    mass = run.data.attention_mass.sum("key_group").values
    entropy, keys = run.data.attention_entropy.values, np.arange(1, len(run.layout) + 1)
    assert np.abs(mass - 1).max() < tolerance, np.abs(mass - 1).max()
    assert entropy.min() > -tolerance and (entropy <= np.log(keys) + tolerance).all()


def measure(options: argparse.Namespace, tokens: int) -> list[str]:
    """Rows of the table for one length."""
    made = {variant: forward(variant, options, tokens) for variant in VARIANTS}
    check(made["all rows: mass, entropy, norms"][0](), options.dtype == "float32")
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for number in range(options.rounds + 1):
        for variant, (function, _) in made.items():
            spent = seconds(function, options)
            if number:  # the first round warms up
                times[variant].append(spent)
    count = made[BARE][1]
    del made
    memory = {variant: peak_elsewhere(variant, options, tokens) for variant in VARIANTS}
    rows = []
    for variant in VARIANTS:
        pairs = zip(times[variant], times[BARE], strict=True)
        ratio = statistics.median(one / bare for one, bare in pairs)
        middle, extra = statistics.median(times[variant]), memory[variant] - memory[BARE]
        rows.append(
            f"| {count:,} | {variant} | {middle:.3f} | {ratio:.2f} "
            f"| {memory[variant]:,.0f} | {extra:+,.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure every length and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=CLOCK)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="write the table to this markdown file")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.variant:
        print(peak(options, options.tokens[0]))
        return
    head = ["| tokens | variant | seconds | x bare | peak MB | above bare |"]
    head.append("| ---: | --- | ---: | ---: | ---: | ---: |")
    print(*head, sep="\n")
    load = os.getloadavg()[0]
    rows = [row for tokens in options.tokens for row in measure(options, tokens)]
    place = f"threads: {torch.get_num_threads()}, load {load:.1f} at the start"
    place = place if options.device == "cpu" else torch.cuda.get_device_name()
    if options.out:
        shown = f"python experiments/bench_capture.py {' '.join(sys.argv[1:])}"
        about = (
            f"{LAYERS} layers, {HEADS} heads, width {WIDTH}, MLP {MLP}, {options.dtype} on "
            f"{options.device} ({place}); {options.clock} time, median of "
            f"{options.rounds} interleaved rounds; peak memory of a fresh process each. "
            f"torch {torch.__version__}, transformers {transformers.__version__}."
        )
        text = ["# Cost of captures", "", f"    {shown}", "", about, "", *head, *rows, ""]
        options.out.write_text("\n".join(text))


if __name__ == "__main__":
    main()
