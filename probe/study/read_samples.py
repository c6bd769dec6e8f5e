"""Where the samples of a study come from, as written in its `samples:`.

    samples: {source: testbed, split: neutral, n: 200, seed: 1, types: [color, count]}
    samples: {source: jsonl, path: questions.jsonl, videos: clips, fields: {answer: label}}
    samples: {source: videomme, path: test.parquet, videos: data, n: 300}

`path` is a file, a folder, a pattern or a list of them; `videos` the folder that paths of clips
start from (that of the file by default). `n` samples are drawn without replacement from `seed`, and
stay in the order of the file. `fields` says which column is what; see `probe.study.field_maps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.study.field_maps import FIELDS, MAPS
from probe.study.spec_check import hint, known, mapping, strings, whole

if TYPE_CHECKING:
    from probe.study.sample import Sample
    from probe.study.task import Task

PLAIN = ("jsonl", "json", "csv", "parquet", "datasets")
SOURCES = ("testbed", *PLAIN, *MAPS)
KEYS = {
    "testbed": ("source", "n", "seed", "split", "types", "twins"),
    "datasets": ("source", "path", "videos", "n", "seed", "fields", "split", "where"),
}
COMMON = ("source", "path", "videos", "n", "seed", "fields", "where")


def check(given: Any) -> Mapping[str, Any]:
    """The `samples:` of a study, checked as far as that goes without its files.

    Raises:
        ProbeError: an unknown source or field, or a wrong value.
    """
    data = dict(mapping(given, "samples"))
    source = data.get("source")
    if source not in SOURCES:
        raise ProbeError(f'samples: source: "{source}" is none; {hint(str(source), SOURCES)}')
    known(data, KEYS.get(source, COMMON), "samples")
    if source != "testbed" and "path" not in data:
        raise ProbeError("samples: path: is missing")
    if "n" in data and data["n"] is not None:
        whole(data["n"], "samples: n", 1)
    whole(data.get("seed", 0), "samples: seed", 0)
    if source == "testbed":
        from probe.study.read_testbed import check as testbed

        testbed(data)
        return data
    data["path"] = list(strings(data["path"], "samples: path"))
    fields = dict(mapping(data.get("fields"), "samples: fields"))
    known(fields, FIELDS, "samples: fields")
    mapping(data.get("where"), "samples: where")
    return data


def load(given: Mapping[str, Any], task: Task, folder: str, seed: int) -> list[Sample]:
    """The samples.

    Args:
        given: from `check`.
        task: what is asked of them.
        folder: what relative paths start from.
        seed: used where `samples:` has none.

    Raises:
        ProbeError: one line with the file and the row.
    """
    number = given.get("seed", seed)
    if given["source"] == "testbed":
        from probe.study.read_testbed import read

        return read(given, task, number)
    from probe.study.read_rows import read as read_rows

    found = read_rows(given, task, folder)
    n = given.get("n")
    if n is None or n >= len(found):
        return found
    chosen = np.random.default_rng(number).choice(len(found), n, replace=False)
    return [found[i] for i in sorted(chosen.tolist())]
