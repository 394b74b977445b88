"""What the things of one room have in common: its woods, cloths and paints."""

from __future__ import annotations

from random import Random

from perception.datasets.rooms import texture as tx
from perception.datasets.rooms.shapes import Palette, Vector, hsv

__all__ = ["Look"]

#: (hue, saturation, value) of woods: pine, oak, beech, cherry, walnut, wenge.
WOODS = (
    (0.10, 0.42, 0.82),
    (0.09, 0.45, 0.70),
    (0.08, 0.40, 0.76),
    (0.05, 0.60, 0.55),
    (0.06, 0.50, 0.40),
    (0.05, 0.45, 0.26),
)


class Look:
    """Materials of a room; a few are drawn once and used again and again.

    Args:
        r: where everything random comes from.

    Attributes:
        palette: all materials so far.
        white, dark, metal, chrome, screen, leaf, soil, skin: materials by name.
        main, accent: hues that the room is built around.
    """

    def __init__(self, r: Random) -> None:
        self.r = r
        self.palette = Palette()
        add = self.palette.add
        self.main = r.random()
        self.accent = self.main + r.choice((0.08, 0.33, 0.5, 0.5, 0.67))
        self.white = add((0.92, 0.91, 0.89), noise=0.02)
        self.dark = add((0.10, 0.10, 0.11), noise=0.05)
        self.metal = add((0.45, 0.46, 0.48), noise=0.03)
        self.chrome = add((0.72, 0.73, 0.75))
        self.screen = add((0.03, 0.03, 0.04))
        self.soil = add((0.20, 0.14, 0.10), noise=0.5)
        self.woods = [self._wood(w) for w in r.sample(WOODS, 2)]
        self.cloths = [
            self._cloth(h) for h in (self.main, self.accent, self.main + 0.04, r.random())
        ]
        self.paints = [self.paint() for _ in range(2)]

    def _wood(self, wood: Vector) -> int:
        r = self.r
        h, s, v = wood[0] + r.gauss(0.0, 0.008), wood[1], wood[2] * r.uniform(0.9, 1.1)
        return self.palette.add(
            hsv(h, s, v),
            hsv(h - 0.01, s * 1.1, v * r.uniform(0.72, 0.86)),
            pattern=tx.WOOD,
            size=r.uniform(0.03, 0.09),
            noise=0.05,
        )

    def _cloth(self, hue: float) -> int:
        r = self.r
        s, v = r.choice(((0.08, 0.75), (0.15, 0.35), (0.45, 0.55), (0.6, 0.4), (0.3, 0.7)))
        s, v = s * r.uniform(0.8, 1.2), v * r.uniform(0.85, 1.15)
        kind = r.random()
        pattern = tx.PLAIN
        if kind < 0.15:
            pattern = tx.STRIPES
        elif kind < 0.25:
            pattern = tx.CHECKER
        other = hsv(hue + 0.03, s * 0.8, v * r.choice((0.7, 1.3)))
        size = r.uniform(0.04, 0.16)
        return self.palette.add(hsv(hue, s, v), other, pattern=pattern, size=size, noise=0.16)

    def cushion(self) -> int:
        """A lively cloth."""
        r = self.r
        hue = r.choice((self.main, self.accent, r.random()))
        pattern = r.choice((tx.PLAIN, tx.STRIPES, tx.CHECKER, tx.DOTS, tx.DOTS, tx.MARBLE))
        return self.palette.add(
            hsv(hue, r.uniform(0.3, 0.8), r.uniform(0.4, 0.9)),
            hsv(hue + r.choice((0.0, 0.5, 0.1)), r.uniform(0.1, 0.6), r.uniform(0.5, 0.95)),
            pattern=pattern,
            size=r.uniform(0.03, 0.1),
            noise=0.12,
        )

    def paint(self, *, strong: bool = False) -> int:
        """A lacquer: white, grey or a colour."""
        r = self.r
        if not strong and r.random() < 0.5:
            v = r.choice((0.93, 0.9, 0.6, 0.25))
            return self.palette.add((v, v, 0.98 * v), noise=0.02)
        hue = r.choice((self.main, self.accent, r.random()))
        color = hsv(hue, r.uniform(0.3, 0.75), r.uniform(0.35, 0.9))
        return self.palette.add(color, noise=0.03)

    def ceramic(self) -> int:
        """Glazed: one colour, dots, bands, checks or veins."""
        r = self.r
        pattern = r.choice((tx.PLAIN, tx.PLAIN, tx.DOTS, tx.STRIPES, tx.MARBLE, tx.CHECKER))
        return self.palette.add(
            hsv(r.random(), r.uniform(0.1, 0.8), r.uniform(0.5, 0.95)),
            hsv(r.random(), r.uniform(0.1, 0.8), r.uniform(0.3, 0.95)),
            pattern=pattern,
            size=r.uniform(0.015, 0.06),
        )

    def wood(self, which: int = 0) -> int:
        """The first or second wood of the room."""
        return self.woods[which % len(self.woods)]

    def cloth(self, which: int = 0) -> int:
        """One of the cloths of the room."""
        return self.cloths[which % len(self.cloths)]

    def body(self) -> int:
        """What cabinets and tables are made of here: mostly wood, some painted."""
        return self.r.choice((self.woods[0], self.woods[0], self.woods[1], self.paints[0]))

    def book(self) -> int:
        """A book's cover."""
        r = self.r
        color = hsv(r.random(), r.uniform(0.1, 0.85), r.uniform(0.2, 0.9))
        other = hsv(r.random(), r.uniform(0.0, 0.4), r.choice((0.15, 0.9)))
        pattern = tx.SPINE if r.random() < 0.7 else tx.PLAIN
        return self.palette.add(color, other, pattern=pattern)

    def leaves(self) -> int:
        """A green."""
        r = self.r
        hue = r.uniform(0.22, 0.38)
        return self.palette.add(
            hsv(hue, r.uniform(0.45, 0.8), r.uniform(0.3, 0.55)),
            hsv(hue - 0.04, 0.5, r.uniform(0.5, 0.7)),
            pattern=tx.MARBLE,
            size=r.uniform(0.05, 0.1),
            noise=0.1,
        )

    def skin(self) -> int:
        """A skin colour."""
        return self.palette.add(hsv(self.r.uniform(0.04, 0.07), 0.5, self.r.uniform(0.4, 0.9)))

    def picture(self) -> int:
        """A painting of its own."""
        return self.palette.add(
            (1, 1, 1), pattern=tx.PICTURE, seed=self.r.randrange(1 << 30), noise=0.06
        )

    def glowing(self, strength: float, warm: float = 0.12) -> int:
        """A shade or tube that gives light."""
        return self.palette.add(hsv(0.11, warm, 0.98), glow=strength)

    # Surfaces of the room itself; patterns lie in the frame of the room.

    def wall(self, *, strong: bool = False) -> int:
        """Paint, wallpaper or (strong) bricks."""
        r = self.r
        noise = 0.035
        if strong and r.random() < 0.25:
            h = r.uniform(0.02, 0.05)
            return self.palette.add(
                hsv(h, 0.5, 0.55),
                hsv(0.1, 0.1, 0.75),
                pattern=tx.BRICKS,
                size=0.075,
                noise=0.2,
                world=True,
                seed=r.randrange(1 << 20),
            )
        hue = r.choice((0.1, 0.12, self.main, self.accent))
        s = r.uniform(0.25, 0.6) if strong else r.uniform(0.02, 0.16)
        v = r.uniform(0.45, 0.8) if strong else r.uniform(0.82, 0.96)
        color, other = hsv(hue, s, v), hsv(hue, s * 1.25, v * 0.94)
        pattern = tx.STRIPES if r.random() < 0.15 else tx.PLAIN
        size = r.uniform(0.1, 0.3)
        return self.palette.add(color, other, pattern=pattern, size=size, noise=noise, world=True)

    def floor(self) -> int:
        """Boards, tiles or carpet."""
        r = self.r
        kind = r.random()
        seed = r.randrange(1 << 20)
        if kind < 0.6:
            h, s, v = r.choice(WOODS)
            return self.palette.add(
                hsv(h, s, v * 0.95),
                hsv(h - 0.01, s, v * 0.72),
                pattern=tx.PLANKS,
                size=r.uniform(0.07, 0.19),
                noise=0.06,
                world=True,
                seed=seed,
            )
        if kind < 0.82:
            v = r.uniform(0.45, 0.9)
            pattern = r.choice((tx.TILES, tx.TILES, tx.CHECKER))
            other = hsv(0.1, 0.1, v * 0.65)
            color = hsv(r.uniform(0.02, 0.12), r.uniform(0.0, 0.3), v)
            size = r.uniform(0.25, 0.5)
            return self.palette.add(
                color, other, pattern=pattern, size=size, noise=0.06, world=True, seed=seed
            )
        color = hsv(r.choice((0.1, self.main, 0.6)), r.uniform(0.05, 0.35), r.uniform(0.35, 0.7))
        return self.palette.add(color, noise=0.22, world=True)

    def rug(self) -> int:
        """A woven rug with a border."""
        r = self.r
        return self.palette.add(
            hsv(self.accent, r.uniform(0.2, 0.7), r.uniform(0.35, 0.8)),
            hsv(self.main, r.uniform(0.1, 0.6), r.uniform(0.3, 0.9)),
            pattern=tx.RUG,
            size=r.uniform(0.2, 0.5),
            noise=0.25,
        )

    def outdoors(self) -> int:
        """What is seen through a window."""
        r = self.r
        return self.palette.add(
            (1, 1, 1), pattern=tx.OUTDOORS, glow=r.uniform(1.0, 1.25), seed=r.randrange(1 << 30)
        )
