"""Draws docs/architecture.svg: a codec and what trains it.

python docs/make_architecture.py
"""

import math
from pathlib import Path

WIDTH, HEIGHT = 960, 330
STYLE = """
svg { font: 15px system-ui, sans-serif; }
.box { fill: #eef3fb; stroke: #3465a4; stroke-width: 1.5; }
.train { fill: #fdf3e7; stroke: #b5651d; stroke-width: 1.5; }
.flow { stroke: #3465a4; stroke-width: 2; fill: none; marker-end: url(#flow); }
.loss { stroke: #b5651d; stroke-width: 1.5; fill: none; stroke-dasharray: 5 4; marker-end: url(#loss); }
.wave { stroke: #3465a4; stroke-width: 1.2; fill: none; }
text { fill: #1b1f24; text-anchor: middle; }
.small { font-size: 12.5px; fill: #57606a; }
@media (prefers-color-scheme: dark) {
  .box { fill: #1c2a40; stroke: #7aa7e0; } .train { fill: #3a2a18; stroke: #e0a060; }
  .flow, .wave { stroke: #7aa7e0; } .loss { stroke: #e0a060; }
  text { fill: #e6edf3; } .small { fill: #9aa4b0; } .tip { fill: #7aa7e0; } .tip2 { fill: #e0a060; }
}
.tip { fill: #3465a4; } .tip2 { fill: #b5651d; }
"""


def box(x: float, y: float, width: float, title: str, note: str, kind: str = "box", height: float = 64) -> str:
    """A box with a title and a note, its centre at (x, y)."""
    return (
        f'<rect class="{kind}" x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="8"/>'
        f'<text x="{x}" y="{y - 4}">{title}</text><text class="small" x="{x}" y="{y + 16}">{note}</text>'
    )


def waveform(x: float, y: float, width: float, seed: int) -> str:
    """A waveform of two syllables around (x, y)."""
    points = []
    for n in range(161):
        t = n / 160
        height = 24 * abs(math.sin(2 * math.pi * t)) ** 0.7 * math.sin(2 * math.pi * 19 * t + seed)
        points.append(f"{x - width / 2 + t * width:.1f},{y - height:.1f}")
    return f'<polyline class="wave" points="{" ".join(points)}"/>'


def path(kind: str, *points: tuple[float, float]) -> str:
    """A line through points, with an arrow at its end."""
    return f'<path class="{kind}" d="M{" L".join(f"{x},{y}" for x, y in points)}"/>'


def picture() -> str:
    """The SVG file."""
    middle, top, bottom = 165, 52, 280
    marker = '<marker id="{0}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    tip = '<path class="{1}" d="M0,0 L8,4 L0,8 z"/></marker>'
    markers = "".join((marker + tip).format(*names) for names in (("flow", "tip"), ("loss", "tip2")))
    parts = [
        f"<defs>{markers}</defs>",
        waveform(75, middle, 110, 0),
        f'<text class="small" x="75" y="{middle + 50}">wav [B, 1, T]</text>',
        box(240, middle, 150, "encoder", "SEANet, Mimi, STFT"),
        box(480, middle, 150, "quantizer", "RVQ, FSQ, VAE"),
        box(720, middle, 150, "decoder", "mirrors the encoder"),
        waveform(885, middle, 110, 0.4),
        f'<text class="small" x="885" y="{middle + 50}">decoded wav</text>',
        path("flow", (132, middle), (162, middle)),
        path("flow", (316, middle), (402, middle)),
        path("flow", (556, middle), (642, middle)),
        path("flow", (796, middle), (828, middle)),
        f'<text class="small" x="362" y="{middle - 10}">latents</text>',
        f'<text class="small" x="362" y="{middle + 20}">[B, D, F]</text>',
        f'<text class="small" x="600" y="{middle - 10}">codes</text>',
        f'<text class="small" x="600" y="{middle + 20}">[B, K, F]</text>',
        box(240, top, 200, "teacher", "WavLM, phones, placebos", "train"),
        path("loss", (340, top), (480, top), (480, 130)),
        f'<text class="small" x="560" y="{top + 4}">distillation loss</text>',
        path("loss", (75, 135), (75, top), (138, top)),
        box(380, bottom, 200, "losses", "mel, STFT, waveform", "train"),
        box(640, bottom, 240, "discriminators", "MSD, MFD, MPD, MS-STFT, MRD", "train"),
        path("loss", (75, 222), (75, bottom), (278, bottom)),
        path("loss", (885, 222), (885, bottom), (762, bottom)),
        path("loss", (518, bottom), (482, bottom)),
        path("loss", (440, 246), (440, 222), (720, 222), (720, 199)),
        '<text class="small" x="580" y="216">gradient at the waveform</text>',
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


if __name__ == "__main__":
    (Path(__file__).parent / "architecture.svg").write_text(picture(), encoding="utf-8")
