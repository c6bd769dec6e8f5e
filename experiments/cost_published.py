"""Published costs of token reductions, computed again from lengths alone: no weights, no clip.

    python experiments/cost_published.py --out figures/cost_published.md

Every figure is stated with the formula that gives it. Where the published one does not come out of
its own formula, the table says so and the note says by how much.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from probe.cost import Lengths, Shape, TowerShape, lengths, prefill_macs, tower_macs

TOWER = TowerShape(26, 1152, 16, 4304, patch=(14, 14), image=(384, 384))
ONEVISION = Shape.plain(28, 3584, 18944, 28, kv_heads=4, tower=TOWER)  # LLaVA-OneVision-7B
LLAVA = Shape.plain(32, 4096, 11008, 32)  # LLaVA-1.5-7B
CELLS, FRAMES = 196, 32
VIDEO, IMAGE = CELLS * FRAMES, 576
NO_MATCH = 0.01  # further from the published number than this is not reached
DYCOKE_TEXT, FASTV_TEXT, FOURIER_TEXT = 80, 36, 36


@dataclass(frozen=True)
class Figure:
    """One published number.

    Attributes:
        method, setting: whose it is, and of what.
        published: as printed; None where a setting is published and no number.
        computed: by `formula`, in the same unit.
        unit: "T" (10^12 multiply-accumulates), "%", or "tokens".
        formula: how.
        note: what a reader should know.
    """

    method: str
    setting: str
    published: str | None
    computed: float
    unit: str
    formula: str
    note: str = ""

    @property
    def difference(self) -> float:
        """Of the computed number from the published one, relative to it."""
        return self.computed / float(self.published or self.computed) - 1

    @property
    def reached(self) -> str:
        """Whether the published number comes out: to its last digit, nearly, or not."""
        if self.published is None:
            return ""
        digits = len(self.published.partition(".")[2])
        if f"{self.computed:.{digits}f}" == self.published:
            return "yes"
        return f"to {abs(self.difference):.1%}" if abs(self.difference) <= NO_MATCH else "no"


def tera(found: Lengths, shape: Shape = ONEVISION, convention: str = "fastv") -> float:
    """10^12 multiply-accumulates of the prompt."""
    return prefill_macs(shape, found.rows, convention) / 1e12


def video(*stages: tuple[int, int], text: int = 0) -> Lengths:
    """32 frames of LLaVA-OneVision-7B; stages of (first layer, visual tokens)."""
    return lengths(stages, ONEVISION.layers, VIDEO, text)


def image(*stages: tuple[int, int], text: int = 0) -> Lengths:
    """One image of LLaVA-1.5-7B."""
    return lengths(stages, LLAVA.layers, IMAGE, text)


def percent(part: Lengths, whole: Lengths, shape: Shape = ONEVISION) -> float:
    """Part of the prompt's multiply-accumulates, fastv convention."""
    return 100 * tera(part, shape) / tera(whole, shape)


def holitom(keep: float) -> Lengths:
    """That part of each frame, rounded up, and half of it from layer 18 on."""
    kept = FRAMES * -int(-(keep * CELLS) // 1)
    return video((0, kept), (18, kept // 2))


def dycoke(keep: float, frames: int, coded: bool) -> float:
    """Tokens kept: of every four frames one whole, of three that part. As coded, the pass over
    even frames stops early, and the third frame of the last four stays whole.
    """
    windows = frames // 4
    if not coded:
        return windows * CELLS * (1 + 3 * keep)
    few = int(keep * CELLS + 1e-9)
    return windows * CELLS + (3 * windows - 1) * few + CELLS


def recycled(kept: tuple[int, int, int]) -> tuple[int, int, int]:
    """SparseVLM: with the clusters that each stage makes of the best 30 % of what it drops."""
    before, found = IMAGE, []
    for count in kept:
        best = int(0.3 * (before - count)) + 1
        before = count + best // 10 + 1
        found.append(before)
    return found[0], found[1], found[2]


def sparse(counts: tuple[int, int, int]) -> float:
    """Visual tokens per layer, mean over 32 layers with stages at 2, 6 and 15."""
    return image(*zip((2, 6, 15), counts, strict=True)).mean_visual


def prompt_figures() -> list[Figure]:
    """The language model's prefill, by 4nd² + 2n²d + 2ndm."""
    full = video()
    fastvid = FRAMES * 19
    paper, code = (round(dycoke(0.3, FRAMES, coded)) for coded in (False, True))
    dycoke_full = video(text=DYCOKE_TEXT)
    found = [
        Figure("none", "LLaVA-OneVision-7B, 32 frames", "40.8", tera(full), "T", "6272, no text"),
        Figure("HoliTom", "keep 25 %, half from layer 18", "17.4",
               percent(holitom(0.25), full), "%", "49 a frame; 784 from 18"),
        Figure("HoliTom", "keep 10 %, half from layer 18", "6.9",
               percent(holitom(0.10), full), "%", "20 a frame, rounded up; 320 from 18",
               "627 tokens without rounding per frame: 6.8"),
        Figure("FastV", "k=2, keep 20 %", "22.8",
               percent(video((2, round(0.2 * VIDEO))), full), "%", "1254 from layer 2",
               "printed without its setting"),
        Figure("FastV", "LLaVA-1.5-7B, k=3, half", "57",
               percent(image((3, 288), text=FASTV_TEXT), image(text=FASTV_TEXT), LLAVA), "%",
               f"576 + {FASTV_TEXT} prompt tokens, 288 from layer 3",
               "54.0 without prompt tokens"),
        Figure("DyCoke", "none", "41.4", tera(dycoke_full), "T", f"6272 + {DYCOKE_TEXT} text"),
    ]  # fmt: skip
    for rate, published in ((0.3, "30.8"), (0.5, "24.1"), (0.7, "17.9")):
        count = round(dycoke(1 - rate, FRAMES, coded=False))
        found.append(
            Figure("DyCoke", f"K={rate:.1f}, as published", published,
                   tera(video((0, count), text=DYCOKE_TEXT)), "T", f"{count} + {DYCOKE_TEXT} text")
        )  # fmt: skip
    found += [
        Figure("DyCoke", "K=0.7, as published, part", "43",
               percent(video((0, paper), text=DYCOKE_TEXT), dycoke_full), "%", "17.9 of 41.4"),
        Figure("DyCoke", "K=0.7, as coded", "17.9",
               tera(video((0, code), text=DYCOKE_TEXT)), "T", f"{code} + {DYCOKE_TEXT} text",
               "the released code keeps one frame more"),
        Figure("FastVID", "10 %, 19 of 196 a frame", "8.3",
               percent(video((0, fastvid), text=22), video(text=22)), "%", f"{fastvid} + 22 text",
               "8.0 without text; the number of prompt tokens is chosen to fit"),
        Figure("Fourier-VLM", "12 x 12 = 144 tokens", "83.8",
               100 - percent(image((0, 144)), image(), LLAVA), "% fewer", "576 to 144, no text",
               "the most that 144 tokens can save"),
        Figure("Fourier-VLM", "8 x 8 = 64 tokens", "83.8",
               100 - percent(image((0, 64), text=FOURIER_TEXT), image(text=FOURIER_TEXT), LLAVA),
               "% fewer", f"576 to 64, {FOURIER_TEXT} prompt tokens",
               "what the published number would need"),
    ]  # fmt: skip
    return found


def tower_figures() -> list[Figure]:
    """Totals with a vision tower, as EarlyTom prints them."""
    tower = tower_macs(TOWER, ((FRAMES, 27, 27),)) / 1e12
    total, given = 82.6, 41.8
    found = [
        Figure("EarlyTom", "LLaVA-OneVision-7B with its tower", "82.6", tera(video()) + tower, "T",
               "and the same for 26 SigLIP layers, 729 patches a frame",
               f"the tower would have to be {given} T; it is {tower:.1f} T, a quarter"),
    ]  # fmt: skip
    rows = [("FastV", "k=2, keep 20 %", "61.9", video((2, round(0.2 * VIDEO))))]
    for keep, one, two in (
        (0.25, "61.1", "59.3"),
        (0.2, "58.9", "57.5"),
        (0.15, "56.8", "55.7"),
        (0.1, "54.7", "54.0"),
    ):
        rows.append(("VisionZip", f"keep {keep:.0%}", one, video((0, round(keep * VIDEO)))))
        rows.append(("HoliTom", f"keep {keep:.0%}", two, holitom(keep)))
    quarters = (VIDEO // 2, VIDEO // 4, VIDEO // 8)
    rows.append(("PyramidDrop", "half each at 7, 14, 21", "62.7",
                 video(*zip((7, 14, 21), quarters, strict=True))))  # fmt: skip
    for method, setting, published, one in rows:
        note = "its setting there is not published" if method == "PyramidDrop" else ""
        found.append(
            Figure(method, setting, published, 100 * (tera(one) + given) / total, "%",
                   f"({tera(one):.1f} + {given}) / {total} T", note)
        )  # fmt: skip
    return found


def token_figures() -> list[Figure]:
    """Numbers of visual tokens."""
    found = [
        Figure("DyCoke", "K=0.7, as published", "47.5",
               100 * dycoke(0.3, FRAMES, coded=False) / VIDEO, "%", "(1 + 3 (1 - K)) / 4")
    ]  # fmt: skip
    for frames in (32, 16, 8):
        found.append(
            Figure("DyCoke", f"K=0.7, as coded, {frames} frames", "47.5",
                   100 * dycoke(0.3, frames, coded=True) / (frames * CELLS), "%",
                   "int(.3 x 196) = 58; one frame of the last four stays whole")
        )  # fmt: skip
    found += [
        Figure("DyCoke", "K=1, as coded: its fewest", "25",
               100 * dycoke(0.0, FRAMES, coded=True) / VIDEO, "%", "9 of 32 frames"),
        Figure("DyCoke", "retained 14.25 %", "14.25",
               100 * dycoke(0.3, FRAMES, coded=False) / VIDEO * 0.3, "%", ".475 x .3",
               "of the cache while decoding; the prefill runs on 47.5 %"),
        Figure("FastVID", "pruned 90.3 %", "90.3", 100 - 100 * 19 / CELLS, "%",
               "int(.1 x 196) = 19 of 196", "9.69 % kept"),
        Figure("DART", ".2222 of 576", "128", 4 + 8 * int(0.2222 * IMAGE / 8), "tokens",
               "4 visual pivots + 8 x int(.2222 x 576 / 8)"),
    ]  # fmt: skip
    nominal = {"192": (300, 200, 110), "128": (303, 110, 36), "64": (66, 30, 17)}
    for name, counts in nominal.items():
        found.append(
            Figure("SparseVLM", f"{name} tokens, counts alone", name, sparse(counts), "tokens",
                   f"{counts} from layers 2, 6, 15; mean over 32 layers")
        )  # fmt: skip
        more = recycled(counts)
        found.append(
            Figure("SparseVLM", f"{name} tokens, recycled ones too", name, sparse(more), "tokens",
                   f"{more} with the clusters of the best 30 % of the dropped")
        )  # fmt: skip
    for name, counts in {
        "192": (300, 200, 118),
        "128": (238, 108, 60),
        "64": (66, 34, 20),
    }.items():
        found.append(
            Figure("SparseVLM v2", f"{name} tokens", name, sparse(counts), "tokens",
                   f"{counts} from layers 2, 6, 15; nothing recycled")
        )  # fmt: skip
    stages = image((8, IMAGE // 2), (16, IMAGE // 4), (24, IMAGE // 8))
    found.append(
        Figure("PyramidDrop", "half each at 8, 16, 24 of 32", None,
               100 * stages.mean_visual / IMAGE, "%", "mean of 1, 1/2, 1/4, 1/8")
    )  # fmt: skip
    return found


def conventions() -> list[str]:
    """The same prompts by each way to count; a column keeps to one."""
    prompts = {
        "LLaVA-OneVision-7B, 32 frames": (video(), video(), ONEVISION),
        "HoliTom, keep 25 %": (holitom(0.25), video(), ONEVISION),
        "FastV, k=2, keep 20 %": (video((2, round(0.2 * VIDEO))), video(), ONEVISION),
        "LLaVA-1.5-7B, 36 prompt tokens": (*(image(text=FASTV_TEXT),) * 2, LLAVA),
        "FastV there, k=3, half": (
            image((3, 288), text=FASTV_TEXT), image(text=FASTV_TEXT), LLAVA,
        ),
    }  # fmt: skip
    lines = [
        "| prompt | fastv | 3ndm | true | with vision |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, (part, whole, shape) in prompts.items():
        cells = []
        for way in ("fastv", "3ndm", "true"):
            value = tera(part, shape, way)
            cells.append(f"{value:.2f} T ({value / tera(whole, shape, way):.1%})")
        tower = 0 if shape.tower is None else tower_macs(shape.tower, ((FRAMES, 27, 27),)) / 1e12
        value, base = (tera(one, shape, "true") + tower for one in (part, whole))
        cells.append(f"{value:.2f} T ({value / base:.1%})" if tower else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def table(figures: list[Figure]) -> list[str]:
    """Markdown."""
    lines = ["| method | setting | published | computed | unit | by | reached | note |"]
    lines.append("| --- | --- | ---: | ---: | --- | --- | --- | --- |")
    for one in figures:
        digits = max(len((one.published or "0.0").partition(".")[2]), 1)
        cells = (one.method, one.setting, one.published or "", f"{one.computed:.{digits}f}",
                 one.unit, one.formula, one.reached, one.note)  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def text() -> str:
    """The whole document."""
    parts = [
        "# Published costs, computed again",
        "    python experiments/cost_published.py --out figures/cost_published.md",
        "From lengths alone, without weights. T is 10^12 multiply-accumulates (the papers' "
        '"FLOPs"). "reached": the published number comes out to its last digit, nearly, or not; '
        "tables keep to one way to count.",
        "## The language model's prefill, by 4nd² + 2n²d + 2ndm a layer",
        "\n".join(table(prompt_figures())),
        "## With a vision tower",
        "EarlyTom's totals take 41.8 T for the tower, a number that no count of its layers gives; "
        "with it the other methods' rows come out.",
        "\n".join(table(tower_figures())),
        "## Visual tokens",
        "\n".join(table(token_figures())),
        "## One prompt, every way to count",
        "fastv: 4nd² + 2n²d + 2ndm. 3ndm: 4nd² + 2n²d + 3ndm. true: grouped keys and values, gate, "
        "up and down. with vision: true, and the tower's layers. In brackets the part of the "
        "unreduced prompt.",
        "\n".join(conventions()),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="markdown file")
    options = parser.parse_args()
    found = text()
    print(found)
    if options.out:
        options.out.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()
