"""VideoModel: a checkpoint one can encode for, run, ablate and generate with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from probe.errors import ProbeError
from probe.models.anatomy import Anatomy
from probe.models.encode import Example, append, encode
from probe.models.given import Turn, turns, visual

if TYPE_CHECKING:
    import pandas as pd

    from probe.ablate.base import Ablations
    from probe.capture.base import Capture
    from probe.engine.batch import Batch
    from probe.engine.result import Run


class VideoModel(Anatomy):
    """A video multimodal LLM that one can encode for, run, ablate and generate with."""

    def encode(
        self,
        video: Any,
        question: str,
        answer: str | None = None,
        options: Sequence[str] | None = None,
        frames: int | None = 16,
        *,
        fps: float | None = None,
        times: Sequence[float] | np.ndarray | None = None,
        seconds: Sequence[float] | np.ndarray | None = None,
        stream: int | None = None,
        allow_partial: bool = False,
        system: str | None = None,
    ) -> Example:
        """Encode a clip and a question with the checkpoint's own processor and template.

        Args:
            video: path, array [time, height, width, 3] of uint8, a `Clip`, or None for no clip;
                an image is a path with an image's ending, an array [height, width, 3] or a PIL
                image. A list of them puts several before the question.
            question: what is asked.
            answer: text that follows the prompt (teacher forcing); the readout covers it.
            options: choices, listed in the prompt as "A. ...".
            frames: number of frames, uniformly over the clip; an array or a `Clip` with no more
                frames than this is taken as it is.
            fps, times: sample at a rate, or at given seconds, instead.
            seconds: times of the frames of an array.
            stream: number of the video stream in the file.
            allow_partial: accept a file that ends early.
            system: system prompt.

        Raises:
            ProbeError: bad input; one line that says what and what to do.
        """
        how: dict[str, Any] = {"fps": fps, "times": times, "stream": stream}
        how |= {"frames": frames, "allow_partial": allow_partial}
        if seconds is not None:
            how["seconds"] = seconds
        given = video if isinstance(video, list | tuple) else [] if video is None else [video]
        shown = [visual(one, **how) for one in given]
        talk = [Turn("user", (*shown, (question or "").strip()))]
        if system and system.strip():
            talk.insert(0, Turn("system", (system.strip(),)))
        return encode(self.hf, self.processor, self.family, talk, answer, options)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        answer: str | None = None,
        options: Sequence[str] | None = None,
        **how: Any,
    ) -> Example:
        """Encode a conversation of several turns, with clips and images anywhere in it.

        Args:
            messages: [{"role": "user", "content": [{"type": "video", "video": "clip.mp4"},
                {"type": "text", "text": "What moves?"}]}, ...]; the last is the user's, and its
                text has the role "question", earlier ones "history".
            answer, options: as in `encode`.
            how: how clips are read: frames, fps, times, stream, allow_partial.

        Raises:
            ProbeError: bad input; one line that says what and what to do.
        """
        talk = turns(messages, **how)
        if not talk:
            raise ProbeError("chat: there is no message")
        return encode(self.hf, self.processor, self.family, talk, answer, options)

    def force(self, x: Example, ids: Sequence[int]) -> Example:
        """The example followed by these tokens as its answer, for instance generated ones.

        Raises:
            ProbeError: the placeholder of a clip or an image among them.
        """
        names = [self.family.video_token, self.family.image_token]
        taken = {getattr(self.hf.config, name, None) for name in names if name}
        wrong = next((token for token in ids if token in taken), None)
        if wrong is not None:
            raise ProbeError(
                f"force: token id {wrong} is the placeholder of a clip or an image; the model "
                "would look for one there"
            )
        return append(x, ids, self.tokenizer, self.tokenizer.decode(list(ids)))

    @overload
    def run(
        self, x: Example, capture: Any = ..., ablate: Any = ..., *, logits: str = ...
    ) -> Run: ...

    @overload
    def run(
        self, x: list[Example], capture: Any = ..., ablate: Any = ..., *, logits: str = ...
    ) -> Batch: ...

    def run(
        self,
        x: Example | list[Example],
        capture: Sequence[Capture] = (),
        ablate: Ablations = (),
        *,
        logits: str = "readout",
    ) -> Run | Batch:
        """One forward pass over the example, captured and ablated.

        Args:
            x: from `encode`; a list of examples gives a `Batch` with a `sample` dim.
            capture: what to read out.
            ablate: what to change.
            logits: "readout" for the readout positions, "all" for every position.

        Raises:
            ProbeError: bad arguments (before anything runs), not enough memory, an ablation that
                changed nothing, NaN or Inf in the logits.
        """
        from probe.engine.batch import each
        from probe.engine.forward import run

        if isinstance(x, list):
            return each(partial(run, self), x, captures=capture, ablations=ablate, logits=logits)
        return run(self, x, capture, ablate, logits=logits)

    @overload
    def generate(self, x: Example, capture: Any = ..., ablate: Any = ..., **kwargs: Any) -> Run: ...

    @overload
    def generate(
        self, x: list[Example], capture: Any = ..., ablate: Any = ..., **kwargs: Any
    ) -> Batch: ...

    def generate(
        self,
        x: Example | list[Example],
        capture: Sequence[Capture] = (),
        ablate: Ablations = (),
        **generation_kwargs: Any,
    ) -> Run | Batch:
        """Generate an answer; captures have a `step` dim, one entry per generated token.

        `generation_kwargs` go to transformers' `generate`; greedy, at most 64 new tokens, by
        default. With `seed` sampling is repeatable. A list of examples gives a `Batch` with a
        `sample` dim. Several sequences of one example come from `sequences`.
        """
        from probe.engine.batch import each
        from probe.engine.generate import generate

        if isinstance(x, list):
            more = {"captures": capture, "ablations": ablate, **generation_kwargs}
            return each(partial(generate, self), x, **more)
        return generate(self, x, capture, ablate, **generation_kwargs)

    def sequences(
        self,
        x: Example,
        count: int,
        capture: Sequence[Capture] = (),
        ablate: Ablations = (),
        *,
        seed: int = 0,
        **generation_kwargs: Any,
    ) -> Batch:
        """Sample several answers to one example, with a `sequence` dim in front.

        Sequence i is what transformers' `generate` gives after `torch.manual_seed(seed + i)`.

        Args:
            x: the example.
            count: how many.
            capture, ablate: as in `generate`.
            seed: of the first sequence; the random state outside is left alone.
            generation_kwargs: to transformers' `generate`; `do_sample=True` by default.

        Raises:
            ProbeError: fewer than one sequence, or what `generate` refuses.
        """
        from probe.engine.batch import gather
        from probe.engine.generate import generate

        if count < 1:
            raise ProbeError(f"sequences: count={count}; ask for at least 1")
        settings = {"do_sample": True} | generation_kwargs
        runs = [generate(self, x, capture, ablate, seed=seed + n, **settings) for n in range(count)]
        return gather(runs, "sequence")

    def sweep(
        self,
        x: Example,
        ablations: Sequence[Any],
        measure: Any = None,
        *,
        progress: Callable[[], object] = lambda: None,
    ) -> pd.DataFrame:
        """Many ablations of one example, each from where it begins to matter.

        The vision tower runs once; an ablation that starts at layer k is resumed there; one that
        changes only what late tokens read runs those tokens alone, over the keys and values of
        the untouched run. Equal to `run` one by one, to rounding.

        Args:
            x: the example.
            ablations: each an ablation, a recipe or a list of them.
            measure: a `Margin`, or a function of a `Run` that gives a number or a dict of numbers
                by name; the margin of the model's own answer by default.
            progress: called after each run.

        Returns:
            A row for the untouched run ("nothing") and one for each ablation: ablation, value and
            change (or the columns of a dict), answer (its first token), from_layer and from_row
            (None: everything ran again), seconds.

        Raises:
            ProbeError: as `run` does.
        """
        from probe.engine.sweep import sweep

        return sweep(self, x, ablations, measure, progress=progress)

    @contextmanager
    def ablated(self, x: Example, ablate: Ablations) -> Iterator[Any]:
        """The Hugging Face model with ablations on, for a user's own loop over `x.inputs`.

        Raises:
            ProbeError: ablations of what is encoded (frames), or of the logits: no forward pass
                of this model by itself has them.
        """
        from probe.ablate.base import Ablation
        from probe.ablate.compose import in_order, prepared
        from probe.engine.forward import as_list
        from probe.engine.session import Session

        ordered = in_order(as_list(ablate, Ablation))
        for one in ordered:
            if one.acts == "logits" or prepared(self, x, [one]) is not x:
                raise ProbeError(
                    f"ablated: {one} acts on {one.acts}, outside of the model's forward pass; use "
                    "model.run or model.generate"
                )
        with Session(self, x, (), ordered, layout=x.layout.extend(4096)) as session:
            yield self.hf
            session.finish()

    def estimate(self, x: Example, capture: Sequence[Capture] = ()) -> pd.DataFrame:
        """Memory in bytes that each part of a run will take, before it runs."""
        from probe.engine.memory import estimate

        return estimate(self, x, capture)
