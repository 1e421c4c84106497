"""The toy world: a tiny CLIP of sixty emoji that ships in the package, and all that made it.

`assets` and `heldout` are what users of the shipped files need; `scenes`, `train` and
`build_files` make them anew.
"""

from __future__ import annotations
