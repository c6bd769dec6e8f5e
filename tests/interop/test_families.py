"""Every family in TransformerLens: the residual, the logits and the heads at all positions."""

from __future__ import annotations

import pytest
import torch

from probe import interop
from tests.families import models

pytest.importorskip("transformer_lens")


@pytest.mark.parametrize("name", models.NAMES)
def test_sums_and_lens(name: str) -> None:
    model = models.build(name)
    x = models.example(model, answer="red")
    cache = interop.to_transformer_lens(model.run(x, interop.captures()))
    with torch.no_grad():
        logits = model.hf(**x.inputs, use_cache=False).logits[0]
    parts, labels = cache.decompose_resid(return_labels=True)
    added = [label for label in labels if "deepstack" in label]
    assert added == (["deepstack_0", "deepstack_1"] if name.startswith("qwen3_vl") else [])
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(parts.sum(0), cache["resid_post", -1], **close)
    token = int(logits[-1].argmax())
    found = cache.logit_attrs(parts, token).sum(0)[0]
    torch.testing.assert_close(found, logits[:, token], **close)
    lens = cache.logit_lens(positions=None)
    torch.testing.assert_close(lens.values[-1, 0], logits, **close)
    heads = cache.stack_head_results(incl_remainder=True)
    torch.testing.assert_close(heads.sum(0), cache["resid_post", -1], **close)
    if name == "glm4v":  # a norm follows the attention: heads are before it
        return
    for layer, own in enumerate(heads[:-1].unflatten(0, (model.n_layers, -1)).sum(1)):
        view = cache.model
        bias = view.accumulated_bias(layer + 1) - view.accumulated_bias(layer)
        torch.testing.assert_close(own + bias, cache["attn_out", layer], **close)
