"""InstructBLIP-Video: a Q-Former gives each frame a number of queries, put before the prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probe.errors import ProbeError
from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid

TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}\n{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """Frame by frame, `num_query_tokens` queries each; a query sees the whole frame."""
    group = np.repeat(np.arange(visual.frames), config.num_query_tokens)
    nowhere = np.full(len(group), -1)
    return VisualGrid(
        role=np.full(len(group), "video", dtype="<U16"),
        group=group,
        row=nowhere,
        col=nowhere,
        frames=tuple((frame,) for frame in range(visual.frames)),
        row_edges=np.zeros((0, 2)),
        col_edges=np.zeros((0, 2)),
    )


def process(processor: Any, prompt: str, videos: list, metadata: list, images: list) -> dict:
    """The processor takes a clip under the name of images, and writes its tokens first."""
    if len(videos) != 1 or images:
        raise ProbeError("InstructBLIP-Video takes exactly one clip and no images")
    inputs = dict(
        processor(images=videos, text=[prompt], return_tensors="pt", return_offsets_mapping=False)
    )
    tokenizer = processor.tokenizer
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    token = str(getattr(processor.video_token, "content", processor.video_token))
    count = inputs["input_ids"].shape[1] - len(encoded["input_ids"])
    ends = [len(token) * (number + 1) for number in range(count)]
    offsets = [(end - len(token), end) for end in ends]
    offsets += [(a + ends[-1], b + ends[-1]) for a, b in encoded["offset_mapping"]]
    return inputs | {"text": token * count + prompt, "offset_mapping": offsets}


def adapt(family: Family, config: Any) -> Family:
    """Only the checkpoints whose language model is a Llama (Vicuna) have one stack of layers under
    the names above.
    """
    kind = config.text_config.model_type
    if kind != "llama":
        raise ProbeError(
            f"InstructBLIP-Video over {kind}: only over Llama (Vicuna) is there a layout"
        )
    return family


_OWN = Family(
    model_type="instructblipvideo",
    model_class="InstructBlipVideoForConditionalGeneration",
    title="InstructBLIP-Video",
    example="Salesforce/instructblip-vicuna-7b",
    grid=grid,
    video_token="video_token_id",
    image_token=None,
    template=TEMPLATE,
    process=process,
    decoder="language_model.model",
    vision="vision_model",
    projector="language_projection",
    head="language_model.lm_head",
    frames=4,
    needs_clip=True,
    takes_positions=False,
    processor_class="InstructBlipVideoProcessor",
    adapt=adapt,
)

# The released checkpoints are those of InstructBLIP, by the name of which their config goes.
FAMILIES = (_OWN, replace(_OWN, model_type="instructblip"))
