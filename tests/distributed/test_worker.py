"""What ends a worker before it draws, each with one sentence; and the command line around it."""

import socket
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner

from mlx_ssd.cli import main
from mlx_ssd.distributed import address
from mlx_ssd.distributed.address import address_of
from mlx_ssd.distributed.worker import Settings, work
from mlx_ssd.errors import BadInput, WorkFailed
from tests import faults
from tests.distributed.fake import SECRET, Run
from tests.distributed.ranks import free_port


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setenv(address.SECRET, SECRET.decode())


def settings(port, wait=5.0, **others):
    usual = {"model": None, "memory_gb": None, "rows": None, "yes": False}
    return Settings(address=("127.0.0.1", port), wait_seconds=wait, **usual | others)


def test_where_no_run_ever_lets_workers_in_it_ends_after_its_time():
    with pytest.raises(WorkFailed, match="no run has let workers in at 127.0.0.1:.*--workers-at"):
        work(settings(free_port(), wait=0.2))


def test_another_secret_ends_it(monkeypatch):
    run = Run(5)
    monkeypatch.setenv(address.SECRET, "another secret, as long")
    with pytest.raises(BadInput, match="the same MLX_SSD_SECRET on both"):
        work(settings(run.port))
    run.start().check()


def test_another_model_ends_it_before_it_is_loaded_and_the_run_is_told(capsys):
    run = Run(5, revision="other")
    with pytest.raises(BadInput, match="is another one here .*than the run's .other.*--model"):
        work(settings(run.port))
    run.start().check()
    assert "cannot help: the model embedded is another one here" in capsys.readouterr().err


def test_a_model_that_is_not_here_ends_it():
    run = Run(5)
    with pytest.raises(BadInput, match="no folder '/nowhere/x'"):
        work(settings(run.port, model="/nowhere/x"))
    run.start().check()


def test_an_adapter_that_is_not_what_the_job_named_is_not_used(tmp_path):
    (tmp_path / "adapters.safetensors").write_bytes(b"0" * 5000)
    run = Run(5, adapter=tmp_path)
    (tmp_path / "adapters.safetensors").write_bytes(b"1" * 5000)  # as if changed on its way
    with pytest.raises(WorkFailed, match="no run has let"):
        work(settings(run.port, wait=0.0))
    run.start().check()


def test_something_else_that_listens_there_is_waited_out(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(WorkFailed, match="no run"):
        threading.Thread(target=lambda: other.accept()[0].sendall(b"220 smtp\n"), daemon=True).start()
        work(settings(other.getsockname()[1], wait=0.0))


@pytest.mark.parametrize(
    "text, found",
    [
        ("mac.local:7070", ("mac.local", 7070)),
        ("7070", ("0.0.0.0", 7070)),
        ("[::1]:70", ("::1", 70)),
        (":9", ("0.0.0.0", 9)),
    ],
)
def test_addresses(text, found):
    assert address_of(text, "x") == found


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:65536", "host:7x", "host:-1"])
def test_no_addresses(text):
    with pytest.raises(BadInput, match="HOST:PORT"):
        address_of(text, "x")


def test_the_commands_say_what_is_missing_in_one_sentence(tmp_path):
    run = ["run", "quickstart", "--out", str(tmp_path / "run")]
    env = faults.environment()
    for arguments, secret, said in (
        ([*run, "--workers-at", "x"], SECRET.decode(), "--workers-at x: write it as HOST:PORT"),
        ([*run, "--workers-at", "127.0.0.1:7070"], "", "MLX_SSD_SECRET is not set"),
        (["work", "127.0.0.1:7070"], "short", "MLX_SSD_SECRET is shorter than 16 characters"),
        (["work", "x"], SECRET.decode(), "work x: write it as HOST:PORT"),
    ):
        ended = faults.run(*arguments, env=env | {address.SECRET: secret})
        assert ended.returncode == 2 and said in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert not (tmp_path / "run").exists()


def test_the_command_imports_no_array_library():
    code = "import mlx_ssd.distributed.working, mlx_ssd.distributed.sharing, mlx_ssd.distributed.coordinator, sys\n"
    code += "assert not {'mlx', 'mlx_lm', 'transformers', 'torch'} & {name.split('.')[0] for name in sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("option", ["--wait", "--memory-gb"])
@pytest.mark.parametrize("number, said", [("inf", "inf is not in the range"), ("nan", "nan is not a number between 0")])
def test_numbers_that_are_none_are_refused(option, number, said, monkeypatch):
    monkeypatch.setattr("mlx_ssd.distributed.working.supervised", lambda settings: None)
    ended = CliRunner().invoke(main, ["work", "127.0.0.1:7070", option, number])
    assert ended.exit_code == 2 and f"Error: Invalid value for '{option}': {said}" in ended.output
