#!/usr/bin/python3
"""bench/plot.py REPORT.json > docs/speed.svg: the drains of a report of bench/run.py as bars, readable on light and dark."""
import json
import sys

LEFT, WIDTH, ROW, BAR = 70, 640, 44, 14
STYLE = """text{font:12px sans-serif;fill:#222}.dim{fill:#666}.native{fill:#9aa3ad}.kb{fill:#2f81c7}.must{stroke:#c0392b;stroke-width:2}
@media (prefers-color-scheme:dark){text{fill:#ddd}.dim{fill:#999}.native{fill:#6b747d}.kb{fill:#58a6e8}.must{stroke:#ff7b6b}}"""


def plot(report):
    drains = report["drain"]
    scale = (WIDTH - LEFT - 150) / max(max(r["native"]["seconds"], r["keybridge"]["seconds"]) for r in drains)
    height = 40 + ROW * len(drains) + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">',
           "<title>Seconds to drain a backlog: PostgreSQL's subscription and keybridge</title>", f"<style>{STYLE}</style>",
           f'<rect class="native" x="{LEFT}" y="10" width="12" height="12"/><text x="{LEFT + 18}" y="20">native subscription</text>',
           f'<rect class="kb" x="{LEFT + 160}" y="10" width="12" height="12"/><text x="{LEFT + 178}" y="20">keybridge</text>',
           f'<line class="must" x1="{LEFT + 266}" x2="{LEFT + 266}" y1="9" y2="23"/><text x="{LEFT + 274}" y="20">aim</text>']
    for i, r in enumerate(drains):
        y = 40 + ROW * i
        out.append(f'<text x="{LEFT - 10}" y="{y + 18}" text-anchor="end">{r["backlog"]}</text>')
        for who, css, top in (("native", "native", y), ("keybridge", "kb", y + BAR + 2)):
            seconds = r[who]["seconds"]
            ratio = f" = {r['ratio']:.2f} of native" if who == "keybridge" else ""
            out.append(f'<rect class="{css}" x="{LEFT}" y="{top}" width="{seconds * scale:.1f}" height="{BAR}"/>'
                       f'<text x="{LEFT + seconds * scale + 6:.1f}" y="{top + 11}">{seconds:.2f} s{ratio}</text>')
        aim = LEFT + r["must"] * r["native"]["seconds"] * scale
        out.append(f'<line class="must" x1="{aim:.1f}" x2="{aim:.1f}" y1="{y + BAR}" y2="{y + 2 * BAR + 4}"/>')
    out.append(f'<text class="dim" x="{LEFT}" y="{height - 12}">{report["machine"]["date"][:10]}, {report["machine"]["cpus"]} CPUs, '
               'both servers on the same machine</text></svg>')
    return "\n".join(out)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        print(plot(json.load(f)))
