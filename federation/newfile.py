"""Why a file that a command was to make could not be made."""

from __future__ import annotations

from pathlib import Path

from federation.errors import FedsyncError


def exists_already(path: Path) -> FedsyncError:
    """Nothing of people's is written over."""
    return FedsyncError("the file exists already", "文件已存在", todo="换一个文件名 / choose another name", file=path)


def not_writable(path: Path, cause: OSError) -> FedsyncError:
    """What the system says of it."""
    return FedsyncError(
        f"the file cannot be written: {cause.strerror}",
        "无法写入文件",
        todo="检查路径与权限 / check path and rights",
        file=path,
    )
