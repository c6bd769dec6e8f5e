"""Captures and ablations as data: JSON, text, and text that must not be believed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from probe import ProbeError, ablate, capture
from probe.capture import Capture
from probe.spec import from_json, parse, resolve_layers, snake

ABLATIONS = [
    ablate.fastv(k=3, keep=0.25),
    ablate.Reduce(at=ablate.layer(0), score=ablate.Random(7), keep_tokens=3, of="frames 1-2"),
    ablate.Reduce(score=ablate.Uniform(), keep=0.0, of=[1, 2, 3]),
    ablate.edvt(),
    ablate.NoRope(["video -> question", ("frame 1", "last")], layers=range(1, 3)),
    ablate.Knockout(("token 3", [5, 6]), layers="1-2"),
    ablate.Knockout((np.array([1, 2]), "last"), layers=2),
    ablate.Knockout('say "it\'s" é \\ -> last', layers=[0]),
]
CAPTURES = [
    capture.AttentionMass(queries="tokens", keys=["video", "text - last"], layers=[0, 2]),
    capture.AttentionReceived(queries=["all"]),
    capture.Contributions("it's", versus=3, step=1),
    capture.LogitLens(words=("a", '"'), full=True),
    capture.Activations(site="head", positions="box 1,2,3.5,4 frame 1 + last"),
]
MALICIOUS = [
    "__import__('os').system('true')",
    "fastv(k=__import__('os').getpid())",
    "fastv(k=[i for i in (1, 2)])",
    "fastv(**{'k': 2})",
    "fastv(*[2])",
    "fastv(k=(lambda: 2)())",
    "fastv.__globals__",
    "fastv(k=2) if 1 else edvt()",
    "x = fastv(k=2)",
    "import os",
    "fastv(k=f'{2}')",
    "range('a')",
    "fastv(k=9**9)",
    "fastv(k=\0)",
    "(" * 5000 + "1" + ")" * 5000,
]


@dataclass(frozen=True)
class Own(Capture):
    """A capture that is not probe's."""

    words: tuple[str, ...] = ()


@pytest.mark.parametrize("made", ABLATIONS + CAPTURES, ids=str)
def test_json_and_text_round_trip(made) -> None:
    names = {**ablate.names(), **capture.captures()}
    assert from_json(json.loads(json.dumps(made.to_json())), names) == made
    assert parse(str(made), names) == [made]
    assert hash(parse(str(made), names)[0]) == hash(made)


def test_json_has_only_what_differs_from_the_default() -> None:
    assert ablate.Knockout().to_json() == {"kind": "knockout"}
    assert ablate.fastv(2, 0.5).to_json() == {"kind": "reduce", "keep": 0.5}


def test_own_classes_round_trip_by_their_module() -> None:
    made = Own(words=["a", "b"])
    assert made.to_json()["kind"] == f"{__name__}:Own"
    assert from_json(made.to_json(), {}) == made


@pytest.mark.parametrize(
    "kind", ["os:system", "os:nothing", "no.such:Thing", ":x", "subprocess:Popen"]
)
def test_json_makes_only_captures_and_ablations(kind: str) -> None:
    with pytest.raises(
        ProbeError, match=r"not a capture, an ablation or a diagnosis|cannot be imported"
    ):
        from_json({"kind": kind, "command": "true", "args": "true"}, {})


def test_parse_several_and_names_in_both_styles() -> None:
    text = "fastv(2, keep=0.5); Knockout('video -> last', layers=range(1, 3)), no_rope()"
    fastv, knockout, rope = ablate.parse(text)
    assert fastv == ablate.fastv(2, 0.5)
    assert knockout == ablate.Knockout("video -> last", layers=(1, 2))
    assert rope == ablate.NoRope()
    assert ablate.parse("edvt") == [ablate.edvt()] == ablate.parse("[edvt()]")
    nested = ablate.parse("reduce(at=layer(1), score=norm, keep=0.5)")
    assert nested == [ablate.Reduce(at=ablate.layer(1), score=ablate.Norm(), keep=0.5)]


@pytest.mark.parametrize("text", MALICIOUS, ids=range(len(MALICIOUS)))
def test_parse_refuses_everything_but_calls_of_known_names(text: str) -> None:
    with pytest.raises(ProbeError) as error:
        ablate.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fastv(", "write it as a call"),
        ("", "cannot read"),
        ("3", "not a capture, an ablation or a diagnosis"),
        ("layer(2); 'x'", "not a capture, an ablation or a diagnosis"),
        ("fastvv(2)", "'fastvv' is not known; there are"),
        ("fastv(q=2)", "unexpected keyword argument 'q'"),
        ("fastv(1, 2, 3)", "fastv: "),
    ],
)
def test_parse_errors_say_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ProbeError, match=words.replace("(", r"\(")):
        ablate.parse(text)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", (0, 1, 2, 3)),
        ("2", (2,)),
        (" 1 - 3 ", (1, 2, 3)),
        (3, (3,)),
        ([3, 1, 3], (1, 3)),
        (range(2), (0, 1)),
    ],
)
def test_resolve_layers(layers, expected: tuple[int, ...]) -> None:
    assert resolve_layers(layers, 4, "x") == expected


@pytest.mark.parametrize("layers", [4, -1, "4", "2-9", "3-1", "some", "", [], [0, 9]])
def test_layers_that_do_not_exist(layers) -> None:
    with pytest.raises(ProbeError, match=r"^x: .*(model has layers 0 to 3|is not|are not)"):
        resolve_layers(layers, 4, "x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AttentionMass", "attention_mass"),
        ("NoRope", "no_rope"),
        ("fastv", "fastv"),
        ("A2B", "a2_b"),
    ],
)
def test_snake(name: str, expected: str) -> None:
    assert snake(name) == expected
