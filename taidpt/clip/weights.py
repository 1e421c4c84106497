"""Weights of a CLIP from a file, read without running code from the file.

Safetensors and `.pt` files (restricted unpickler of torch, `weights_only=True`) are plain data.
OpenAI's originals are TorchScript archives: a zip of code, a pickle of the module tree and raw
storages. Only the last two are read here, by an unpickler that knows tensors and nothing else, so
no code of the archive is compiled or run.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from taidpt.runtime.errors import InputError

__all__ = [
    "is_torchscript_archive",
    "licence_note",
    "load_weights",
    "plain_weights",
    "read_state_dict",
    "state_sha256",
]

# Licences as stated on the publishers' model pages: pointers, not legal advice.
_LICENCES: tuple[tuple[str, str], ...] = (
    ("openai", "MIT (OpenAI CLIP)"),
    ("laion", "MIT (LAION)"),
    ("frozen_laion", "MIT (LAION)"),
    ("datacompdr", "Apple ML research licence (MobileCLIP): research use, see its model card"),
    ("datacomp", "MIT (DataComp)"),
    ("commonpool", "MIT (DataComp)"),
    ("metaclip", "CC BY-NC 4.0 (MetaCLIP): no commercial use"),
    ("dfn", "Apple sample code licence (DFN), see its model card"),
    ("webli", "Apache-2.0 (SigLIP)"),
    ("meta", "Apache-2.0 (Perception Encoder)"),
    ("merged2b", "MIT (EVA-CLIP)"),
    ("random", "none needed (random weights)"),
    ("embedded", "MIT (part of taidpt), trained on Noto Color Emoji pictures, see NOTICE"),
)
_UNKNOWN_LICENCE = "unknown, see the source"
# Keys under which training loops save the weights, the innermost last.
_NESTED = ("state_dict", "model_state_dict", "model", "module")
_ANCHOR = "logit_scale"


def licence_note(pretrained: str) -> str:
    """The licence of an open_clip tag as far as it is known."""
    for prefix, note in _LICENCES:
        if pretrained.startswith(prefix):
            return note
    return _UNKNOWN_LICENCE


def state_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def plain_weights(path: Path) -> Iterator[Path]:
    """A weight file as safetensors: the file itself, or a temporary copy within the block.

    Open it before building the model, so that the weights are in memory only once.

    Raises:
        InputError: the file is unreadable, or holds anything but tensors.
    """
    if path.suffix == ".safetensors" and path.is_file():
        with _open_safetensors(path) as file:
            names = list(file.keys())
        _refuse_transformers(names, path)
        if not _prefix_of(names, path):
            yield path
            return
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory(prefix="taidpt-") as folder:
        copy = Path(folder) / "weights.safetensors"
        save_file(_unshared(read_state_dict(path)), copy)
        yield copy


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with separate memory, as safetensors needs; only shared ones are copied."""
    plain, seen = {}, set()
    for name, value in state.items():
        memory = value.untyped_storage().data_ptr()
        whole = value.is_contiguous() and value.nbytes == value.untyped_storage().nbytes()
        plain[name] = value if whole and memory not in seen else value.clone().contiguous()
        seen.add(memory)
    return plain


def load_weights(model: nn.Module, path: Path, name: Path | None = None) -> None:
    """Load a safetensors file into an open_clip model; all weights must match.

    Args:
        model: its weights are overwritten.
        path: the file, see `plain_weights`.
        name: the user's path, for errors.
    Raises:
        InputError: the file is unreadable, or not of this architecture.
    """
    try:
        if not _copy_one_by_one(model, path):
            _load_old_layout(model, path)
    except (RuntimeError, KeyError, AssertionError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(
            f"weights {name or path} do not fit this model: {reason}; name the model they were "
            "trained as"
        ) from error


def _copy_one_by_one(model: nn.Module, path: Path) -> bool:
    """Load a file of exactly the model's own weights; return False for any other, unchanged.

    The file is opened again for every weight: pages read through an open file count as memory in
    use.
    """
    own = model.state_dict()
    with _open_safetensors(path) as file:
        names = set(file.keys())
        shapes = {name: file.get_slice(name).get_shape() for name in names}
    if names != own.keys() or any(list(own[name].shape) != shapes[name] for name in names):
        return False
    with torch.no_grad():
        for name, value in own.items():
            with _open_safetensors(path) as file:
                value.copy_(file.get_tensor(name))
    return True


def _open_safetensors(path: Path) -> Any:
    from safetensors import safe_open

    try:
        return safe_open(path, "pt")
    except Exception as error:
        raise _unreadable(path, error) from error


def _load_old_layout(model: nn.Module, path: Path) -> None:
    """Load through open_clip, which converts older layouts; safetensors needs no unpickling."""
    from open_clip import load_checkpoint

    load_checkpoint(model, str(path), strict=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of a weight file: safetensors, `.pt` of plain tensors, TorchScript archive.

    Weights may be nested under `state_dict`, `model`, `model_state_dict` or `module`, and their
    names may share a prefix, such as `module.` (DDP), `model.` (Lightning) or `_orig_mod.`
    (torch.compile).

    Raises:
        InputError: missing, unreadable, or holding anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")
    try:
        state = _read_any(path)
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(state)[:6])) or "nothing"
        raise InputError(f"weights {path}: no tensors in it; it holds {keys}")
    _refuse_transformers(tensors, path)
    prefix = _prefix_of(tensors, path)
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _prefix_of(names: Iterable[str], path: Path) -> str:
    """What precedes the names of a CLIP's weights; "" for a file of another layout.

    Every CLIP has exactly one `logit_scale`, at the top of its names.
    """
    prefixes = [
        name.removesuffix(_ANCHOR)
        for name in names
        if name == _ANCHOR or name.endswith(f".{_ANCHOR}")
    ]
    if "" in prefixes or not prefixes:
        return ""
    if len(prefixes) > 1:
        raise InputError(
            f"weights {path}: holds several models, under {', '.join(sorted(prefixes)[:5])}; save "
            "one of them by itself"
        )
    return prefixes[0]


def _refuse_transformers(names: Iterable[str], path: Path) -> None:
    """Raise InputError for weights named as in Hugging Face's transformers."""
    if any("vision_model." in name or "text_model." in name for name in names):
        raise InputError(
            f"weights {path}: named as in transformers (vision_model, text_model), not as in "
            "open_clip; take open_clip_model.safetensors or open_clip_pytorch_model.bin of the "
            "same model"
        )


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    return InputError(
        f"weights {path}: cannot be read as tensors alone ({reason}); "
        "expected .safetensors, a .pt state dict, or OpenAI's archive"
    )


def _read_any(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    if is_torchscript_archive(path):
        return dict(_read_torchscript(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"weights {path}: cannot be read as tensors alone: other Python objects in it could "
            "run code; save model.state_dict() in place of the model"
        ) from None
    while isinstance(content, dict):
        nested = next((content[key] for key in _NESTED if isinstance(content.get(key), dict)), None)
        if nested is None:
            break
        content = nested
    if not isinstance(content, dict):
        raise InputError(f"weights {path}: a {type(content).__name__}, expected a state dict")
    return content


def is_torchscript_archive(path: Path) -> bool:
    """Whether the file is a TorchScript zip (OpenAI's originals are)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(root) as stream:
            tree = _TreeUnpickler(stream, archive, root.removesuffix("data.pkl")).load()
    # Not weights: sizes stored beside them, and the causal mask.
    skipped = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
    return {
        name: value for name, value in _flatten(tree, "") if name.rpartition(".")[2] not in skipped
    }


class _Module:
    """A node of the archive's module tree: attributes without behaviour."""

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes


def _flatten(node: Any, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in getattr(node, "attributes", {}).items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        elif isinstance(value, _Module):
            found.extend(_flatten(value, f"{prefix}{name}."))
    return found


_STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _TreeUnpickler(pickle.Unpickler):
    """Reads the module tree of a TorchScript archive and refuses any other class."""

    def __init__(self, stream: IO[bytes], archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch.jit._pickle", "build_intlist"): list,
            ("torch.jit._pickle", "build_doublelist"): list,
            ("torch.jit._pickle", "build_boollist"): list,
            ("torch.jit._pickle", "build_tensorlist"): list,
            ("torch.jit._pickle", "restore_type_tag"): _without_type_tag,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        raw = bytearray(self._archive.read(f"{self._root}data/{key}"))
        return torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _without_type_tag(value: Any, _: str) -> Any:
    return value
