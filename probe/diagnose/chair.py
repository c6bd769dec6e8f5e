"""Chair: how many of a caption's objects are not in the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.mentions import Mention, Synonyms, counts, mentions, read_synonyms
from probe.diagnose.pool_rows import Row, append, of_sums, quotient, ratio
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case

LEVELS = ("object", "shape", "motion")


@dataclass(frozen=True)
class Chair(Diagnosis):
    """CHAIR of the model's own caption: hallucinated mentions over all mentions.

    CHAIR (Rohrbach et al. 2018, arXiv 1809.02156): words are mapped to nodes by synonyms; a
    mention of a node that the truth lacks is hallucinated; repeated mentions count again. Values:
    `mentions`, `hallucinated`, `any_hallucinated` (the caption has one), `recall` (share of the
    truth's nodes that are mentioned; NaN for an empty truth), `words`.

    Pooled: `chair_i` = hallucinated / mentions over all captions, NaN where nothing is mentioned,
    `chair_s` = captions with a hallucinated mention / captions, `recall`, `words`. Short captions
    win: compare two sets of captions with `length_matched`.

    The truth of a testbed item is its scene: a thing's "red circle" (level "object"), its "circle"
    ("shape"), or "red circle left" ("motion", which is ours: CHAIR knows no actions). Elsewhere it
    is the sample's column `objects`, nodes of the file `synonyms`: of a video the union over all
    annotated frames. Singulars are made by endings, where the published code has a list for COCO.
    Costs a generation.

    Attributes:
        level: of testbed captions.
        synonyms: JSON file {"dog": ["puppy"], ...} for other captions.
        ignored: phrases that mention nothing, such as "toilet seat".
        max_new_tokens: of the caption.

    Raises:
        ProbeError: another level, no truth, or a bad file.
    """

    level: str = "object"
    synonyms: str = ""
    ignored: Sequence[str] = ()
    max_new_tokens: int = 64

    section: ClassVar[str] = "hallucination"
    source: ClassVar[str] = "CHAIR (arXiv 1809.02156)"

    def measure(self, case: Case) -> Values:
        """The counts of one caption."""
        if self.level not in LEVELS:
            raise ProbeError(f'chair: level="{self.level}"; there are {", ".join(LEVELS)}')
        text = case.model.generate(case.x, max_new_tokens=self.max_new_tokens).text or ""
        return of_caption(text, *self.read(case, text))

    def read(self, case: Case, text: str) -> tuple[tuple[str, ...], list[Mention]]:
        """The truth of a case, and what a caption of it mentions.

        Raises:
            ProbeError: no truth.
        """
        scene = getattr(case.truth, "scene", None)
        if scene is not None:
            return scene_truth(scene, self.level), scene_mentions(text, self.level)
        known = case.meta.get("objects")
        if known is None or not self.synonyms:
            raise ProbeError(
                "chair: no truth; give the sample a column `objects` and synonyms= a JSON file"
            )
        names = known.split(",") if isinstance(known, str) else known
        truth = tuple(str(name).strip() for name in names if str(name).strip())
        table: Synonyms = read_synonyms(self.synonyms)
        nodes = {m.node for name in truth for m in mentions(name, table)}
        return tuple(sorted(nodes)), mentions(text, table, self.ignored)

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """CHAIR's two ratios, recall and length."""
        rows = chair_rows("", table)
        return append(super().pool(table.drop(columns=["recall", "words"])), rows)


def of_caption(text: str, truth: Sequence[str], found: Sequence[Mention]) -> dict[str, float]:
    """The values of one caption."""
    c = counts(text, truth, found)
    return {
        "mentions": float(c.mentions),
        "hallucinated": float(c.hallucinated),
        "any_hallucinated": float(c.hallucinated > 0),
        "recall": c.found / c.truth if c.truth else float("nan"),
        "words": float(c.words),
    }


def chair_rows(prefix: str, table: pd.DataFrame) -> list[Row]:
    """chair_i, chair_s, recall and words of a table of captions."""
    one = np.ones(len(table))
    return [
        ratio(f"{prefix}chair_i", table, table["hallucinated"], table["mentions"]),
        ratio(f"{prefix}chair_s", table, table["any_hallucinated"], one),
        ratio(f"{prefix}recall", table, table["recall"], one),
        ratio(f"{prefix}words", table, table["words"], one),
    ]


def length_matched(one: pd.DataFrame, other: pd.DataFrame, strata: int = 5) -> pd.DataFrame:
    """CHAIR of two sets of captions of the same samples, at equal lengths.

    Captions of both are put into strata of equal size by their number of words; in each stratum
    each set is weighted to the number of captions that the two have there together, and strata
    that one set lacks are left out. Ours.

    Args:
        one, other: values of `Chair`, with the columns "sample" and "video".
        strata: at most so many.

    Returns:
        name, value, low, high, n, clusters: chair_i and chair_s of `one` and of `other` at matched
        length, their difference one - other, and `matched`, the share of captions in strata that
        both have.
    """
    import pandas as pd

    both = pd.concat([one.assign(side=1.0), other.assign(side=0.0)], ignore_index=True)
    edges = np.unique(np.quantile(both["words"], np.arange(1, strata) / strata))
    stratum = np.searchsorted(edges, both["words"], side="left")
    size = {s: [int(((stratum == s) & (both["side"] == k)).sum()) for k in (1, 0)]
            for s in set(stratum.tolist())}  # fmt: skip
    shared = np.array([min(size[s]) > 0 for s in stratum.tolist()])
    weight = np.array(
        [sum(size[s]) / size[s][int(side == 0)] if ok else 0.0
         for s, side, ok in zip(stratum.tolist(), both["side"], shared, strict=True)]
    )  # fmt: skip
    columns: dict[str, Any] = {}
    for name, side in (("one", 1.0), ("other", 0.0)):
        mine = weight * (both["side"] == side)
        columns[f"{name}_top"] = mine * both["hallucinated"]
        columns[f"{name}_bottom"] = mine * both["mentions"]
        columns[f"{name}_any"] = mine * both["any_hallucinated"]
        columns[f"{name}_count"] = mine
    rows = []
    for score, top, bottom in (("chair_i", "top", "bottom"), ("chair_s", "any", "count")):
        parts = {f"{side}_{part}": columns[f"{side}_{part}"]
                 for side in ("one", "other") for part in (top, bottom)}  # fmt: skip
        rows += [
            of_sums(f"{score}_one", both, parts, lambda a, b, c, d: quotient(a, b)),
            of_sums(f"{score}_other", both, parts, lambda a, b, c, d: quotient(c, d)),
            of_sums(
                f"{score}_difference",
                both,
                parts,
                lambda a, b, c, d: quotient(a, b) - quotient(c, d),
            ),
        ]
    rows.append(ratio("matched", both, shared.astype(float), np.ones(len(both))))
    from probe.diagnose.pool_rows import frame

    return frame(rows)


def scene_truth(scene: Any, level: str = "object") -> tuple[str, ...]:
    """Nodes of a testbed scene."""
    names = {
        "object": [thing.name for thing in scene.things],
        "shape": [thing.shape for thing in scene.things],
        "motion": [f"{thing.name} {thing.motion}" for thing in scene.things],
    }
    return tuple(dict.fromkeys(names[level]))


def scene_mentions(text: str, level: str = "object") -> list[Mention]:
    """Nodes that a testbed caption mentions: "a red circle moves left" is "red circle left"."""
    import re

    from probe.testbed.scene import COLORS, MOTIONS, SHAPES

    thing = rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\b"
    form = {
        "object": thing,
        "shape": rf"\b({'|'.join(SHAPES)})\b",
        "motion": rf"{thing} (?:moves )?({'|'.join(MOTIONS)})\b",
    }[level]
    return [
        Mention(" ".join(match.groups()), match.start(), match.end())
        for match in re.finditer(form, text)
    ]
