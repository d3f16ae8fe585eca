"""The checkpoints that a configuration names."""

from __future__ import annotations

from pathlib import Path

from landscape.errors import ConfigurationError
from landscape.files import natural_order
from landscape.project.config import NAME, read_config
from landscape.project.settings import ProblemSettings
from landscape.project.text import shown

__all__ = ["configured_checkpoints"]


def configured_checkpoints(settings: ProblemSettings, start: Path) -> list[Path]:
    """What ``checkpoints`` in the configuration matches, numbers in the names in numeric order.

    That is files and Hugging Face directories.

    Raises:
        ConfigurationError: no configuration, none in it, or no such files.
    """
    config = read_config(Path(settings.config) if settings.config else None, start)
    if config is None or not config.checkpoints:
        where = f"{shown(config.path)} names none" if config else f"no {NAME} was found"
        raise ConfigurationError(
            "no checkpoint was given",
            found=where,
            do=f'name checkpoints, or write checkpoints = "runs/*.pt" into {NAME}',
        )
    found = {path for pattern in config.checkpoints for path in _matches(config.folder, pattern)}
    if not found:
        raise ConfigurationError(
            "no file matches the checkpoints of the configuration",
            found=f"{', '.join(map(shown, config.checkpoints))} in {shown(config.folder)}",
        )
    return sorted(found, key=natural_order)


def _matches(folder: Path, pattern: str) -> list[Path]:
    from landscape.checkpoint import is_directory

    path = Path(pattern).expanduser()
    if path.is_absolute():
        folder, pattern = Path(path.anchor), str(path.relative_to(path.anchor))
    return [found for found in folder.glob(pattern) if found.is_file() or is_directory(found)]
