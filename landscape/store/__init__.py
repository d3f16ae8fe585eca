"""Results on disk: HDF5 result files, the state of unfinished runs, and vectors as long as the model."""

from landscape.store.files import locked, os_errors
from landscape.store.partial import PartialFile
from landscape.store.resultfile import FORMAT_VERSION, Header, ResultFile, default_path, partial_path
from landscape.store.vectors import holds_vectors, read_vectors, write_vectors

__all__ = [
    "FORMAT_VERSION",
    "Header",
    "PartialFile",
    "ResultFile",
    "default_path",
    "holds_vectors",
    "locked",
    "os_errors",
    "partial_path",
    "read_vectors",
    "write_vectors",
]
