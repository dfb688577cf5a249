"""The pictures of the report page in docs/: report.png (light) and report-dark.png, of the shipped profiles.

Run: python benchmarks/report_picture.py [MACHINE]

Needs a Chromium. The page itself comes from ``mbexport profile report``; MACHINE is a slug, where there are several.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mbexport.analysis.report import choose, write_report  # noqa: E402
from tests import chromium  # noqa: E402

PICTURES = {"light": ROOT / "docs" / "report.png", "dark": ROOT / "docs" / "report-dark.png"}
WIDTH_PX = 1000
END = "document.querySelector('section[aria-labelledby=accuracy] details').getBoundingClientRect().bottom + scrollY"
"""The pictures end below the first plot."""


def main() -> None:
    """Write both pictures."""
    program = chromium.find()
    if program is None:
        sys.exit(f"no Chromium here: {', '.join(chromium.NAMES)} are not on the path")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        machine = choose([ROOT / "profiles"], hardware=sys.argv[1] if len(sys.argv) > 1 else None)
        write_report(folder / "report.html", machine, ROOT / "profiles")
        with chromium.page(program, folder) as page:
            for theme, path in PICTURES.items():
                page.open(folder / "report.html", width=WIDTH_PX, theme=theme)
                path.write_bytes(picture(page))
                print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")


def picture(page: chromium.Page) -> bytes:
    """PNG of the page from its top to the end of the first plot's section."""
    clip = {"x": 0, "y": 0, "width": WIDTH_PX, "height": page.value(f"Math.ceil({END}) + 24"), "scale": 1}
    shot = page.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    return base64.b64decode(shot["data"])


if __name__ == "__main__":
    main()
