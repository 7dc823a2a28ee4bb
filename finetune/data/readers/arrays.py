"""Arrays of numbers in files of NumPy and HDF5, which may hold several by name."""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import DataError
from finetune.utils.paths import require_regular

HDF5_SUFFIXES = (".h5", ".hdf5")
# One file of these kinds may hold image and depth of a frame.
ARCHIVE_SUFFIXES = (".npz", *HDF5_SUFFIXES)
ARRAY_SUFFIXES = (".npy", *ARCHIVE_SUFFIXES)
_AGAIN = "Write it again, or leave the frame out"
# What NumPy raises for damaged files, found by reading mutated ones: the header of .npy is a Python expression.
_BROKEN_ARRAYS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def is_array_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds arrays, by its ending: ``.npy``, ``.npz``, ``.h5`` or ``.hdf5``."""
    return str(path).lower().endswith(ARRAY_SUFFIXES)


def holds_several(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds more than one array; True for a damaged one, which reading it explains better."""
    try:
        if str(path).lower().endswith(HDF5_SUFFIXES):
            import h5py

            with h5py.File(path, "r") as file:
                return len(_list_datasets(file)) > 1
        with zipfile.ZipFile(path) as archive:
            return len(archive.namelist()) > 1
    except (ImportError, *_BROKEN_ARRAYS):
        return True


def list_arrays(path: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """
    Returns:
        Name -> shape and type of the arrays in a file whose ending ``is_array_file`` knows; the name is "" in ``.npy``.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        require_regular(path)
        if str(path).lower().endswith(HDF5_SUFFIXES):
            import h5py

            with h5py.File(path, "r") as file:
                return {name: (file[name].shape, file[name].dtype) for name in _list_datasets(file)}
        with Path(path).open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
            return {name: (array.shape, array.dtype) for name, array in arrays.items()}
    except (ImportError, AttributeError, *_BROKEN_ARRAYS):
        raise DataError(path, "cannot be read as arrays", _AGAIN) from None


def load_array(path: str | os.PathLike[str], names: Sequence[str], key: str | None = None) -> NDArray[np.generic]:
    """
    Args:
        path: a file whose ending ``is_array_file`` knows.
        names: of the array to take where a file holds several and no key is given, first the best.
        key: of the array to take; with slashes where it is in a group of HDF5.

    Returns:
        The array of a ``.npy``; of the others the one that ``key`` names, or the first of ``names`` that they have, or
        the only one.

    Raises:
        DataError: the file cannot be read, or it does not tell which array to take.
    """
    try:
        require_regular(path)
    except OSError as error:
        raise reading_error(path, error) from None
    try:
        if str(path).lower().endswith(HDF5_SUFFIXES):
            return _require_numbers(_load_hdf5(path, names, key), path)
        return _require_numbers(_load_numpy(path, names, key), path)
    except PermissionError as error:
        raise reading_error(path, error) from None
    except _BROKEN_ARRAYS:
        kind = "HDF5" if str(path).lower().endswith(HDF5_SUFFIXES) else "NumPy"
        raise DataError(path, f"is no {kind} file of numbers, or is truncated", _AGAIN) from None


def reading_error(path: str | os.PathLike[str], error: OSError) -> DataError:
    """The error for a file that the system does not open."""
    if isinstance(error, FileNotFoundError):
        return DataError(path, "does not exist", "Restore it, or correct its path")
    return DataError(path, f"cannot be read ({error.strerror})", "Make it a file that this user may read")


def choose_name(found: Sequence[str], names: Sequence[str], key: str | None, path: str | os.PathLike[str]) -> str:
    """
    Args:
        found: names of the arrays in a file.
        names, key: see ``load_array``.
        path: of the file, for the error.

    Raises:
        DataError: there is none of the name, or several and none of ``names``.
    """
    if not found:
        raise DataError(path, "holds no array", _AGAIN)
    listed = f"holds the arrays {', '.join(found)}"
    if key is not None:
        if key in found:
            return key
        raise DataError(path, f"{listed}, and depth_key is {key}", f"Set depth_key to one of them, such as {found[0]}")
    present = [name for name in names if name in found] or list(found)
    if len(present) == 1 or present[0] in names:
        return present[0]
    way_on = f"Name the one to read {names[0]}"
    raise DataError(path, listed, f"{way_on}, or set depth_key in pairs" if "depth" in names else way_on)


def _load_numpy(path: str | os.PathLike[str], names: Sequence[str], key: str | None) -> object:
    # Opened here, since NumPy would leave the file open if its archive is broken.
    with Path(path).open("rb") as file:
        # Pickled objects could run code when they are loaded.
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            if key is not None:
                raise unnamed_error(path, key)
            return loaded
        # NumPy gives other members of an archive, such as a note, as bytes.
        arrays = [name for name in loaded.files if f"{name}.npy" in loaded.zip.namelist()]
        return loaded[choose_name(arrays, names, key, path)]


def unnamed_error(path: str | os.PathLike[str], key: str) -> DataError:
    """The error for a ``depth_key`` where a file has one array without a name."""
    found = f"holds numbers without a name, and depth_key is {key}"
    return DataError(path, found, "Leave out depth_key; it is for .npz, .h5 and .exr")


def _load_hdf5(path: str | os.PathLike[str], names: Sequence[str], key: str | None) -> object:
    try:
        import h5py
    except ImportError:
        fix = "Run `pip install -e '.[hdf5]'` in the folder of this repository, or write depth as .npy"
        raise DataError(path, "is HDF5, and the package h5py is not installed", fix) from None
    with h5py.File(path, "r") as file:
        found = _list_datasets(file)
        wanted = None if key is None else key.strip("/")
        return np.asarray(file[choose_name(found, names, wanted, path)][...])


def _list_datasets(file: object) -> list[str]:
    """Names of the arrays of an open HDF5 file, with those in groups, as ``group/name``."""
    import h5py

    found: list[str] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2:  # numbers alone, such as a time stamp, are no map
            found.append(name)

    file.visititems(note)  # type: ignore[attr-defined]
    return found


def _require_numbers(array: object, path: str | os.PathLike[str]) -> NDArray[np.generic]:
    if not isinstance(array, np.ndarray):  # NumPy gives a member with damaged first bytes as bytes
        raise DataError(path, "is no NumPy file of numbers, or is truncated", _AGAIN)
    if not array.size:
        raise DataError(path, f"is an array of shape {array.shape}, without numbers", _AGAIN)
    return array
