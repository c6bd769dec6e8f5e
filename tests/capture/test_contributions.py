"""Contributions sum to the logit, and their parts are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError, ablate
from probe.capture import Contributions
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.tiny import example

Pair = tuple[VideoModel, VideoModel]
SUMS = 1e-4


class Reference:
    """What transformers itself gives: maps, cached values, outputs of every part."""

    def __init__(self, eager: VideoModel, x: Example) -> None:
        self.parts: dict = {}
        handles = []
        for number, layer in enumerate(eager.layers):
            for name, module in (("attention", layer.self_attn), ("mlp", layer.mlp)):
                handles.append(module.register_forward_hook(self._keep((name, number))))
        handles.append(eager.decoder.norm.register_forward_pre_hook(self._keep_input))
        with torch.no_grad():
            self.out = eager.hf(
                **x.inputs, output_attentions=True, output_hidden_states=True, use_cache=True
            )
        for handle in handles:
            handle.remove()
        self.model, self.logits = eager, self.out.logits[0].double()

    def _keep(self, key):
        def hook(module, args, output):
            self.parts[key] = (output[0] if isinstance(output, tuple) else output)[0].double()

        return hook

    def _keep_input(self, module, args):
        self.final = args[0][0].double()

    def direction(self, row: int, target: int, versus: int | None) -> torch.Tensor:
        """With the norm's scale frozen, the gradient of the logit by the final residual."""
        norm = self.model.decoder.norm
        unembed = self.model.head.weight[target].double()
        if versus is not None:
            unembed = unembed - self.model.head.weight[versus].double()
        scale = (self.final[row].square().mean() + norm.variance_epsilon).rsqrt()
        return (unembed * norm.weight.double() * scale).detach()

    def source(self, layer: int, head: int, row: int, positions: np.ndarray, direction) -> float:
        """sum_j A[row, j] v_j W_O . direction over a group, one head."""
        model = self.model
        values = self.out.past_key_values.layers[layer].values[0]
        v = values[head // (model.n_heads // model.n_kv_heads), positions].double()
        a = self.out.attentions[layer][0, head, row, positions].double()
        size = model.head_dim
        o = model.layers[layer].self_attn.o_proj.weight[:, head * size : (head + 1) * size].double()
        return float((a @ v @ o.T @ direction).detach())


@pytest.mark.parametrize("sources", ["frames", "roles", ["video", "text", "newline"]])
@pytest.mark.parametrize("versus", [None, "b"])
@pytest.mark.parametrize("step", [0, 2])
def test_against_brute_force(pair: Pair, sources, versus, step: int) -> None:
    model, eager = pair
    x = example(model, answer="red")
    run = model.run(x, [Contributions("r", versus=versus, step=step, sources=sources)])
    data, reference, row = run.data, Reference(eager, x), int(x.layout.readout[step])
    ids = [model.token_id(x, word, "x") for word in ("r", versus) if word]
    direction = reference.direction(row, ids[0], ids[1] if versus else None)
    for layer in range(model.n_layers):
        for part in ("attention", "mlp"):
            expected = float(reference.parts[part, layer][row] @ direction)
            found = float(data.contributions.sel(layer=layer, part=part))
            assert found == pytest.approx(expected, abs=SUMS)
    embedding = reference.out.hidden_states[0][0, row].double() @ direction
    assert float(data.contributions.sel(layer=0, part="embedding")) == pytest.approx(
        float(embedding), abs=SUMS
    )
    assert (data.contributions.sel(part="embedding")[1:] == 0).all()
    groups = x.layout.partition(sources)
    assert data.source_group.values.tolist() == list(groups)
    for label, positions in groups.items():
        seen = positions[positions <= row]
        for layer in range(model.n_layers):
            for head in range(model.n_heads):
                expected = reference.source(layer, head, row, seen, direction)
                found = float(
                    data.contributions_attention.sel(layer=layer, head=head, source_group=label)
                )
                assert found == pytest.approx(expected, abs=SUMS)


@pytest.mark.parametrize("versus", [None, "b"])
def test_everything_sums_to_the_logit(pair: Pair, versus) -> None:
    model, _ = pair
    x = example(model, answer="red")
    for step in range(3):
        run = model.run(x, [Contributions("r", versus=versus, step=step)])
        logits = run.logits[step].astype(np.float64)
        logit = logits[model.token_id(x, "r", "")]
        if versus:
            logit -= logits[model.token_id(x, versus, "")]
        total = float(run.data.contributions.sum())
        assert total == pytest.approx(logit, abs=SUMS)
        assert float(run.data.contributions_logit) == pytest.approx(logit, abs=SUMS)
        stated = float(run.data.contributions_error)
        assert stated == pytest.approx(total - float(run.data.contributions_logit), abs=1e-9)
        by_head = run.data.contributions_attention.sum(["head", "source_group"])
        attention = run.data.contributions.sel(part="attention")
        np.testing.assert_allclose(by_head, attention, atol=SUMS)


def test_it_sums_under_ablations(pair: Pair) -> None:
    model, _ = pair
    x = example(model)
    for change in (
        ablate.fastv(1, 0.5),
        ablate.edvt(),
        ablate.Knockout("frame 1 -> last", layers=1),
    ):
        run = model.run(x, [Contributions("r")], [change])
        logit = run.logits[0, model.token_id(x, "r", "")]
        assert float(run.data.contributions.sum()) == pytest.approx(float(logit), abs=SUMS)
        attention = run.data.contributions.sel(part="attention")
        by_head = run.data.contributions_attention.sum(["head", "source_group"])
        np.testing.assert_allclose(by_head, attention, atol=SUMS)
    cut = run.data.contributions_attention.sel(layer=1, source_group="frame 1")
    assert (cut == 0).all()


@pytest.mark.parametrize(
    "settings", [{}, {"repetition_penalty": 50.0}, {"do_sample": True, "top_k": 0}]
)
def test_while_generating_the_target_is_the_token_that_each_step_emits(
    pair: Pair, settings
) -> None:
    model, _ = pair
    x = example(model)
    torch.manual_seed(3)
    run = model.generate(
        x, [Contributions(), Contributions("r", versus="b")], max_new_tokens=5, **settings
    )
    emitted = run.logits[np.arange(5), run.meta["generated"]]
    np.testing.assert_allclose(run.data.contributions.sum(["layer", "part"]), emitted, atol=SUMS)
    np.testing.assert_allclose(run.data.contributions_logit, emitted, atol=SUMS)
    pairs = run.logits[:, model.token_id(x, "r", "")] - run.logits[:, model.token_id(x, "b", "")]
    np.testing.assert_allclose(run.data.contributions_2.sum(["layer", "part"]), pairs, atol=SUMS)
    by_head = run.data.contributions_attention_2.sum(["head", "source_group"])
    np.testing.assert_allclose(by_head, run.data.contributions_2.sel(part="attention"), atol=SUMS)
    if settings:
        assert run.meta["generated"] != run.logits.argmax(-1).tolist()


def test_targets(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    by_word = tiny.run(x, [Contributions("r")]).data.contributions
    by_id = tiny.run(x, [Contributions(tiny.token_id(x, "r", ""))]).data.contributions
    np.testing.assert_array_equal(by_word, by_id)
    with pytest.raises(ProbeError, match=r"'red' is 3 tokens .'r', 'e', 'd'. after this prompt"):
        tiny.run(x, [Contributions("red")])
    with pytest.raises(ProbeError, match="contributions versus: 'é' is 2 tokens"):
        tiny.run(x, [Contributions("r", versus="é")])
    with pytest.raises(ProbeError, match="contributions target: '' is 0 tokens"):
        tiny.run(x, [Contributions("")])
    with pytest.raises(ProbeError, match="token id 99999"):
        tiny.run(x, [Contributions(99999)])
    with pytest.raises(ProbeError, match="name a target"):
        tiny.run(x, [Contributions()])
    with pytest.raises(ProbeError, match="step 3; this example has 3"):
        tiny.run(x, [Contributions("r", step=3)])
