"""The matrix of families as a table: what was compared, how often, and the largest error."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

COLUMNS = {
    "test_captures_are_the_dense_map_and_change_nothing": "captures = dense map",
    "test_contributions_sum_to_the_logit": "contributions sum",
    "test_generation_is_transformers_own": "generation",
    "test_ablations_are_masks": "ablated = masked",
    "test_no_rope_is_tables_of_angle_zero": "no rotation",
    "test_decoding_is_recomputing": "decode = recompute",
    "test_places_together": "all places at once",
    "test_every_ablation": "every ablation",
    "test_each_place": "each place",
}
HEAD = """# Every family against independent references

`make test-all` writes this table. Tiny models with random weights in the real classes, with their
real processors, float32. A cell has the number of tests that passed and the largest error,
relative to the largest value (or to 1): statistics of attention and logits against the dense maps
and logits of transformers' eager attention; the sum of contributions against the logit; generation
(token ids equal to plain generation) against the logits of a full pass; ablations against masks
and rotary tables set by plain hooks; decoding with a cut cache against a full pass; one list with
an ablation of every place, decoded against recomputed; every ablation, decoded and by its full
path; and one ablation of each place and kind, decoded against recomputed, with the lengths that
were predicted, and in a sweep as in a run.

"""


def matrix(stats: dict[str, list]) -> str:
    """Markdown, from the reports of a test session."""
    count: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    errors: dict[tuple[str, str], float] = defaultdict(float)
    for outcome in ("passed", "failed", "error"):
        for report in stats.get(outcome, []):
            cell = _cell(report)
            if cell is None or (outcome == "passed" and report.when != "call"):
                continue
            count[cell][0] += outcome == "passed"
            count[cell][1] += 1
            for name, value in report.user_properties:
                if name == "error":
                    errors[cell] = max(errors[cell], value)
    families = sorted({family for family, _ in count})
    shown = [test for test in COLUMNS if any(cell[1] == test for cell in count)]
    lines = [f"| family | {' | '.join(COLUMNS[test] for test in shown)} |"]
    lines.append("| --- " * (len(shown) + 1) + "|")
    for family in families:
        cells = [_text((family, test), count, errors) for test in shown]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def _cell(report: Any) -> tuple[str, str] | None:
    found = re.search(r"families/test_matrix\.py::(\w+)\[(.+)\]", report.nodeid)
    if found is None or found[1] not in COLUMNS:
        return None
    family = re.match(r"[a-z0-9_]+", found[2])
    return (family[0], found[1]) if family else None


def _text(cell: tuple[str, str], count: dict, errors: dict) -> str:
    passed, every = count.get(cell, (0, 0))
    if not every:
        return ""
    share = str(passed) if passed == every else f"**{passed} of {every}**"
    return f"{share}, {errors.get(cell, 0.0):.0e}"
