"""Files of a sandbox: whole or not at all, and gone at the end."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from mlx_ssd.grading.files import remove_tree


def test_a_module_is_compiled_whole_or_not_at_all(tmp_path):
    """Under a limit on the size of files, which stands for a full disk."""
    source = tmp_path / "module.py"
    source.write_text("x = 1\n" + "\n".join(f"def f{i}(): return {i}" for i in range(200)))
    compiled = Path(importlib.util.cache_from_source(str(source)))
    command = [sys.executable, "-c", f"from mlx_ssd.grading.files import compile_whole; compile_whole({str(source)!r})"]
    subprocess.run(["sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *command], check=True)
    assert not compiled.exists() and not list(compiled.parent.glob("*"))
    subprocess.run(command, check=True)
    before, whole = compiled.stat().st_mtime_ns, compiled.read_bytes()
    subprocess.run(command, check=True)
    assert compiled.stat().st_mtime_ns == before
    compiled.write_bytes(whole[:4000])  # as another program may have left it
    subprocess.run(command, check=True)
    assert compiled.read_bytes() == whole
    source.write_text("x = 2\n")
    subprocess.run(command, check=True)
    assert compiled.read_bytes() != whole and [path.name for path in compiled.parent.iterdir()] == [compiled.name]


def test_remove_tree(tmp_path):
    top = tmp_path / "top"
    deep = top
    (top / "locked").mkdir(parents=True)
    (top / "locked" / "file").write_text("x")
    (top / "link").symlink_to(tmp_path)
    (tmp_path / "kept").write_text("x")
    for _ in range(20):
        deep = deep / "directory"
        deep.mkdir()
    (deep / "file").write_text("x")
    (top / "locked").chmod(0)
    remove_tree(str(top))
    assert not top.exists() and (tmp_path / "kept").exists()
