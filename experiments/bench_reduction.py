"""What dropping tokens saves: time of prefill and decode, and memory, against what is counted.

    python experiments/bench_reduction.py --threads 1 --clock cpu --out figures/bench_reduction.md

The model has random weights: a LLaVA-OneVision with a decoder of 12 layers, 8 heads and width 512,
an MLP 2.75 times as wide, a vision tower too small to matter, and 196 tokens a frame as in the
published checkpoints. FastV drops half of the visual tokens from layer 2 on. Four variants generate
the same number of tokens, in turn, round by round, in one process; a ratio is the median over
rounds of the time by that round's plain time, so that other load on the machine cancels. Peak
memory is that of a fresh process each.

"by plain hooks" reaches the lengths of FastV with tokens chosen beforehand: hooks that index the
stream, the rotary tables and the mask, and nothing else. What FastV takes longer is bookkeeping:
the scores, the choice, the session and its proof.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray  # noqa: F401  (a run imports it; every variant has it)
from bench_model import build

from probe.ablate import fastv
from probe.cost import predict
from probe.engine.cost_meter import Meter

LAYERS, HEADS, WIDTH, MLP = 12, 8, 512, 1408
TOKENS, NEW, ROUNDS = 4100, 17, 3
K, KEEP = 2, 0.5
PLAIN, NOTHING = "plain generation", "probe, nothing ablated"
HOOKS, FASTV = "half from layer 2, by plain hooks", f"fastv(k={K}, keep={KEEP})"
CLOCK = "cpu: processor time, with one thread on a machine that is busy with other things"
PREFILL_WITHIN, BOOKKEEPING = 0.10, 0.05


@dataclass
class Spent:
    """What one generation took: seconds to the first token, of these in the decoder's prefill, and
    of the other tokens together.
    """

    first: float
    prefill: float
    decode: float


def built(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model with random weights, and the example."""
    model, x = build(
        options.tokens, layers=LAYERS, heads=HEADS, width=WIDTH, mlp=MLP,
        device=options.device, dtype=getattr(torch, options.dtype),
    )  # fmt: skip
    model.hf.generation_config.eos_token_id, model.hf.generation_config.pad_token_id = None, 0
    return model, x


@contextmanager
def shortened(model: Any, kept: torch.Tensor, count: int) -> Iterator[None]:
    """From layer K on only these rows of a prompt of `count` tokens."""

    def enter(number: int) -> Callable:
        def hook(module: Any, args: tuple, kwargs: dict) -> tuple:
            tables = kwargs["position_embeddings"]
            if tables[0].shape[1] != count:  # a step of decoding
                return args, kwargs
            x = args[0][:, kept] if number == K else args[0]
            tables = tuple(table[:, kept] for table in tables)
            mask = kwargs.get("attention_mask")
            if mask is not None:
                mask = mask[:, :, kept][..., kept]
            changed = {"position_embeddings": tables, "attention_mask": mask}
            return (x, *args[1:]), kwargs | changed

        return hook

    handles = [
        layer.register_forward_pre_hook(enter(number), with_kwargs=True)
        for number, layer in enumerate(model.layers)
        if number >= K
    ]
    yield
    for handle in handles:
        handle.remove()


def variants(model: Any, x: Any, kept: np.ndarray, new: int) -> dict[str, Callable[[], Any]]:
    """By name, what generates; plain hooks keep the positions `kept`."""
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    ablate = [fastv(k=K, keep=KEEP)]
    index = torch.as_tensor(kept, device=model.hf.device)

    def plain() -> Any:
        with torch.no_grad():
            return model.hf.generate(**inputs, max_new_tokens=new, do_sample=False)

    def hooks() -> Any:
        with shortened(model, index, len(x.layout)):
            return plain()

    return {
        PLAIN: plain,
        NOTHING: lambda: model.generate(x, max_new_tokens=new),
        HOOKS: hooks,
        FASTV: lambda: model.generate(x, ablate=ablate, max_new_tokens=new),
    }


def timed(model: Any, function: Callable[[], Any], clock: Callable[[], float]) -> tuple[Spent, Any]:
    """What one generation took, and what it gave."""
    starts: list[float] = []

    def begun(*_: Any) -> None:
        if model.hf.device.type == "cuda":
            torch.cuda.synchronize()
        starts.append(clock())

    handle = model.decoder.register_forward_pre_hook(begun)
    began = clock()
    found = function()
    if model.hf.device.type == "cuda":
        torch.cuda.synchronize()
    ended = clock()
    handle.remove()
    first, second = starts[:2]
    return Spent(second - began, second - first, ended - second), found


def memory(name: str, options: argparse.Namespace) -> float:
    """Peak memory of a variant above what the model takes, in bytes, in a process of its own."""
    command = [sys.executable, __file__, "--variant", name]
    for option in ("tokens", "device", "dtype", "threads"):
        command += [f"--{option}", str(getattr(options, option))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def work(options: argparse.Namespace) -> None:
    """That process: two tokens, nothing before them."""
    model, x = built(options)
    video = x.layout.select("video")
    kept = np.setdiff1d(np.arange(len(x.layout)), video[::2])
    function = variants(model, x, kept, new=2)[options.variant]
    with Meter(model.hf.device) as meter:
        function()
    known = meter.peak is not None and meter.memory is not None
    print(meter.peak - meter.memory if known else float("nan"))


def agree(model: Any, found: dict[str, Any], count: int) -> None:
    """The variants of equal lengths say the same; otherwise nothing here can be compared."""
    plain, hooks = (found[name][0, count:].tolist() for name in (PLAIN, HOOKS))
    assert found[NOTHING].meta["generated"] == plain
    assert found[FASTV].meta["generated"] == hooks


def measure(options: argparse.Namespace) -> tuple[list[str], dict[str, float]]:
    """The table, and the numbers that the checks are about."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    model, x = built(options)
    kept = np.flatnonzero(model.run(x, ablate=[fastv(k=K, keep=KEEP)]).kept.values[-1])
    every = variants(model, x, kept, options.new)
    spent: dict[str, list[Spent]] = {name: [] for name in every}
    found = {name: timed(model, function, clock)[1] for name, function in every.items()}
    agree(model, found, len(x.layout))
    for _ in range(options.rounds):
        for name, function in every.items():
            spent[name].append(timed(model, function, clock)[0])

    def ratio(name: str, part: str, base: str = PLAIN) -> float:
        pairs = zip(spent[name], spent[base], strict=True)
        return statistics.median(getattr(a, part) / getattr(b, part) for a, b in pairs)

    stated = predict(model, x, [fastv(k=K, keep=KEEP)])
    rows = []
    for name in every:
        middle = {
            part: statistics.median(getattr(one, part) for one in spent[name])
            for part in ("first", "prefill", "decode")
        }
        counted = stated.ratio() if name in (HOOKS, FASTV) else 1.0
        rows.append(
            f"| {name} | {middle['first']:.3f} | {middle['prefill']:.3f} "
            f"| {ratio(name, 'prefill'):.3f} | {counted:.3f} "
            f"| {(options.new - 1) / middle['decode']:.1f} | {1 / ratio(name, 'decode'):.2f} "
            f"| {memory(name, options) / 1e6:,.0f} |"
        )
        print(rows[-1], flush=True)
    numbers = {
        "tokens": len(x.layout),
        "prefill": ratio(FASTV, "prefill"),
        "counted": stated.ratio(),
        "decode": 1 / ratio(FASTV, "decode"),
        "bookkeeping": ratio(FASTV, "first", HOOKS) - 1,
        "kv": stated.kv_bytes(1)[0] / stated.kv_bytes(1)[1],
    }
    return rows, numbers


def main() -> None:
    """Measure, print, and with --out write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--new", type=int, default=NEW, help="tokens to generate")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=CLOCK)
    parser.add_argument("--out", type=Path, help="write the table to this markdown file")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.variant:
        work(options)
        return
    head = [
        "| variant | first token s | prefill s | x plain | counted | decode tokens/s | x plain "
    ]
    head[0] += "| peak memory above the model, MB |"
    head.append(f"| --- {'| ---: ' * 7}|")
    print(*head, sep="\n")
    rows, found = measure(options)
    off = found["prefill"] / found["counted"] - 1
    checks = [
        f"prefill time is {found['prefill']:.3f} of plain where the multiply-accumulates are "
        f"{found['counted']:.3f}: {off:+.1%} (at most {PREFILL_WITHIN:.0%} more)",
        f"decode runs at {found['decode']:.2f} x the plain speed, with {found['kv']:.2f} of the "
        "cache",
        f"bookkeeping is {found['bookkeeping']:+.1%} of the time to the first token (at most "
        f"{BOOKKEEPING:.0%})",
    ]
    print(*checks, sep="\n")
    place = f"threads: {torch.get_num_threads()}, load {os.getloadavg()[0]:.1f} at the end"
    place = place if options.device == "cpu" else torch.cuda.get_device_name()
    about = (
        f"{LAYERS} layers, {HEADS} heads, width {WIDTH}, MLP {MLP}, {options.dtype} on "
        f"{options.device} ({place}), {found['tokens']:,} tokens, {options.new} generated; "
        f"{options.clock} time, median of {options.rounds} interleaved rounds. counted: the true "
        "count, causal attention in full; prefill: from the decoder's first to its second forward. "
        f"torch {version('torch')}, transformers {version('transformers')}."
    )
    shown = f"    python experiments/bench_reduction.py {' '.join(sys.argv[1:])}"
    text = ["# What dropping tokens saves", "", shown, "", about, "", *head, *rows, ""]
    if options.out:
        options.out.write_text("\n".join([*text, *(f"- {check}" for check in checks), ""]))
    if off > PREFILL_WITHIN or found["decode"] < 1 or found["bookkeeping"] > BOOKKEEPING:
        raise SystemExit("not within its bounds; see above")


if __name__ == "__main__":
    main()
