"""The scene graph of a clip: what is where in each frame."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")
COLORS: tuple[str, ...] = ("red", "green", "blue", "yellow", "purple", "cyan")
MOTIONS: tuple[str, ...] = ("left", "right", "up", "down", "stays")
SURFACES = ("plain", "dark", "noise")
BACKGROUNDS = ("plain", "gradient", "noisy")

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        shape, color: what it is; where `hidden` the colour is drawn from the prior.
        motion: the way it moves, or "stays".
        surface: "plain" shows the colour, "dark" and "noise" hide it.
        size: side of its square box in pixels.
        boxes: (x0, y0, x1, y1) in each frame, or None while it is absent.
        visible: the fraction of its pixels that are seen in each frame.
    """

    shape: str
    color: str
    motion: str
    surface: str
    size: int
    boxes: tuple[Box | None, ...]
    visible: tuple[float, ...]

    @property
    def hidden(self) -> bool:
        """The colour cannot be seen."""
        return self.surface != "plain"

    @property
    def name(self) -> str:
        """As questions and captions call it: "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def present(self) -> tuple[int, ...]:
        """The frames it is in."""
        return tuple(frame for frame, box in enumerate(self.boxes) if box is not None)

    @property
    def first(self) -> int:
        """The frame in which it appears."""
        return self.present[0]


@dataclass(frozen=True)
class Scene:
    """A clip as data. Later things are drawn over earlier ones.

    Attributes:
        seed: what it was made from; the noise of the drawing follows it too.
        frames, size: length of the clip and its side in pixels.
        background: "plain", "gradient" or "noisy".
        tones: two background colours (RGB); a plain background uses the first.
        medium: "scene", or "blank" or "noise" for a clip in which nothing can be seen.
        things: the objects, from back to front.
    """

    seed: int
    frames: int
    size: int
    background: str
    tones: tuple[tuple[int, int, int], tuple[int, int, int]]
    medium: str
    things: tuple[Thing, ...]

    def to_json(self) -> str:
        """The scene graph as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """The scene that `to_json` wrote."""
        data = json.loads(text)
        things = []
        for thing in data.pop("things"):
            boxes = tuple(None if box is None else tuple(box) for box in thing.pop("boxes"))
            visible = tuple(thing.pop("visible"))
            things.append(Thing(**thing, boxes=boxes, visible=visible))
        low, high = (tuple(tone) for tone in data.pop("tones"))
        return cls(**data, tones=(low, high), things=tuple(things))
