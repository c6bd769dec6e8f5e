"""Signals against transformers' own attention maps and hidden states, and plain arithmetic."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from probe.capture import Contributions
from probe.diagnose.case import Case
from probe.diagnose.signals import (
    CGC,
    NLL,
    PAS,
    SVAR,
    AttendedSupport,
    Entropy,
    GLSim,
    InternalConfidence,
    TokenMargin,
    VideoContribution,
    VisualMassNoSinks,
    given,
)
from probe.diagnose.signals.answer import Answer
from tests import tiny as tiny_models

TEXT = "left, Xq"
LAYERS = "1-2"


@cache
def answered(model) -> Answer:
    """A text of several words on a clip, one token a byte."""
    return given(Case(model, tiny_models.example(model)), TEXT)


@cache
def dense(eager) -> tuple[np.ndarray, np.ndarray]:
    """Attention maps [layer, head, query, key] and hidden states [state, position, channel]."""
    x = answered(eager).x
    with torch.no_grad():
        out = eager.hf(**x.inputs, output_attentions=True, output_hidden_states=True)
    maps = torch.stack([layer[0] for layer in out.attentions]).numpy()
    return maps, torch.stack([state[0] for state in out.hidden_states]).numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[row of a, row of b]"""
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return a @ b.T


def close(found, expected, atol=2e-5) -> None:
    np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("query", ["predictor", "self"])
def test_masses_are_those_of_dense_maps(pair, query) -> None:
    model, eager = pair
    answer = answered(model)
    maps, _ = dense(eager)
    prompt = len(answer.case.x.layout)
    video = answer.case.x.layout.role == "video"
    found = PAS(query).scores(answer)
    for k in range(len(answer.scored)):
        at = prompt - 1 + k + (query == "self")
        row = maps[0, :, at].mean(0)
        earlier = row[prompt : prompt + k].sum()
        close(found["pas"][k], earlier)
        close(found["mass_bos"][k], row[0])
        close(found["mass_visual"][k], row[:prompt][video].sum())
        close(found["pas_share"][k], earlier / (earlier + row[:prompt][video].sum()))
        if query == "self":
            close(found["mass_self"][k], row[at])
    masses = [name for name in found if name.startswith("mass_")]
    close(found["pas"] + sum(found[name] for name in masses), 1)
    assert found["pas"][0] == 0 and (found["pas"][1:] > 0).all()
    assert ("mass_self" in found) == (query == "self")


def test_visual_mass_by_layer_and_frame(pair) -> None:
    model, eager = pair
    answer = answered(model)
    maps, _ = dense(eager)
    layout = answer.case.x.layout
    at = layout.last + np.arange(len(answer.scored))
    rows = maps[1:3, :, at].mean(1)  # [layer, token, key]
    by_frame = np.stack(
        [rows[:, :, np.flatnonzero((layout.group == g) & (layout.role == "video"))].sum((0, 2))
         for g in range(5)], 1,
    )  # fmt: skip
    found = SVAR(layers=LAYERS).scores(answer)
    close(SVAR(layers=LAYERS).frames(answer), by_frame)
    close(found["svar"], by_frame.sum(1))
    close(found["svar_mean"], by_frame.sum(1) / 2)
    close(found["svar_log_ratio"], np.log(by_frame.sum(1) / 2 / (len(answer.video) / (at + 1))))
    close(found["svar_frame"], by_frame.argmax(1))
    p = by_frame / by_frame.sum(1, keepdims=True)
    close(found["svar_frame_entropy"], -(p * np.log(p)).sum(1) / np.log(5))


@pytest.mark.parametrize("lens", ["raw", "normed"])
@pytest.mark.parametrize("top", [0, 7])
def test_internal_confidence_is_the_greatest_lens_probability(pair, lens, top) -> None:
    model, eager = pair
    answer = answered(model)
    _, states = dense(eager)
    norm, head = eager.decoder.norm, eager.head
    with torch.no_grad():
        x = torch.as_tensor(states[:, answer.video])
        if lens == "normed":
            x = torch.cat([norm(x[:-1]), x[-1:]])
        logits = head(x).numpy().astype(float)
    if top:
        least = np.sort(logits, -1)[..., -top][..., None]
        logits = np.where(logits >= least, logits, -np.inf)
    best = softmax(logits, -1).max((0, 1))
    signal = InternalConfidence(lens, top)
    found = signal.scores(answer)
    chance = [max(best[t] for ids in word for t in ids) for word in answer.random_words]
    assert len(chance) == 20 and [word.text for word in answer.words] == ["left", "Xq"]
    for word in answer.words:
        assert [model.tokenizer.decode([t]) for t in word.ids] == list(word.text)
        space = model.tokenizer(" ")["input_ids"]
        ic = max(best[t] for t in [*word.ids, *space])  # "left" and " left"
        token = word.tokens[0]
        close(found["ic"][token], ic)
        close(found["ic_first"][token], max(best[word.ids[0]], best[space[0]]))
        close(found["ic_mean"][token], np.mean([best[t] for t in word.ids]))
        close(found["ic_z"][token], (ic - np.mean(chance)) / np.std(chance), 1e-3)
        assert (found["ic"][list(word.tokens)] == found["ic"][token]).all()
    frames = signal.frames(answer, answer.words[0])
    assert frames.shape == (5,) and frames.max() == pytest.approx(found["ic"][0])
    assert np.isnan(found["ic"][4])  # the comma is in no word


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_glsim_and_cgc_by_hand(pair, variant) -> None:
    model, eager = pair
    answer = answered(model)
    _, states = dense(eager)
    last, layout = model.n_layers, answer.case.x.layout
    at = layout.last + answer.scored
    signal = GLSim(variant=variant, share=0.2)
    found, cgc = signal.scores(answer), CGC(share=0.3).scores(answer)["cgc"]
    with torch.no_grad():
        says = eager.head(torch.as_tensor(states[last, answer.video])).softmax(-1).numpy()
    count = round(0.2 * len(answer.video))
    for word in answer.words:
        firsts = [word.ids[0], model.tokenizer(" ")["input_ids"][0]]
        patches = np.argsort(-says[:, firsts].max(1), kind="stable")[:count]
        near = cosine(states[last][answer.video], states[last - 1][at])
        prompt, query = (last, last - 1) if variant == "paper" else (last - 1, last)
        far = cosine(states[prompt][[layout.last]], states[query][at])[0]
        for token in word.tokens:
            local = near[patches, token].mean()
            close(found["glsim_local"][token], local)
            close(found["glsim_global"][token], far[token])
            close(found["glsim"][token], 0.6 * far[token] + 0.4 * local)
            assert found["glsim_frame"][token] >= near[:, token].min()
    only = GLSim(variant=variant, w=1.0).scores(answer)
    close(only["glsim"][0], far[0])
    count = round(0.3 * len(answer.video))
    by_state = [
        np.sort(cosine(states[s][at], states[s][answer.video]), 1)[:, -count:].mean(1)
        for s in range(1, last + 1)
    ]
    close(cgc, np.mean(by_state, 0))


def test_attended_support_by_hand(pair) -> None:
    model, eager = pair
    answer = answered(model)
    maps, states = dense(eager)
    with torch.no_grad():
        said = eager.head(torch.as_tensor(states[:, answer.video])).argmax(-1).numpy()
    at = answer.case.x.layout.last + answer.scored
    found = AttendedSupport(k=3, layers=LAYERS).scores(answer)["llcc"]
    for word in answer.words:
        hits = []
        for layer in (1, 2):
            cells = np.argsort(-maps[layer].mean(0)[at[word.tokens[0]], answer.video])[:3]
            texts = [model.tokenizer.decode([t]).strip().lower() for t in said[layer][cells]]
            hits += [text == word.text.lower() for text in texts]
        assert found[word.tokens[0]] == pytest.approx(np.mean(hits))


def test_sinks_are_outliers_of_hidden_states(pair) -> None:
    model, eager = pair
    answer = answered(model)
    maps, states = dense(eager)
    tau, layout = 2.0, answer.case.x.layout
    size = np.abs(states) / np.sqrt((states**2).mean(-1, keepdims=True))
    inner = range(2, max(3, model.n_layers - 1))  # 2 to L - 2; the second layer of a short model
    dims = [d for d in range(states.shape[2])
            if np.mean([size[s, 0, d] > tau for s in inner]) > 0.5]  # fmt: skip
    assert dims
    found = VisualMassNoSinks(layers="all", tau=tau).scores(answer)
    total, share = 0, 0
    for layer in range(model.n_layers):
        row = maps[layer].mean(0)[layout.last + answer.scored]
        sink = (size[layer][:, dims] > tau).any(1) & (layer >= 2)
        visual = np.isin(np.arange(len(sink)), answer.video)
        share = share + row[:, visual & sink].sum(1) / row[:, visual].sum(1)
        sink[0] = True
        total = total + row[:, visual & ~sink].sum(1) / (1 - row[:, sink].sum(1))
    close(found["svar_nosink"], total)
    close(found["sink_share"], share / model.n_layers)
    without = VisualMassNoSinks(layers="all", tau=1e6, dims=[0]).scores(answer)
    rows = maps[:, :, layout.last + answer.scored].mean(1)
    close(without["svar_nosink"], (rows[:, :, answer.video].sum(2) / (1 - rows[:, :, 0])).sum(0))
    assert (without["sink_share"] == 0).all()
    nothing = VisualMassNoSinks(tau=1e6).scores(answer)
    assert all(np.isnan(values).all() for values in nothing.values())


def test_likelihoods_are_those_of_an_independent_forward(pair) -> None:
    model, eager = pair
    answer = answered(model)
    with torch.no_grad():
        logits = eager.hf(**answer.x.inputs).logits[0].double().numpy()
    log_p = log_softmax(logits, -1)[answer.case.x.layout.last : -1]
    rows = np.arange(len(TEXT))
    close(NLL().scores(answer)["nll"], -log_p[rows, answer.targets])
    close(Entropy().scores(answer)["entropy"], -(np.exp(log_p) * log_p).sum(-1))
    others = log_p.copy()
    others[rows, answer.targets] = -np.inf
    close(TokenMargin().scores(answer)["margin"], log_p[rows, answer.targets] - others.max(-1))
    assert NLL().words(answer)["nll"][0] == pytest.approx(-log_p[rows, answer.targets][:4].sum())
    assert NLL().summary(answer)["nll"] == pytest.approx(NLL().words(answer)["nll"].mean())


def test_contribution_of_the_clip_is_the_part_that_attention_brings_from_it(pair) -> None:
    answer = answered(pair[0])
    found = VideoContribution(most=2).scores(answer)
    assert np.isnan(found["video_logit"][2:]).all()
    run = pair[0].run(answer.x, [Contributions(int(answer.targets[1]), step=1, sources="roles")])
    parts = run.data.contributions_attention
    close(found["video_logit"][1], float(parts.sel(source_group="video").sum()))
    shares = np.abs(parts.sel(source_group="video")).sum() / np.abs(
        np.stack([parts.sel(source_group="video"),
                  parts.sum("source_group") - parts.sel(source_group="video")])
    ).sum()  # fmt: skip
    close(found["video_share"][1], float(shares))
