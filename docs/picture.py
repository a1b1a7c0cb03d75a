"""Writes the picture in README.md: a run of the real demo, recorded as SVG.

    python docs/picture.py [FILE]      # in an environment with shmconf[agent], such as make's .venv

What the picture shows is what happened, with the process numbers and latencies of the machine that it was made on. It
loads nothing from anywhere: text is set in whatever monospaced font the viewer has.
"""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

from rich.console import Console

from shmconf_agent.demo import perform
from shmconf_agent.demo_stage import DidNotHappen, Stopped

PICTURE = Path(__file__).with_name("demo.svg")
WIDTH = 80
WORKERS = 8
# Rich fills this in. Its own format differs in that it loads a font from the network.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix, .{unique_id}-title {{
      font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
      font-size: {char_height}px;
      line-height: {line_height}px;
    }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""


def record() -> str:
    """The demo, played once. Raises what `perform` raises."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        no_color=False,
    )
    perform(console, WORKERS, terminal=False)
    return console.export_svg(title="make demo", code_format=FORMAT, unique_id="demo")


def main() -> int:
    """The exit code."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    try:
        picture = record()
    except DidNotHappen as reason:
        print(f"picture: the demo failed: {reason}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"picture: stopped by {signal.Signals(stopped.signum).name}", file=sys.stderr)
        return 128 + stopped.signum
    target.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", "utf-8")
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
