"""TransformerLens: a run as an ActivationCache, for its residual-stream analyses.

The names are TransformerLens's. `hook_embed` is the merged embedding, so that at video positions
too the decomposition sums to the residual stream; the final norm's weight is folded into the
token directions, so that attributions sum to the logit with the weights as they are.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probe.engine.batch import Batch
from probe.engine.result import Run
from probe.errors import ProbeError
from probe.interop.extra import need

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel

STREAM = "residual_stream"


def to_transformer_lens(run: Run | Batch, model: VideoModel | None = None) -> Any:
    """The run as `transformer_lens.ActivationCache`.

    `decompose_resid`, `accumulated_resid`, `stack_head_results`, `logit_attrs` and `logit_lens`
    work on it as on a cache of TransformerLens's own; its position axis is the positions that
    were captured, in order, and rows of tokens that a layer does not have are NaN. Values are
    float32 on the device of the model.

    In families whose attention output is normed before it is added (GLM-4V) the head results are
    those before the norm; the remainder of `stack_head_results` has the difference.

    Keys: hook_embed, blocks.{l}.hook_resid_pre, hook_resid_mid, hook_resid_post, hook_attn_out,
    hook_mlp_out, attn.hook_z, ln_final.hook_scale; hook_deepstack_{l} in families that add vision
    features after early layers; attn.hook_pattern where dense maps were captured.

    Args:
        run: from `model.run(x, probe.interop.captures())`.
        model: the model that ran; needed for a run that was opened from a file.

    Raises:
        ProbeError: TransformerLens is not installed, the run lacks the captures, or its parts do
            not sum to its residual stream (an ablation that edits the stream).
    """
    lens = need("transformer_lens", "TransformerLens")
    if isinstance(run, Batch):
        raise ProbeError("to_transformer_lens takes one run; of a batch, batch.runs[0]")
    model = model or getattr(run.decode, "__self__", None)
    if model is None:
        raise ProbeError("this run was opened from a file: to_transformer_lens(run, model)")
    if STREAM not in run.data:
        raise ProbeError(
            "this run lacks what TransformerLens reads; "
            "model.run(x, capture=probe.interop.captures()) captures it"
        )
    view = ModelView(model)
    cache = {name: value.to(view.W_U.device) for name, value in _hooks(run, model).items()}
    if not any(name.startswith("hook_deepstack") for name in cache):
        return lens.ActivationCache(cache, view)
    return _with_deepstack(lens.ActivationCache)(cache, view)


def _hooks(run: Run, model: VideoModel) -> dict[str, Tensor]:
    """Activations [batch, position, ...] by TransformerLens's names."""
    data = run.data
    found: dict[str, Tensor] = {}

    def tensor(part: str) -> Tensor:
        return torch.from_numpy(data[f"{STREAM}_{part}" if part else STREAM].values)[:, None]

    stream, attention, mlp, head = (tensor(part) for part in ("", "attention", "mlp", "head"))
    total = attention.sum(0) + mlp.sum(0) + stream[0]
    found["hook_embed"] = stream[0]
    for layer in range(model.n_layers):
        block = f"blocks.{layer}"
        found[f"{block}.hook_resid_pre"] = stream[layer]
        found[f"{block}.attn.hook_z"] = head[layer]
        found[f"{block}.hook_attn_out"] = attention[layer]
        found[f"{block}.hook_resid_mid"] = stream[layer] + attention[layer]
        found[f"{block}.hook_mlp_out"] = mlp[layer]
        found[f"{block}.hook_resid_post"] = stream[layer + 1]
    if f"{STREAM}_deepstack" in data:
        added = tensor("deepstack")
        total = total + added.sum(0)
        found |= {
            f"hook_deepstack_{layer}": one for layer, one in enumerate(added) if bool(one.any())
        }
    if "attention_rows" in data:
        maps = data["attention_rows"].sel(position=data[STREAM].position).fillna(0.0)
        for layer, one in zip(maps.layer.values, torch.from_numpy(maps.values), strict=True):
            found[f"blocks.{layer}.attn.hook_pattern"] = one[None]
    error = (total - stream[-1]).abs().nan_to_num().max() / stream[-1].abs().nan_to_num().max()
    if error > (1e-3 if model.hf.dtype == torch.float32 else 0.1):
        raise ProbeError(
            "the parts of this run do not sum to its residual stream: an ablation adds to the "
            "stream itself; export a run without it"
        )
    mean_square = stream[-1].double().square().mean(-1, keepdim=True)
    found["ln_final.hook_scale"] = (mean_square + _epsilon(model.decoder.norm)).sqrt().float()
    return found


class ModelView(nn.Module):
    """What TransformerLens asks a model for, as views of the weights of a `VideoModel`."""

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        config = model.hf.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        self.ln_final, self.unembed = model.decoder.norm, model.head
        self.cfg = SimpleNamespace(
            model_name=model.name,
            n_layers=model.n_layers,
            n_heads=model.n_heads,
            d_model=model.width,
            d_head=model.head_dim,
            d_vocab=self.W_U.shape[1],
            normalization_type="RMS",
            final_rms=True,
            attn_only=False,
            output_logits_soft_cap=cap,
            device=self.W_U.device,
        )
        if cap:
            capped = SimpleNamespace(apply_output_logits_transform=lambda x: cap * (x / cap).tanh())
            self.adapter = capped
        self.tokenizer = model.tokenizer
        shape = (model.n_heads, model.head_dim, model.width)
        path = model.family.output
        self.blocks = [BlockView(layer.get_submodule(path), shape) for layer in model.layers]
        self.eval()

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding."""
        return self.unembed.weight.detach().T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """The unembedding's bias, zeros where it has none."""
        bias = getattr(self.unembed, "bias", None)
        return self.W_U.new_zeros(self.W_U.shape[1]) if bias is None else bias.detach()

    def tokens_to_residual_directions(self, tokens: Any) -> Float[Tensor, "... d_model"]:
        """Directions whose product with the normed stream is a token's logit."""
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        ids = torch.as_tensor(tokens, device=self.W_U.device)
        # Any RMS norm's weight, however it is parametrised, is its value at a vector of ones.
        ones = torch.ones(1, self.W_U.shape[0], dtype=self.W_U.dtype, device=self.W_U.device)
        weight = self.ln_final(ones)[0].detach() * (1 + _epsilon(self.ln_final)) ** 0.5
        return self.W_U.T[ids].float() * weight.float()

    def to_single_token(self, text: str) -> int:
        """Id of a text that is one token.

        Raises:
            ProbeError: it is several tokens.
        """
        ids = self.to_tokens(text)[0].tolist()
        if len(ids) != 1:
            raise ProbeError(f"'{text}' is {len(ids)} tokens; name a word that is one, or an id")
        return ids[0]

    def to_tokens(self, text: str) -> Tensor:
        """Ids [1, token], without special tokens."""
        return torch.tensor([self.tokenizer(text, add_special_tokens=False)["input_ids"]])

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum of the biases of the attention outputs up to a layer (MLP outputs are whole)."""
        total = self.W_U.new_zeros(self.W_U.shape[0])
        for block in self.blocks[: layer + mlp_input]:
            total = total + (0 if block.attn.b_O is None else block.attn.b_O)
        return total

    def run_with_cache(self, *_: Any, **__: Any) -> Any:
        """Refused: a view holds weights and cannot run.

        Raises:
            ProbeError: always.
        """
        raise ProbeError("this is a view of the weights; run with model.run(x, interop.captures())")

    run_with_hooks = run_with_cache


class BlockView:
    """One decoder layer: its heads' output weights as `attn.W_O` [head, d_head, d_model]."""

    def __init__(self, output: Any, shape: tuple[int, int, int]) -> None:
        self.output, self.shape = output, shape

    @property
    def attn(self) -> BlockView:
        """The attention: this object, which has nothing else."""
        return self

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights by head."""
        return self.output.weight.detach().T.reshape(self.shape)

    @property
    def b_O(self) -> Tensor | None:
        """Output bias."""
        bias = getattr(self.output, "bias", None)
        return None if bias is None else bias.detach()


def _with_deepstack(base: Any) -> Any:
    """TransformerLens's cache, whose decomposition also has the added vision features."""

    class VideoCache(base):
        def decompose_resid(
            self,
            layer: int | None = None,
            mlp_input: bool = False,
            mode: str = "all",
            apply_ln: bool = False,
            pos_slice: Any = None,
            incl_embeds: bool = True,
            return_labels: bool = False,
        ) -> Any:
            how = {"mode": mode, "pos_slice": pos_slice, "incl_embeds": incl_embeds}
            parts, labels = super().decompose_resid(layer, mlp_input, return_labels=True, **how)
            if layer is None or layer == -1:
                layer = int(self.model.cfg.n_layers)
            if mode == "all":
                names = [f"hook_deepstack_{n}" for n in range(layer)]
                added = [self._sliced(pos_slice, name) for name in names if name in self.cache_dict]
                parts = torch.cat([parts, *added])
                labels += [n.removeprefix("hook_") for n in names if n in self.cache_dict]
            if apply_ln:
                more = {"pos_slice": pos_slice, "mlp_input": mlp_input}
                parts = self.apply_ln_to_stack(parts, layer, **more)
            return (parts, labels) if return_labels else parts

        def _sliced(self, pos_slice: Any, name: str) -> Tensor:
            from transformer_lens.utilities.slice import Slice

            whole = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
            return whole.apply(self.cache_dict[name], dim=-2)[None]

    return VideoCache


def _epsilon(norm: nn.Module) -> float:
    for name in ("variance_epsilon", "eps"):
        if hasattr(norm, name):
            return float(getattr(norm, name))
    raise ProbeError(f"the last norm ({type(norm).__name__}) is not an RMS norm")
