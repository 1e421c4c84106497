"""What calibration needs beyond the base install."""

from __future__ import annotations

import importlib

from taidpt.runtime.errors import MissingDependencyError

__all__ = ["need_packages"]


def need_packages() -> None:
    """Look for SciPy and scikit-learn before anything imports them.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    for package in ("scipy", "sklearn"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingDependencyError(
                f"calibration needs {package}; pip install 'taidpt[calibrate]'"
            ) from None
