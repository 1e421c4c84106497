"""What the base install takes on disk, beside the five bare packages it stands on.

    python benchmarks/install_size.py

Makes two throw-away virtual environments: one with numpy, onnxruntime, pillow, av and click alone,
one with `pip install .`. Prints both totals, their difference and the size of our own wheel.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BARE = ("numpy", "onnxruntime", "pillow", "av", "click")
MB = 1e6


def main() -> None:
    """Install both ways and print a table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = build_wheel(folder)
        bare = installed_bytes(folder / "bare", *BARE)
        ours = installed_bytes(folder / "ours", str(wheel))
        print(f"wheel                     {wheel.stat().st_size / MB:8.1f} MB   (bound 20)")
    print(f"five bare packages        {bare / MB:8.1f} MB")
    print(f"base install              {ours / MB:8.1f} MB")
    print(f"added by us               {(ours - bare) / MB:8.1f} MB   (bound 25)")
    print(f"ratio                     {ours / bare:8.3f}")


def build_wheel(folder: Path) -> Path:
    """Our wheel, built from the checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("taidpt-*.whl"))


def installed_bytes(environment: Path, *packages: str) -> int:
    """Bytes under site-packages after installing into a fresh environment without pip in it."""
    site = environment / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site)]
    subprocess.run([*command, *packages], check=True)
    return sum(path.stat().st_size for path in site.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
