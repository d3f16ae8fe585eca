"""Which kind of file it is, told from its content, and whether its bytes are intact. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from landscape.checkpoint.text import listing, plural, shown
from landscape.errors import CheckpointError

__all__ = ["CONFIG", "Source", "damaged", "identify", "is_directory", "stamp"]

#: The file that makes a folder a Hugging Face directory.
CONFIG = "config.json"

#: First bytes of files that people point at by mistake.
_OTHERS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (a result file of landscape, or Keras weights)",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive (unpack it first)",
    b"BZh": "a bzip2 archive (unpack it first)",
    b"\xfd7zXZ": "an xz archive (unpack it first)",
    b"\x28\xb5\x2f\xfd": "a zstd archive (unpack it first)",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF model",
    b"\x7fELF": "a program",
    b"version https://git-lfs": "a Git LFS pointer (run git lfs pull to get the file itself)",
    b"<": "HTML or XML text (a download page?)",
}
#: Magic number that opens a legacy torch.save file, as a pickled integer (torch.serialization.MAGIC_NUMBER).
_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
#: Longest safetensors header the format allows (100 MB), and the longest shard index read.
_MAX_HEADER = 100_000_000
#: Most bytes that the compressed source code in a program archive may unpack to.
_MAX_SOURCE_CODE = 100_000_000
_ZIP_ENCRYPTED = 0x1
#: Bytes that text does not hold.
_BINARY = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


@dataclass(frozen=True)
class Source:
    """A file that was recognised and checked.

    ``format`` is one of ``pytorch``, ``pytorch-legacy``, ``pytorch-tar``, ``torchscript``, ``torch-export``,
    ``pickle``, ``safetensors``, ``index`` (a list of shards). ``checksums`` says whether the format's own
    checksums were there and right; ``root`` is the folder inside a zip archive; ``weight_map`` the index's
    names and shards, and ``shards`` its files by name. ``stamp`` changes when the file is written to.
    """

    path: Path
    format: str
    size: int
    sha256: str
    checksums: bool = False
    root: str = ""
    weight_map: tuple[tuple[str, str], ...] = ()
    shards: tuple[Source, ...] = ()
    stamp: tuple[int, ...] = ()


def damaged(path: Path, found: str) -> CheckpointError:
    """The error for a file that is what it should be, but broken."""
    return CheckpointError(
        f"{shown(path)} is damaged or truncated", found=found, do="copy or download it again"
    )


def identify(path: str | Path) -> Source:
    """Recognise ``path`` by its content, check what can be checked and hash it.

    Raises:
        CheckpointError: missing, a folder, empty, no checkpoint, damaged, or with shards elsewhere.
    """
    path = Path(path)
    _require_file(path)
    try:
        before = stamp(path)
        return replace(_identify(path), stamp=before)
    except OSError as error:
        raise CheckpointError(f"cannot read {shown(path)}", found=shown(error.strerror or error)) from error


def is_directory(path: str | Path) -> bool:
    """Whether ``path`` is a folder with a ``config.json``, so to be read as one checkpoint."""
    try:
        return (Path(path) / CONFIG).is_file()
    except (OSError, ValueError):
        return False


def stamp(path: Path) -> tuple[int, ...]:
    """Which file it is and when it was last written to; empty if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _require_file(path: Path) -> None:
    try:
        if path.is_file():
            return
        if path.is_dir():
            known = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".safetensors.index.json")
            inside = sorted(p.name for p in path.iterdir() if p.name.endswith(known) or is_directory(p))
            raise CheckpointError(
                f"{shown(path)} is a folder, not a checkpoint",
                found=listing(inside) if inside else "no checkpoint in it",
                do="name one of these" if inside else "",
            )
        if path.exists():
            raise CheckpointError(f"{shown(path)} is not a regular file", do="name a checkpoint file")
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {shown(path)}", found=shown(error)) from error
    close = get_close_matches(path.name, names, n=3)
    raise CheckpointError(
        f"there is no file {shown(path)}",
        found=f"in that folder: {listing(close)}" if close else "",
        do="" if folder.is_dir() else f"there is no folder {shown(folder)} either: check the path",
    )


def _identify(path: Path) -> Source:
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{shown(path)} is empty", do="save the checkpoint again, or name another")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return _identify_zip(path, size)
    if _LEGACY_MAGIC in head[:32]:
        return Source(path, "pytorch-legacy", size, _sha256(path))
    if len(head) > 8 and head[8:9] == b"{":
        return _identify_safetensors(path, size, head)
    if head[257:262] == b"ustar" or _is_legacy_tar(path):
        return _identify_tar(path, size)
    if head.lstrip()[:1] == b"{":
        return _identify_index(path, size)
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return Source(path, "pickle", size, _sha256(path))
    raise _not_a_checkpoint(path, head)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_a_checkpoint(path: Path, head: bytes) -> CheckpointError:
    kind = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), "")
    if not kind:
        text = head.decode(errors="replace")
        # The head may end inside a character.
        printable = text.count("\N{REPLACEMENT CHARACTER}") <= 1 and not set(head) & _BINARY
        kind = (
            f"text that begins with {text[:40]!r}"
            if printable
            else f"bytes that begin with {head[:8].hex(' ')}"
        )
    if path.name.endswith(".safetensors"):
        kind += ", no safetensors header"
    return CheckpointError(
        f"{shown(path)} is not a checkpoint",
        found=kind,
        do="name a file written by torch.save or safetensors",
    )


def _identify_zip(path: Path, size: int) -> Source:
    """Recognise a zip archive and read each member against its CRC."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            format, root = _zip_format(path, [m.filename for m in members])
            _refuse_odd_members(path, members, programs=format != "pytorch")
            # torch.serialization.set_crc32_options(False) writes zeros: nothing to compare with.
            checksums = any(m.CRC for m in members if m.file_size)
            for member in members if checksums else ():
                with archive.open(member) as file:
                    while file.read(1 << 20):
                        pass
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise damaged(path, f"zip archive: {shown(error)}") from error
    return Source(path, format, size, _sha256(path), checksums=checksums, root=root)


def _refuse_odd_members(path: Path, members: list[zipfile.ZipInfo], programs: bool) -> None:
    """torch.save writes each member once, stored as it is (``programs`` packs source code): all else is
    damage, or made to deceive."""
    repeated = [name for name, count in Counter(m.filename for m in members).items() if count > 1]
    if repeated:
        raise damaged(path, f"members that occur twice: {listing(repeated)}")
    compressed = [m for m in members if m.compress_type != zipfile.ZIP_STORED]
    packed = [m.filename for m in compressed]
    if packed and not (programs and sum(m.file_size for m in compressed) <= _MAX_SOURCE_CODE):
        raise CheckpointError(
            f"{shown(path)} is a compressed zip archive, which no torch.save writes",
            found=f"{plural(len(packed), 'compressed member')}: {listing(packed, 2)}",
            do="unpack it if a checkpoint is inside, or save it again with torch.save",
        )
    if any(m.flag_bits & _ZIP_ENCRYPTED for m in members):
        raise damaged(path, "zip archive: members marked as encrypted")


def _zip_format(path: Path, names: list[str]) -> tuple[str, str]:
    root = names[0].partition("/")[0] + "/" if names and "/" in names[0] else ""
    inside = {name.removeprefix(root) for name in names}
    if "constants.pkl" in inside:
        return "torchscript", root
    if inside & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
        return "torch-export", root
    if "data.pkl" in inside:
        return "pytorch", root
    kind = "NumPy arrays (.npz)" if all(n.endswith(".npy") for n in names) else listing(names, 3)
    raise CheckpointError(
        f"{shown(path)} is a zip archive but not a checkpoint",
        found=kind or "no members",
        do="name a file written by torch.save or safetensors",
    )


def _identify_safetensors(path: Path, size: int, head: bytes) -> Source:
    length = int.from_bytes(head[:8], "little")
    if length > min(size - 8, _MAX_HEADER):
        raise damaged(path, f"a header of {length} bytes announced in a file of {size}")
    return Source(path, "safetensors", size, _sha256(path))


def _is_legacy_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, ValueError, EOFError):
        return False


def _identify_tar(path: Path, size: int) -> Source:
    try:
        with tarfile.open(path, "r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, ValueError, EOFError, OSError) as error:
        raise damaged(path, f"tar archive: {shown(error)}") from error
    if "pickle" not in {name.removeprefix("./") for name in names}:
        raise CheckpointError(
            f"{shown(path)} is a tar archive but not a checkpoint",
            found=listing(names, 3),
            do="unpack it and name the checkpoint inside",
        )
    return Source(path, "pytorch-tar", size, _sha256(path))


def _identify_index(path: Path, size: int) -> Source:
    """Recognise the index of a sharded checkpoint, and its shards."""
    if size > _MAX_HEADER:
        raise _not_a_checkpoint(path, b"")
    raw = path.read_bytes()
    try:
        index = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"JSON: {shown(error)}") from error
    entries = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise CheckpointError(
            f"{shown(path)} is JSON, but not the index of a sharded checkpoint",
            found="no weight_map in it",
            do="name the .index.json file, or a checkpoint",
        )
    names = list(entries.values())
    bad = [n for n in names if not _is_bare_name(n)]
    if bad:
        raise CheckpointError(
            f"{shown(path)} names shards that are no bare file names, so it was not followed",
            found=listing(dict.fromkeys(map(str, bad))),
            do="shards must lie beside the index",
        )
    shards = tuple(_shard(path, name) for name in sorted(set(names)))
    digest = hashlib.sha256(raw)
    for shard in shards:
        digest.update(f"{shard.path.name}\0{shard.sha256}\n".encode())
    total = size + sum(shard.size for shard in shards)
    checksums = all(shard.checksums for shard in shards)
    return Source(path, "index", total, digest.hexdigest(), checksums, "", tuple(entries.items()), shards)


def _is_bare_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not set(name) & set("/\\:\0")
        and Path(name).name == name
    )


def _shard(index: Path, name: str) -> Source:
    """One shard. It lies beside the index, or where the index's own link leads (a download cache)."""
    path = index.parent / name
    folders = {index.parent.resolve(), index.resolve().parent}
    if path.is_symlink() and path.resolve().parent not in folders:
        raise CheckpointError(
            f"shard {shown(name)} of {shown(index)} is a link out of its folder, so it was not followed",
            found=shown(path.resolve()),
            do="copy the shard beside the index",
        )
    shard = identify(path)
    if shard.format == "index":
        raise CheckpointError(f"shard {shown(name)} of {shown(index)} is itself an index")
    return shard
