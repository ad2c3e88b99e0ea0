"""A bar chart as SVG, legible on a light and on a dark page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 880
NAMES: Final = 300
"""Where the bars begin."""
FIGURES: Final = 170
"""The room for the figures on the right of the longest bar."""
ROW: Final = 30
THICKNESS: Final = 18
HEAD: Final = 44

STYLE: Final = """
text { font: 14px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.bar { fill: #8c959f }
.highlighted { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .bar { fill: #6e7681 }
  .highlighted { fill: #4493f8 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, its name on the left and its figures on the right."""

    name: str
    value: float
    figures: str
    highlighted: bool


def chart(title: str, bars: Sequence[Bar]) -> str:
    """Return the chart of ``bars``, the longest of which takes the whole width."""
    longest = max((bar.value for bar in bars), default=1.0)
    height = HEAD + ROW * len(bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="8" y="24">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        top = HEAD + number * ROW
        length = max(1.0, (WIDTH - NAMES - FIGURES) * bar.value / longest)
        kind = "bar highlighted" if bar.highlighted else "bar"
        text = top + THICKNESS - 4
        size = f'width="{length:.1f}" height="{THICKNESS}"'
        lines += [
            f'<text x="{NAMES - 10}" y="{text}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="{kind}" x="{NAMES}" y="{top}" {size} rx="3"/>',
            f'<text x="{NAMES + length + 8:.1f}" y="{text}">{escape(bar.figures)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
