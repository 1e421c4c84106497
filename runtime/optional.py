"""Optional packages: one line that says what to install when one is missing.

Which extra of `taidpt` holds a package is read from the metadata of the installed `taidpt`, so
pyproject.toml is the only table. A checkout without an install has no metadata; there the package
itself is named.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator

from taidpt.runtime.errors import MissingDependencyError

__all__ = ["missing_package", "optional_packages", "require_extra"]

# Packages whose import name is not their own name with underscores.
_IMPORT_NAMES = {
    "cuda-bindings": "cuda",
    "nvidia-ml-py": "pynvml",
    "open-clip-torch": "open_clip",
    "paho-mqtt": "paho",
    "pillow": "PIL",
    "protobuf": "google",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
_PACKAGES = {import_name: package for package, import_name in _IMPORT_NAMES.items()}
# Compiled where a package is missing, not at every start.
_REQUIREMENT = (
    r"(?P<package>[\w.-]+)(?:\[(?P<extras>[^]]*)\])?[^;]*(?:;.*extra == ['\"](?P<extra>[\w.-]+))?"
)


@contextlib.contextmanager
def optional_packages(purpose: str, extra: str = "", advice: str = "") -> Iterator[None]:
    """Turn a missing package inside the block, or the decorated function, into one line.

    Args:
        purpose: what needs the packages, for "PURPOSE needs PACKAGE".
        extra: the extra of `taidpt` to install; where it does not hold the package, or without
            one, the package alone is named.
        advice: what else the user can do; follows the command.
    Raises:
        MissingDependencyError: an import found no such package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_package(error, purpose, extra, advice) from error


def missing_package(
    error: ModuleNotFoundError, purpose: str, extra: str = "", advice: str = ""
) -> ModuleNotFoundError | MissingDependencyError:
    """The error to raise in place of a failed import; the error itself if a module of ours failed.

    Arguments as for `optional_packages`.
    """
    import_name = (error.name or "").partition(".")[0]
    if import_name in ("", "taidpt"):
        return error
    package = _PACKAGES.get(import_name, import_name)
    in_extra = _normal(package) in _packages_of(extra, _extras()) if extra else False
    target = f"'taidpt[{extra}]'" if in_extra else package
    other = f", or {advice}" if advice else ""
    return MissingDependencyError(
        f"{purpose} needs {import_name}, which is not installed: pip install {target}{other}"
    )


def require_extra(extra: str, purpose: str) -> None:
    """Check before long work that every package of an extra is installed.

    Raises:
        MissingDependencyError: some are not; the message names them all.
    """
    packages = _packages_of(extra, _extras())
    names = (_IMPORT_NAMES.get(package, package.replace("-", "_")) for package in packages)
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"{purpose} needs {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed: pip install 'taidpt[{extra}]'"
        )


def _extras() -> dict[str, list[str]]:
    """Extra → its own packages, and `taidpt[other]` for an extra inside it; "" is the base."""
    import importlib.metadata  # slow, and needed only where a package is missing

    extras: dict[str, list[str]] = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for line in importlib.metadata.requires("taidpt") or ():
            if match := re.match(_REQUIREMENT, line):
                package, inner, extra = match["package"], match["extras"], match["extra"]
                names = [_normal(package)]
                if package == "taidpt":  # an extra of ours in another; `ray[data]` is a package
                    names = [f"taidpt[{name.strip()}]" for name in inner.split(",")]
                extras.setdefault(extra or "", []).extend(names)
    return extras


def _packages_of(extra: str, extras: dict[str, list[str]]) -> list[str]:
    """All packages of an extra, those of extras inside it included."""
    packages: list[str] = []
    for name in extras.get(extra, []):
        inner = name.startswith("taidpt[")
        packages += _packages_of(name[7:-1], extras) if inner else [name]
    return list(dict.fromkeys(packages))


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
