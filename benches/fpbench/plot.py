"""Lines as SVG, for the README: light and dark, with nothing but what is said here."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 34, 46

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #3b4250 } .title { font-weight: 600; fill: #171a21 }
.grid { stroke: #e4e7ec } .line { fill: none; stroke-width: 2.5 }
.a { stroke: #d2404c } .b { stroke: #2b7de0 } .limit { stroke: #858d9d; stroke-dasharray: 5 4 }
text.a { fill: #b02532; stroke: none } text.b { fill: #1d62b4; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #a2a9b8 } .title { fill: #e8eaef } .grid { stroke: #262b35 }
  .a { stroke: #f4646e } .b { stroke: #4596f5 }
  text.a { fill: #ff8086 } text.b { fill: #74b4ff }
}
"""


class Axis:
    """From values to a place between two coordinates; logarithmic where it is said so."""

    def __init__(self, ticks, low, high, *, log=False):
        self.ticks = ticks
        self.scale = math.log if log else float
        self.low, self.high = low, high
        self.first, self.last = self.scale(ticks[0][0]), self.scale(ticks[-1][0])

    def at(self, value):
        share = (self.scale(value) - self.first) / (self.last - self.first)
        return round(self.low + min(max(share, 0), 1) * (self.high - self.low), 1)


def lines(title, x_label, y_label, x_ticks, y_ticks, series, *, log_x=False, log_y=False, limit=None):
    """An SVG document. Ticks are pairs of value and word; series are name and points, at most two; the
    limit is a value of y with its word."""
    x = Axis(x_ticks, LEFT, WIDTH - RIGHT, log=log_x)
    y = Axis(y_ticks, HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [text(LEFT, 18, title, "title")]
    for value, word in y_ticks:
        parts += [line(LEFT, y.at(value), WIDTH - RIGHT, y.at(value), "grid")]
        parts += [text(LEFT - 8, y.at(value) + 4, word, anchor="end")]
    for value, word in x_ticks:
        parts += [text(x.at(value), HEIGHT - BOTTOM + 18, word, anchor="middle")]
    parts += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, anchor="middle")]
    parts += [
        f'<g transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{text(0, 0, y_label, anchor="middle")}</g>'
    ]
    if limit:
        parts += [line(LEFT, y.at(limit[0]), WIDTH - RIGHT, y.at(limit[0]), "limit")]
        parts += [text(WIDTH - RIGHT + 8, y.at(limit[0]) + 4, limit[1])]
    taken = [y.at(limit[0])] if limit else []
    for kind, (name, points) in zip("ab", series, strict=False):
        path = " ".join(f"{x.at(px)},{y.at(py)}" for px, py in points)
        parts += [f'<polyline class="line {kind}" points="{path}"/>']
        place = apart(y.at(points[-1][1]), taken)
        taken.append(place)
        parts += [text(WIDTH - RIGHT + 8, place + 4, name, kind)]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def apart(place, taken):
    """Where a word does not cover another one."""
    for other in sorted(taken):
        if abs(place - other) < 16:
            place = other + 16 if place >= other else other - 16
    return place


def line(x1, y1, x2, y2, kind):
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


# The plots of a run.


def hedging(found):
    """Latency by quantile, on an axis of nines."""
    quantiles = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}

    def points(name):
        return [(1 / (1 - share), found[name][key]) for key, share in quantiles.items()]

    return lines(
        f"Hedging: {found['more_calls'] * 100:.1f} % more calls",
        "quantile",
        "latency, ms",
        [(1 / (1 - share), key.replace("_", ".")) for key, share in quantiles.items()],
        [(value, str(value)) for value in (5, 10, 20, 50, 100, 200, 500)],
        [("without", points("tail-plain")), ('hedge = "auto"', points("tail-hedged"))],
        log_x=True,
        log_y=True,
        limit=(100, "objective"),
    )


def overload(found):
    """Good answers by how many were asked for."""
    platform, other = found["limited"], next(found[name] for name in found if name != "limited")

    def points(rates):
        return [(float(factor), good) for factor, good in rates.items()]

    return lines(
        "Overload: answers within 250 ms",
        "calls sent ÷ capacity",
        "good answers ÷ capacity",
        [(float(factor), f"{float(factor):g}") for factor in platform],
        [(value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1, 1.25)],
        [("unbounded queue", points(other)), ("functionsplatform", points(platform))],
        log_x=True,
    )
