"""What captures cost: time and peak memory against a bare forward pass and against other tools.

    python experiments/bench_capture.py [--out figures/bench_capture.md]

The model has random weights: a LLaVA-OneVision with a decoder of 6 layers, 8 heads (8 key-value
heads) and width 512, an MLP 2.75 times as wide, a vision tower too small to matter, and 196
tokens a frame as in the published checkpoints. Every variant runs in a process of its own, all on
the same model and clip. Peak memory is that of the process in its first forward pass. Times are
taken round by round, the variants in turn, and a ratio is the median over rounds of the time by
that round's bare time, so that other load on the machine cancels. Beyond PEERS_UP_TO tokens a
time is that of the first pass, and the other tools are left out.

The other tools (`pip install 'probe-video[interop]'`) do what their users do to see attention:
transformers returns eager maps; nnsight reads each layer's eager map in a trace and keeps its mean
over rows, so that maps do not pile up; TransformerLens caches everything.
At 16,000 tokens 6 layers of eager maps alone are 49 GB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray  # noqa: F401  (a run imports it; every variant has it)
from bench_model import build

import probe
import probe.interop
from probe.capture import AttentionEntropy, AttentionMass, AttentionReceived, TokenNorms
from probe.engine.cost_meter import Meter

LAYERS, HEADS, WIDTH, MLP = 6, 8, 512, 1408
TOKENS = (4100, 16000)
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
BARE, EAGER = "bare forward", "transformers, eager with output_attentions"
NNSIGHT, LENS = "nnsight, attention of each layer", "TransformerLens, run_with_cache"
PEERS = (EAGER, NNSIGHT, LENS)
PEERS_UP_TO = 6000
VARIANTS = (BARE, *CAPTURES, *PEERS)


def forward(variant: str, options: argparse.Namespace, tokens: int) -> tuple[Callable, int]:
    """One variant as a function without arguments, and the number of tokens."""
    dtype = getattr(torch, options.dtype)
    shape = {"layers": LAYERS, "heads": HEADS, "width": WIDTH, "mlp": MLP}
    where = {"device": options.device, "dtype": dtype}
    model, x = build(tokens, **shape, **where, eager=variant in PEERS)
    readout = torch.as_tensor(x.layout.readout, device=options.device)
    inputs = x.inputs | {"use_cache": False, "logits_to_keep": readout}

    def bare() -> object:
        with torch.no_grad():
            return model.hf(**inputs, output_attentions=variant == EAGER)

    def captured() -> object:
        return model.run(x, CAPTURES[variant])

    if variant == NNSIGHT:
        return traced(model, inputs), len(x.layout)
    if variant == LENS:
        return cached(model, x.inputs), len(x.layout)
    return captured if variant in CAPTURES else bare, len(x.layout)


def traced(model: Any, inputs: dict) -> Callable:
    """nnsight: the mean over rows of each layer's attention map [head, key]."""
    nn = probe.interop.to_nnsight(model)

    def trace() -> object:
        with torch.no_grad(), nn.trace(**inputs):
            means = []
            for layer in nn.model.language_model.layers:
                means.append(layer.self_attn.output[1].mean(2)[0])
            means = nnsight.save(means)
        assert len(means) == LAYERS and means[0].shape[0] == HEADS
        return means

    import nnsight

    return trace


def cached(model: Any, inputs: dict) -> Callable:
    """TransformerLens: everything in a cache."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    bridge = build_bridge_from_module(
        model.hf, type(model.hf).__name__, hf_config=model.hf.config, tokenizer=model.tokenizer
    )
    given = {name: value for name, value in inputs.items() if name != "input_ids"}

    def run() -> object:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(inputs["input_ids"], **given)
        assert cache["pattern", LAYERS - 1].shape[1] == HEADS
        return cache

    return run


def timed(function: Callable, options: argparse.Namespace) -> tuple[float, Any]:
    """Time of one call, and what it gave."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    started = clock()
    found = function()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return clock() - started, found


def work(options: argparse.Namespace) -> None:
    """A variant's own process: what its first pass took, then a time for every line it gets."""
    function, count = forward(options.variant, options, options.tokens[0])
    with Meter(options.device) as meter:
        spent, found = timed(function, options)
    print(count, (meter.peak or float("nan")) / 1e6, spent, flush=True)
    if options.variant.startswith("all rows"):
        check(found, options.dtype == "float32")
    del found
    for _ in sys.stdin:
        print(timed(function, options)[0], flush=True)


def worker(variant: str, options: argparse.Namespace, tokens: int) -> subprocess.Popen:
    """Start a variant's process."""
    command = [sys.executable, __file__, "--variant", variant, "--tokens", str(tokens)]
    for name in ("device", "dtype", "threads", "clock"):
        command += [f"--{name}", str(getattr(options, name))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes)


def answer(process: subprocess.Popen) -> list[float]:
    """The numbers of a process's next line."""
    while line := process.stdout.readline():
        try:
            return [float(number) for number in line.split()]
        except ValueError:  # a tool's own message
            continue
    raise SystemExit("a variant failed; its message is above")


def check(run: probe.Run, exact: bool) -> None:
    """Every row's mass sums to 1 and its entropy lies between 0 and log of its keys."""
    tolerance = 1e-5 if exact else 5e-3
    mass = run.data.attention_mass.sum("key_group").values
    entropy, keys = run.data.attention_entropy.values, np.arange(1, len(run.layout) + 1)
    assert np.abs(mass - 1).max() < tolerance, np.abs(mass - 1).max()
    assert entropy.min() > -tolerance and (entropy <= np.log(keys) + tolerance).all()


def measure(options: argparse.Namespace, tokens: int) -> list[str]:
    """Rows of the table for one length."""
    long = tokens > options.peers_up_to
    variants = [v for v in VARIANTS if not (long and v in PEERS)]
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    memory = {}
    with ExitStack() as stack:
        running = {}
        for variant in variants:
            running[variant] = stack.enter_context(worker(variant, options, tokens))
            count, memory[variant], first = answer(running[variant])
            times[variant] += [first] if long else []  # otherwise the first pass warms up
        for _ in range(0 if long else options.rounds):
            for variant, process in running.items():
                process.stdin.write("again\n")
                process.stdin.flush()
                times[variant] += answer(process)
        for process in running.values():
            process.stdin.close()
    rows = []
    for variant in variants:
        pairs = zip(times[variant], times[BARE], strict=True)
        ratio = statistics.median(one / bare for one, bare in pairs)
        middle, extra = statistics.median(times[variant]), memory[variant] - memory[BARE]
        rows.append(
            f"| {int(count):,} | {variant} | {middle:.3f} | {ratio:.2f} "
            f"| {memory[variant]:,.0f} | {extra:+,.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


def versions() -> str:
    """What was measured."""
    packages = ["torch", "transformers", "nnsight", "transformer-lens"]
    return ", ".join(f"{package} {version(package)}" for package in packages)


def main() -> None:
    """Measure every length and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=CLOCK)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peers-up-to", type=int, default=PEERS_UP_TO, help="tokens; 0 for none")
    parser.add_argument("--out", type=Path, help="write the table to this markdown file")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.variant:
        work(options)
        return
    head = ["| tokens | variant | seconds | x bare | peak MB | above bare |"]
    head.append("| ---: | --- | ---: | ---: | ---: | ---: |")
    print(*head, sep="\n")
    place = f"threads: {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f} at the start"
    place = place if options.device == "cpu" else torch.cuda.get_device_name()
    shown = f"python experiments/bench_capture.py {' '.join(sys.argv[1:])}"
    about = (
        f"{LAYERS} layers, {HEADS} heads, width {WIDTH}, MLP {MLP}, {options.dtype} on "
        f"{options.device} ({place}); {options.clock} time, median of {options.rounds} "
        f"interleaved rounds (beyond {options.peers_up_to:,} tokens the first pass); peak memory "
        "of a fresh process each. The mass of every row on every frame is itself a result: "
        f"19 MB at 4,130 tokens, 263 MB at 16,086. {versions()}."
    )
    text = ["# Cost of captures", "", f"    {shown}", "", about, "", *head]
    for tokens in options.tokens:
        text += measure(options, tokens)
        if options.out:
            options.out.write_text("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
