"""The pictures of the built-in demo: drawn faces that smile, frown or stay blank.

Mouth, cheeks, eyelids and brows carry sentiment. Everything else is there to be ignored: who
it is, hair, hat, glasses, beard, whether the speaker is caught in mid-word, place, size and
tilt of the head, what stands behind it, light and sensor noise.

Expressions are broad and the rest varies modestly, so that a small network learns to read them
from nothing, with about a thousand pictures and three hundred steps.
"""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Drawn this many times larger and then averaged: Pillow draws without antialiasing.
_SUPERSAMPLE = 3

_SKINS = ((255, 219, 190), (241, 194, 158), (224, 172, 125), (198, 134, 90), (150, 96, 62),
          (112, 70, 45), (236, 188, 170))  # fmt: skip
_HAIRS = ((35, 28, 26), (70, 46, 32), (118, 78, 45), (176, 130, 70), (222, 188, 120),
          (160, 70, 40), (150, 150, 155))  # fmt: skip
_STYLES = ("short", "long", "bald", "bun", "curly")
_DARK = (38, 28, 30)
_MOUTH_Y, _EYE_Y, _EYE_X, _BROW_Y = 0.46, -0.08, 0.34, -0.34


@dataclasses.dataclass(frozen=True)
class Look:
    """What stays the same in all pictures of one speaker; lengths in half head heights."""

    skin: Colour
    hair: Colour
    shirt: Colour
    style: str
    width: float
    jaw: float  # exponent of the head's outline: 2 an ellipse, more a squarer head
    mouth: float
    brow: float
    glasses: bool
    hat: bool
    beard: bool


def draw_look(rng: random.Random) -> Look:
    """A random speaker."""
    return Look(
        skin=_vary(rng, rng.choice(_SKINS), 10),
        hair=_vary(rng, rng.choice(_HAIRS), 12),
        shirt=_random_colour(rng),
        style=rng.choice(_STYLES),
        width=rng.uniform(0.74, 0.9),
        jaw=rng.uniform(2.0, 2.6),
        mouth=rng.uniform(0.36, 0.42),
        brow=rng.uniform(0.07, 0.11),
        glasses=rng.random() < 0.3,
        hat=rng.random() < 0.25,
        beard=rng.random() < 0.25,
    )


def draw_face(rng: random.Random, look: Look, sentiment: float, size: int) -> np.ndarray:
    """uint8 [size, size, 3]: the speaker with the expression of a sentiment in [-3, 3].

    0 is a blank face. Negative faces are angry or sad, positive ones smile.
    """
    edge = size * _SUPERSAMPLE
    image = _background(rng, edge)
    pen = _Pen(
        ImageDraw.Draw(image),
        centre=(edge * rng.uniform(0.45, 0.55), edge * rng.uniform(0.46, 0.54)),
        scale=edge * rng.uniform(0.36, 0.42),
        tilt=math.radians(rng.uniform(-8, 8)),
    )
    # A weak sentiment shows, too: what cannot be seen is not noise but a blank face.
    valence = math.copysign(0.65 + 0.35 * abs(sentiment) / 3, sentiment) if sentiment else 0.0
    valence += rng.uniform(-0.08, 0.08)
    _draw_head(pen, look)
    _draw_eyes(pen, rng, look, valence)
    _draw_mouth(pen, rng, look, valence)
    _draw_extras(pen, look)
    return _photograph(rng, np.asarray(image.reduce(_SUPERSAMPLE)))


class _Pen:
    """Draws in head coordinates: origin mid head, chin at y = 1, x to the right."""

    def __init__(self, draw: ImageDraw.ImageDraw, centre: Point, scale: float, tilt: float):
        self._draw, self._centre, self._scale = draw, centre, scale
        self._cos, self._sin = scale * math.cos(tilt), scale * math.sin(tilt)

    def area(self, points: list[Point], colour: Colour) -> None:
        self._draw.polygon(self._place(points), fill=colour)

    def line(self, points: list[Point], width: float, colour: Colour) -> None:
        pixels = max(1, round(width * self._scale))
        placed = self._place(points)
        self._draw.line(placed, fill=colour, width=pixels, joint="curve")
        for x, y in (placed[0], placed[-1]):
            r = pixels / 2
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def blob(self, centre: Point, radii: Point, colour: Colour) -> None:
        self.area(_ellipse(centre, radii), colour)

    def ring(self, centre: Point, radii: Point, width: float, colour: Colour) -> None:
        points = _ellipse(centre, radii)
        self.line([*points, points[0]], width, colour)

    def _place(self, points: list[Point]) -> list[Point]:
        (left, top), cos, sin = self._centre, self._cos, self._sin
        return [(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in points]


def _ellipse(
    centre: Point, radii: Point, start: float = 0, end: float = 360, power: float = 2
) -> list[Point]:
    """24 points on a superellipse, clockwise from `start` degrees (0 is right, 90 is down)."""
    points = []
    for step in range(24):
        angle = math.radians(start + (end - start) * step / 23)
        cos, sin = math.cos(angle), math.sin(angle)
        x = math.copysign(abs(cos) ** (2 / power), cos)
        y = math.copysign(abs(sin) ** (2 / power), sin)
        points.append((centre[0] + radii[0] * x, centre[1] + radii[1] * y))
    return points


def _draw_head(pen: _Pen, look: Look) -> None:
    shade = _mix(look.skin, _DARK, 0.22)
    if look.style == "long":
        pen.area(_ellipse((0, 0.2), (look.width + 0.22, 1.25), power=3), look.hair)
    if look.style == "curly":
        for x, y in _ellipse((0, -0.35), (look.width + 0.02, 0.72), 160, 380)[::3]:
            pen.blob((x, y), (0.3, 0.3), look.hair)
    if look.style == "bun":
        pen.blob((0, -1.12), (0.34, 0.3), look.hair)
    pen.area(_ellipse((0, 2.0), (1.35, 0.85), power=3), look.shirt)
    pen.area([(-0.3, 0.5), (0.3, 0.5), (0.34, 1.3), (0, 1.45), (-0.34, 1.3)], shade)
    for side in (-1, 1):
        pen.blob((side * look.width, 0.02), (0.13, 0.2), shade)
    pen.area(_ellipse((0, 0), (look.width, 1), power=look.jaw), look.skin)
    if look.beard:
        colour = _mix(look.skin, _DARK, 0.35)
        outer = _ellipse((0, 0), (look.width, 1), 10, 170, look.jaw)
        pen.area(outer + _ellipse((0, 0.2), (look.width * 0.82, 0.1), 170, 10), colour)
    if look.style != "bald":
        top = _ellipse((0, -0.02), (look.width + 0.04, 1.05), 188, 352, look.jaw)
        pen.area(top + _ellipse((0.1, -0.42), (look.width * 0.9, 0.3), 350, 190), look.hair)
    pen.line([(0, 0), (0.07, 0.2), (-0.03, 0.22)], 0.05, shade)


def _draw_eyes(pen: _Pen, rng: random.Random, look: Look, valence: float) -> None:
    """Brows, eyes and lids. Joy lifts brows and cheeks; anger and grief slant the brows."""
    joy, grief = max(valence, 0.0), max(-valence, 0.0)
    slant = grief * (0.2 if rng.random() < 0.6 else -0.17) + rng.uniform(-0.02, 0.02)
    lift = 0.1 * joy - (0.05 * grief if slant > 0 else 0.0) + rng.uniform(-0.02, 0.02)
    openness = rng.uniform(0.1, 0.13) * (1 - 0.35 * joy - 0.25 * grief)
    gaze = rng.uniform(-0.05, 0.05)
    ink = _mix(look.hair, _DARK, 0.5)
    for side in (-1, 1):
        x = side * _EYE_X
        pen.blob((x, _EYE_Y), (0.16, openness), (246, 244, 240))
        pen.blob((x + gaze, _EYE_Y), (0.08, min(0.09, openness)), _DARK)
        lid = _ellipse((x, _EYE_Y), (0.16, openness), 180, 360)
        pen.line(lid, 0.04, ink)
        if joy > 0.2:
            pen.line(_ellipse((x, _EYE_Y + 0.2), (0.17, 0.07), 200, 340), 0.035,
                     _mix(look.skin, _DARK, 0.3))  # fmt: skip
        inner = (x - side * 0.2, _BROW_Y - lift + slant * 0.7)
        outer = (x + side * 0.2, _BROW_Y - lift - slant * 0.5)
        middle = (x, (inner[1] + outer[1]) / 2 - 0.03 - 0.06 * joy)
        pen.line([inner, middle, outer], look.brow, ink)
    if look.glasses:
        for side in (-1, 1):
            pen.ring((side * _EYE_X, _EYE_Y + 0.02), (0.24, 0.2), 0.045, (40, 40, 48))
        pen.line([(-0.1, _EYE_Y), (0.1, _EYE_Y)], 0.045, (40, 40, 48))


def _draw_mouth(pen: _Pen, rng: random.Random, look: Look, valence: float) -> None:
    """Lips bent by the valence: a smile bares the teeth, any other mouth may be in mid-word."""
    joy = max(valence, 0.0)
    if joy > 0.3:
        for side in (-1, 1):
            pen.blob((side * 0.5, 0.26), (0.16, 0.11), _mix(look.skin, (230, 70, 70), 0.3))
    half = look.mouth * (1 + 0.2 * joy)
    bend = 0.4 * valence
    talking = rng.uniform(0.1, 0.2) * (rng.random() < 0.3)
    opened = 0.28 * joy if joy > 0.3 else talking
    lips = _mix(look.skin, (185, 55, 65), 0.65)
    upper, lower = [], []
    for step in range(9):
        t = step / 4 - 1
        y = _MOUTH_Y + bend * (0.5 - t * t)
        upper.append((half * t, y - 0.5 * opened * (1 - t * t)))
        lower.append((half * t, y + 0.5 * opened * (1 - t * t)))
    if opened:
        pen.area(upper + lower[::-1], (246, 243, 238) if joy > 0.3 else (92, 24, 32))
        pen.line(lower, 0.07, lips)
    pen.line(upper, 0.09, lips if opened or look.beard else _mix(lips, _DARK, 0.4))


def _draw_extras(pen: _Pen, look: Look) -> None:
    if look.hat:
        colour = _mix(look.shirt, (255, 255, 255), 0.15)
        pen.area(_ellipse((0, -0.5), (look.width + 0.1, 0.75), 180, 360, 2.4), colour)
        band = look.width + 0.16
        pen.area([(-band, -0.66), (band, -0.66), (band, -0.48), (-band, -0.48)],
                 _mix(colour, _DARK, 0.35))  # fmt: skip


def _background(rng: random.Random, edge: int) -> Image.Image:
    """Four corner colours run into each other, with a few shapes in front of them."""
    base = _mix(_random_colour(rng), (128, 128, 128), 0.6)
    corners = np.array([_vary(rng, base, 35) for _ in range(4)], np.uint8).reshape(2, 2, 3)
    image = Image.fromarray(corners).resize((edge, edge), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randrange(5)):
        x, y = rng.uniform(-0.2, 0.9) * edge, rng.uniform(-0.2, 0.9) * edge
        box = (x, y, x + rng.uniform(0.1, 0.5) * edge, y + rng.uniform(0.1, 0.5) * edge)
        shape = rng.choice((draw.rectangle, draw.ellipse))
        shape(box, fill=_mix(_random_colour(rng), base, 0.5))
    return image


def _photograph(rng: random.Random, pixels: np.ndarray) -> np.ndarray:
    """Light from one side, a colour cast and sensor noise; uint8 [S, S, 3] -> the same."""
    size = len(pixels)
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.2)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + strength * (math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None])
    cast = np.array([rng.uniform(0.95, 1.05) for _ in range(3)], np.float32)
    cast *= rng.uniform(0.85, 1.05)
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape, np.float32)
    lit = pixels * light[:, :, None] * cast + rng.uniform(2, 5) * noise
    return np.clip(lit, 0, 255).astype(np.uint8)


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def _vary(rng: random.Random, colour: Colour, amount: int) -> Colour:
    return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in colour)


def _random_colour(rng: random.Random) -> Colour:
    return tuple(rng.randint(40, 220) for _ in range(3))
