"""How every figure looks: colours, dashes, marks and hatches, sizes, and the sheet that it is drawn on.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), which people with colour-blindness can tell apart. In
print without colour, lines differ in dashes and marks, and bars in hatches. The base is drawn in the colour of the
text, dashed and hatched; the student solid.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlx_ssd.layout import BASE, MAIN
from mlx_ssd.sections import STAGED

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Sheet

INK = "#010203"  # stands for the colour of the text around the figure; svg.py writes currentColor for it
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#F0E442"

WIDTH = 480  # of a figure, in pixels: two stand side by side on a desk, and one is still legible on a phone
FONT, SMALL = 12, 11  # pixels
FAINT = 0.18  # opacity of grid lines

Dash = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """One arm, everywhere. An empty hatch is a solid bar."""

    colour: str
    dash: Dash
    marker: str
    hatch: str

    def bar(self) -> dict[str, Any]:
        """Of a bar. One in the text's colour is not filled: its hatch shows on light and dark."""
        return {
            "facecolor": "none" if self.colour == INK else self.colour,
            "edgecolor": INK,
            "hatch": self.hatch,
            "linewidth": 0.8,
        }


KNOWN = {
    BASE: Look(INK, (0, (4, 2)), "o", "////"),
    "base-best": Look(ORANGE, (0, (1, 1.5)), "s", "\\\\\\\\"),
    "two-stage": Look(GREEN, (0, (6, 2, 1, 2)), "^", "xxx"),
    MAIN: Look(BLUE, "-", "D", ""),
}
# Of further arms. Their numbers share no factor with one another where it can be helped, so that many arms differ.
COLOURS = (VERMILLION, PURPLE, SKY)
DASHES: tuple[Dash, ...] = ((0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 3)), (0, (12, 2, 3, 2)), (0, (5, 1, 1, 1)))
MARKERS = ("v", "P", "X", "<", ">", "p", "h")
HATCHES = ("--", "||", "++", "//", "\\\\", "xx")  # no dots or stars, which take much room in a file


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, the same in all figures of a report when they are given the same names in order."""
    found: dict[str, Look] = {}
    others = 0
    for name in names:
        if name in found:
            continue
        known = KNOWN.get("two-stage" if STAGED.fullmatch(name) else name)
        if known and known not in found.values():
            found[name] = known
        else:
            cycles = (COLOURS, DASHES, MARKERS, HATCHES)
            found[name] = Look(*(cycle[others % len(cycle)] for cycle in cycles))
            others += 1
    return found


def arms_of(report: dict[str, Any]) -> list[str]:
    """Every arm that the report speaks of, in its order."""
    named = [entry["arm"] for part in ("scores", "curve") for entry in report.get(part) or []]
    return list(dict.fromkeys([*named, *(report.get("analysis") or {})]))


SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, sharp in print, found by a search
    "svg.hashsalt": "mlx-ssd",  # else ids differ from call to call
    "text.parse_math": False,  # a $ in a name is a $
    "text.usetex": False,
    "text.color": INK,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib; wider than what browsers take for sans-serif
    "font.size": FONT,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,  # as in the report's text
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "grid.color": INK,
    "grid.alpha": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.4,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.w_pad": 0.06,
}


@contextlib.contextmanager
def sheet(height: float, width: float = WIDTH) -> Iterator[Sheet]:
    """A sheet of so many pixels, under this style whatever the user's own matplotlibrc says."""
    import matplotlib
    from matplotlib.figure import Figure as Sheet

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a reader's browser has the font
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        found = Sheet(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        found.patch.set_visible(False)
        yield found
