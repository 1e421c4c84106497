"""A multi-label tagger for your own tags, tuned from text alone and run without torch.

The rooms `taidpt.export`, `taidpt.kernels` and `taidpt.runtime` are folders of their own at the
top of the repository. An installed package finds them by itself; from a bare checkout they are
found because the checkout's root joins this package's path when they stand beside it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["__version__"]

__version__ = "0.1.0"

_checkout = Path(__file__).resolve().parent.parent
if all((_checkout / room / "__init__.py").is_file() for room in ("export", "kernels", "runtime")):
    __path__.append(str(_checkout))
del _checkout
