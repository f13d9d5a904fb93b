"""rstar_coder as it is published: parquet, of which what is needed is streamed from the hub."""

import builtins
import io
import os
import subprocess
import sys

import huggingface_hub
import pytest

from mlx_ssd.errors import BadInput, WorkFailed
from mlx_ssd.problems import rstar_coder, select_training
from mlx_ssd.sections import ProblemSource
from tests.problems.rows import judged, write_jsonl
from tests.problems.test_rstar_coder import EXACT, ROWS, source


@pytest.fixture
def copy(tmp_path_factory):
    """The same rows as JSON lines."""
    return write_jsonl(tmp_path_factory.mktemp("rstar") / "rows.jsonl", ROWS)


class Hub:
    """Of a HfFileSystem what is asked of it, over local files."""

    def __init__(self, *files, breaks_after=None):
        self.files, self.asked, self.breaks_after = {f.name: f for f in files}, [], breaks_after

    def __call__(self):
        return self

    def glob(self, pattern):
        self.asked.append(pattern)
        return sorted(self.files, reverse=True)

    def open(self, name, mode):
        opened, reads = open(self.files[name], mode), []

        class Line(io.RawIOBase):
            readable = seekable = lambda _: True
            seek, tell, close = opened.seek, opened.tell, opened.close

            def read(_, size=-1):
                reads.append(size)
                if self.breaks_after is not None and len(reads) > self.breaks_after:
                    raise OSError("connection reset")
                return opened.read(size)

        return Line()


class Counted(io.RawIOBase):
    """Counts what is read of another file."""

    readable = seekable = lambda _: True

    def __init__(self, other, sizes):
        self.seek, self.tell, self._other, self._sizes = other.seek, other.tell, other, sizes

    def read(self, size=-1):
        found = self._other.read(size)
        self._sizes.append(len(found))
        return found


class TestParquet:
    """Streaming, from local files and as from the hub."""

    @pytest.fixture
    def parquet(self, tmp_path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        def write(name: str, made: list[dict]):
            pq.write_table(pa.Table.from_pylist(made), tmp_path / name, row_group_size=16)
            return tmp_path / name

        return write

    @pytest.mark.parametrize("select", ["text", "passed"])
    def test_parquet_gives_what_jsonl_gives(self, parquet, copy, select):
        parquet("data-00000-of-00002.parquet", ROWS[:90])
        folder = parquet("data-00001-of-00002.parquet", ROWS[90:]).parent
        assert select_training(source(folder, select=select), judged()) == select_training(
            source(copy, select=select), judged()
        )

    def test_reading_stops_once_enough_are_selected(self, parquet):
        folder = parquet("0.parquet", ROWS[:50]).parent
        (folder / "1.parquet").write_text("broken")
        assert select_training(source(folder, limit=20), judged())[1]["rows"] == 20
        with pytest.raises(BadInput, match=r"cannot read .*1\.parquet"):
            select_training(source(folder), judged())

    def test_missing_column(self, parquet):
        made = [{key: value for key, value in row.items() if key != "question"} for row in ROWS]
        with pytest.raises(BadInput, match="has no column question"):
            select_training(source(parquet("x.parquet", made)), [])

    def test_wrong_type(self, parquet):
        made = [{**row, "is_passed": int(row["is_passed"])} for row in ROWS]
        with pytest.raises(BadInput, match="row 1: is_passed is 0, not a bool"):
            select_training(source(parquet("x.parquet", made), select="passed"), [])

    @pytest.mark.parametrize("select", ["text", "passed"])
    def test_the_hub_is_streamed_at_its_revision(self, parquet, copy, monkeypatch, select):
        hub = Hub(parquet("0.parquet", ROWS[:90]), parquet("1.parquet", ROWS[90:]))
        monkeypatch.setattr(huggingface_hub, "HfFileSystem", hub)
        found = select_training(ProblemSource(source="rstar_coder", select=select, revision="abc123"), judged())
        assert found[1]["kept"] == EXACT[select, 13]["kept"]
        assert hub.asked == ["datasets/microsoft/rStar-Coder@abc123/seed_sft/*.parquet"]
        assert found[0] == select_training(source(copy, select=select), judged())[0]  # in the order of the files' names

    def test_the_responses_are_not_fetched(self, parquet, monkeypatch):
        """They are most of a file."""
        made = [{**row, "response": os.urandom(20_000).hex()} for row in ROWS[:40]]
        file, fetched = parquet("0.parquet", made), []
        hub = Hub(file)
        opened = hub.open
        monkeypatch.setattr(hub, "open", lambda *given: Counted(opened(*given), fetched))
        monkeypatch.setattr(huggingface_hub, "HfFileSystem", hub)
        select_training(ProblemSource(source="rstar_coder"), [])
        assert 0 < sum(fetched) < file.stat().st_size / 10

    def test_a_stream_that_breaks_off_is_failed_work_and_a_damaged_file_bad_input(self, parquet, monkeypatch, tmp_path):
        hub = Hub(parquet("0.parquet", ROWS))
        monkeypatch.setattr(huggingface_hub, "HfFileSystem", hub)
        monkeypatch.setattr(rstar_coder, "BATCH", 7)
        hub.breaks_after = 8  # reads: what describes the file, and the first group of rows
        with pytest.raises(WorkFailed, match=r"broke off after \d+ rows \(connection reset\)"):
            select_training(ProblemSource(source="rstar_coder"), [])
        assert len(select_training(ProblemSource(source="rstar_coder", limit=7), [])[0]) == 7
        hub.files = {}
        with pytest.raises(BadInput, match=r"cannot read hf://.* \(no such file on the hub\); check the network"):
            select_training(ProblemSource(source="rstar_coder"), [])
        (tmp_path / "0.parquet").write_bytes(b"")
        with pytest.raises(BadInput, match=r"cannot read .*0\.parquet \(.*\); restore the file"):
            select_training(source(tmp_path), [])

    def test_left_before_its_end_it_leaves_nothing_that_reads_on(self, parquet, tmp_path):
        """An interpreter that ended while threads read through it aborted."""
        file = parquet("0.parquet", ROWS)
        code = (
            "import io, time, huggingface_hub\n"
            "from mlx_ssd.problems import rstar_coder\n"
            "class Slow(io.FileIO):\n"
            "    def read(self, *given): time.sleep(0.2); return super().read(*given)\n"
            "class Hub:\n"
            "    def glob(self, pattern): return ['x']\n"
            f"    def open(self, *given): return Slow({str(file)!r})\n"
            "huggingface_hub.HfFileSystem = Hub\n"
            "for where, row in rstar_coder._parquet_rows('hf://x', 'train', ['question']): break\n"
            "print(where)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "hf://x, row 1\n"), done.stderr

    def test_no_network(self):
        code = (
            "from mlx_ssd.problems import read_problems\n"
            "from mlx_ssd.sections import ProblemSource\n"
            "from mlx_ssd.errors import BadInput\n"
            "try: read_problems(ProblemSource(source='rstar_coder'), 'train')\n"
            "except BadInput as error: print(error)\n"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert "cannot read hf://datasets/microsoft/rStar-Coder@" in done.stdout, done.stderr
        assert "check the network" in done.stdout and done.stdout.count("\n") == 1


def test_without_the_package_pyarrow(monkeypatch, tmp_path, copy):
    real = builtins.__import__

    def refuse(name, *args):
        if name == "pyarrow.parquet":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "x.parquet").write_text("")
    with pytest.raises(BadInput, match="`pip install pyarrow`"):
        select_training(source(tmp_path), [])
    assert select_training(source(copy), judged())[1]["kept"] == 131  # a copy in JSONL needs no package
