"""Studies from files and from Python, and what is said of specs that are wrong."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from probe import ProbeError
from probe.study import Study, Task

SPEC = """
name: pruning
models: [testbed/onevision, {model: testbed/qwen, dtype: float32}]
samples: {source: testbed, split: neutral, n: 3, seed: 1, types: [color]}
frames: 8
ablations:
  - fastv(k={k}, keep={keep}): {k: [2, 3], keep: [.5, .25]}
  - label: Knockout("video -> question")
controls: {blind: true, random: 2, uniform: true}
captures:
  mass: {capture: AttentionMass(), reduce: {mean: [head], sel: {query_group: last}}}
seed: 5
"""


def spec(**change: Any) -> dict[str, Any]:
    return {k: v for k, v in (yaml.safe_load(SPEC) | change).items() if v is not ...}


def test_yaml_json_and_python_give_the_same_study(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC)
    (tmp_path / "s.json").write_text(json.dumps(spec()))
    (tmp_path / "s.py").write_text(
        f"from probe.study import Study, Task\nfields = {spec()!r}\n"
        "study = Study(**fields, task=Task('choice', '{question}'))\n"
    )
    made = [Study.read(tmp_path / f"s.{ending}") for ending in ("yaml", "json", "py")]
    assert len({one.fingerprint for one in made}) == 1
    assert {one.folder for one in made} == {str(tmp_path)}
    one = made[0]
    assert one.to_json() == Study.from_mapping(one.to_json()).to_json()
    assert json.loads(json.dumps(one.to_json())) == one.to_json()
    copy = pickle.loads(pickle.dumps(one))
    assert copy.fingerprint == one.fingerprint
    assert [c.label for c in copy.cells()] == [c.label for c in one.cells()]
    assert one.models == ({"model": "testbed/onevision"},
                          {"model": "testbed/qwen", "dtype": "float32"})  # fmt: skip
    assert one.task == Task("choice", "{question}")  # testbed questions are asked as they stand
    assert len({s.id for s in one.load()}) == 3
    assert Study.from_mapping(spec(frames=9)).fingerprint != one.fingerprint


def test_models_have_names_of_their_own(tmp_path: Path) -> None:
    several = ["testbed/onevision", {"model": "testbed/onevision", "dtype": "bfloat16"}, "./own"]
    made = Study.from_mapping(spec(models=several), tmp_path)
    names = [made.model_name(entry) for entry in made.models]
    assert names == ["testbed/onevision", "testbed/onevision dtype=bfloat16", "./own"]
    with pytest.raises(ProbeError, match=str(tmp_path)):
        made.load_model(made.models[2])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"frame": 3}, 'frame: no such field; did you mean "frames"?'),
    ({"samples": {"source": "tesbed"}}, 'samples: source: "tesbed" is none; did you mean "testbed'),
    ({"samples": {"source": "testbed", "spilt": "hidden"}}, 'samples: spilt: no such field; did'),
    ({"samples": {"source": "testbed", "split": "x"}}, 'samples: split: "x" is none; there is neu'),
    ({"samples": {"source": "testbed", "types": ["colr"]}}, '"colr" is none of neutral; did you m'),
    ({"samples": {"source": "testbed", "n": 0}}, "samples: n: a whole number of at least 1, not 0"),
    ({"samples": {"source": "jsonl"}}, "samples: path: is missing"),
    ({"samples": {"source": "jsonl", "path": 3}}, "samples: path: write a list of texts, not 3"),
    ({"samples": None}, 'samples: source: "None" is none'),
    ({"samples": ...}, "samples: is missing"),
    ({"models": []}, "models: name at least one"),
    ({"models": ["m", "m"]}, "models: m is there twice with the same arguments"),
    ({"samples": {"source": "csv", "path": "a.csv", "split": "x"}}, "samples: split: no such fie"),
    ({"models": [{"name": "x"}]}, "models: {'name': 'x'}: write the name"),
    ({"name": ""}, "name: give the study a name"),
    ({"frames": "8"}, "frames: a whole number of at least 1, not '8'"),
    ({"frames": True}, "frames: a whole number of at least 1, not True"),
    ({"seed": -1}, "seed: a whole number of at least 0, not -1"),
    ({"task": {"kind": "choise"}}, 'task: kind: "choise" is none; did you mean "choice"?'),
    ({"task": {"promt": "x"}}, 'task: promt: no such field; did you mean "prompt"?'),
    ({"task": {"scores": ["margins"]}}, 'task: scores: "margins" is none; did you mean "margin"?'),
    ({"task": {"scores": ["letter"]}}, "task: scores: letter needs {options} in the prompt"),
    ({"task": {"kind": "open", "scores": ["accuracy"]}}, "accuracy needs answers to choose from"),
    ({"task": {"scores": ["yesno"]}}, "task: scores: yesno goes with kind: yesno"),
    ({"task": {"normalise": "yes"}}, "task: normalise: write true or false, not 'yes'"),
    ({"task": {"max_new_tokens": 0}}, "task: max_new_tokens: a whole number of at least 1"),
    ({"task": {"kind": "yesno", "answers": ["ja"]}}, "task: answers: write how yes and no are"),
    ({"controls": {"blnd": True}}, 'controls: blnd: no such field; did you mean "blind"?'),
    ({"controls": {"random": True}}, "controls: random: a whole number of at least 0, not True"),
    ({"controls": {"blind": 1}}, "controls: blind: write true or false, not 1"),
    ({"captures": {"m": "AttentionMas()"}}, "captures: m: 'AttentionMas' is not known"),
    ({"captures": {"m": {"capture": "AttentionMass()", "reduce": {"men": ["head"]}}}},
     'captures: m: reduce: men: no such field; did you mean "mean"?'),
    ({"captures": {"m": "AttentionMass(); TokenNorms()"}}, "write one capture under each label"),
    ({"captures": {"m": {"reduce": {}}}}, "captures: m: write capture: TEXT"),
    ({"captures": {"m": {"capture": "TokenNorms()", "reduce": {"sel": ["x"]}}}},
     "captures: m: reduce: sel: write names with their values"),
    ({"diagnoses": ["NoSuchDiagnosis()"]}, "diagnoses: NoSuchDiagnosis(): 'NoSuchDiagnosis' is n"),
    ({"ablations": ["fastv(k=2, kep=0.5)"]}, "ablations: fastv(k=2, kep=0.5): fastv:"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[w[1][:30] for w in WRONG])
def test_a_wrong_field_is_named_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(spec(**change)))
    with pytest.raises(ProbeError) as error:
        Study.read(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ") and message in said and "\n" not in said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.yaml", "name: x\nname: y\n", 'line 2: not YAML: "name" is there twice'),
        ("s.yaml", "name: [x\n", "line 2: not YAML: "),
        ("s.yaml", "- a\n", "study: write names with their values"),
        ("s.yaml", "", "name: is missing"),
        ("s.json", '{"name": ', "line 1: not JSON: "),
        ("s.py", "study = 3", "it does not define `study`, a probe.study.Study"),
        ("s.py", "import nothing_there", "ModuleNotFoundError: No module named"),
        ("s.py", "x = (", "SyntaxError: "),
    ],
)
def test_broken_spec_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ProbeError) as error:
        Study.read(path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"gone.yaml: no such file"):
        Study.read(tmp_path / "gone.yaml")
    path = tmp_path / "s.yaml"
    path.write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(ProbeError, match=r"s.yaml: byte 8 is not UTF-8; save it as UTF-8"):
        Study.read(path)


def test_own_classes_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "my_own_cuts.py").write_text(
        "from dataclasses import dataclass\nfrom probe.ablate import Knockout\n\n\n"
        "@dataclass(frozen=True)\nclass Cut(Knockout):\n    edges: str = 'video -> last'\n"
    )
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(spec(ablations=["my_own_cuts:Cut()"])))
    before = list(sys.path)
    made = Study.read(path)
    assert sys.path == before
    assert made.cells()[2].spec["ablate"][0]["kind"] == "my_own_cuts:Cut"
    del sys.modules["my_own_cuts"]
    again = Study.from_mapping(made.to_json(), made.folder)  # as in another process
    assert [c.spec for c in again.cells()] == [c.spec for c in made.cells()]


def test_importing_the_package_is_light() -> None:
    code = "import sys, probe.study as s; s.__all__; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
