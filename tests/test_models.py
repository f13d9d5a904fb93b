"""Models: what would be downloaded is said before it is, and a folder is read once."""

import os
import shutil
import subprocess
import sys

import pytest

from mlx_ssd import assets, models
from mlx_ssd.errors import BadInput
from mlx_ssd.sections import Model
from tests import faults, hub

NAME = "some/model"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files"
    shutil.copytree(assets.model_path(), path)  # its README.md is no part of a model
    (path / "pytorch_model.bin").write_bytes(b"0" * 10_000_000)  # nor are weights in another format
    return path


@pytest.fixture
def python(tmp_path):
    """Run code with models imported, against a hub, in a process of its own: the hub's address is read at import."""

    def run(code: str, endpoint: str = "http://127.0.0.1:9", offline: bool = False) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": str(int(offline)), "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        code = f"from mlx_ssd import models\nfrom mlx_ssd.sections import Model\n{code}"
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    return run


def model_files(folder):
    return {file.name: file.stat().st_size for file in folder.iterdir() if file.suffix in (".json", ".safetensors")}


def test_size_is_that_of_the_model_files_and_shrinks_as_they_come(folder, python):
    sizes = model_files(folder)
    size = f"print(models.download_bytes({NAME!r}, None))"
    with hub.serve(NAME, folder) as (address, fetched):
        process = python(size, address)
        assert process.stdout == f"{sum(sizes.values())}\n", process.stderr
        assert fetched == []
        # Planning needs config.json alone.
        process = python(f"print(models.read_config(Model(path={NAME!r}))['model_type'])", address)
        assert process.stdout == "qwen3\n", process.stderr
        assert fetched == ["config.json"]
        assert python(size, address).stdout == f"{sum(sizes.values()) - sizes['config.json']}\n"
        process = python(f"print(models.locate(Model(path={NAME!r})).revision)", address)
        assert process.stdout.splitlines()[-1] == hub.COMMIT, process.stderr
        assert sorted(fetched) == sorted(sizes)
        assert python(size, address).stdout == "0\n"
    # The same without a network, pinned or not.
    for revision in (None, hub.COMMIT):
        process = python(f"print(models.download_bytes({NAME!r}, {revision!r}))", offline=True)
        assert process.stdout == "0\n", process.stderr


def test_what_the_hub_does_not_give_is_bad_input(folder, python):
    refused = (
        "\ntry:\n    models.download_bytes('some/absent', None)\nexcept models.BadInput as error:\n    print(error)"
    )
    with hub.serve(NAME, folder) as (address, _):
        assert "some/absent is neither a folder here nor to be had from the hub" in python(refused, address).stdout
    for offline in (True, False):
        assert "check the name, the network" in python(refused, offline=offline).stdout


HUB_RAISES = """
import huggingface_hub
from huggingface_hub import errors
from huggingface_hub.errors import DryRunError, GatedRepoError

def refused():
    response = errors.Response(403)
    response._request = type("Request", (), dict(method="GET", url="http://hub"))()
    return response

def raises(*_, **__):
    {what}

huggingface_hub.snapshot_download = raises
try:
    models.locate(Model(path="some/model"))
except models.BadInput as error:
    print(error)
"""


@pytest.mark.parametrize(
    "what, says",
    [
        ("raise RuntimeError('Data processing error: CAS service')", "(Data processing error: CAS service); check"),
        ("class Strange(Exception): pass\n    raise Strange('peer closed it')", "(peer closed it); check"),
        ("raise OSError(28, 'No space left on device')", "no space left in "),
        ("raise PermissionError(13, 'Permission denied')", "no permission to write in "),
        (
            "raise DryRunError('outgoing traffic has been disabled') from "
            "GatedRepoError('403 Client Error', response=refused())",
            "(403 Client Error",
        ),
    ],
)
def test_whatever_stops_a_download_is_one_sentence(python, what, says):
    process = python(HUB_RAISES.format(what=what))
    assert says in process.stdout and process.stdout.count("\n") == 1, process.stderr
    assert ("set HF_HOME" in process.stdout) == ("write in" in says or "space" in says)


@pytest.fixture
def asked(monkeypatch):
    """What the user was asked; the model is 2,263,022,417 bytes that are not here."""
    monkeypatch.setattr(models, "download_bytes", lambda name, revision: 2_263_022_417)
    return []


def test_download_is_confirmed_with_its_size(asked):
    models.confirm_download(Model(path=NAME), lambda question: not asked.append(question))
    assert asked == ["some/model: 2.3 GB to download from the hub, once. Download?"]


def test_no_is_bad_input_and_so_is_nobody_to_ask(asked):
    with pytest.raises(BadInput, match="was not downloaded"):
        models.confirm_download(Model(path=NAME), lambda question: False)
    with pytest.raises(BadInput, match=r"2\.3 GB .* --yes"):
        models.confirm_download(Model(path=NAME), None)


def test_model_that_is_here_asks_nothing(asked, folder, monkeypatch):
    models.confirm_download(Model(), None)
    models.confirm_download(Model(path=str(folder)), None)
    monkeypatch.setattr(models, "download_bytes", lambda name, revision: 0)
    models.confirm_download(Model(path=NAME), None)


def test_folder_is_hashed_once_and_again_when_a_file_changes(folder, monkeypatch):
    hashed = []
    hash_path = models.hash_path
    monkeypatch.setattr(models, "hash_path", lambda path: hashed.append(path.name) or hash_path(path))
    models._hash_unchanged.cache_clear()
    model = Model(path=str(folder))
    first = models.locate(model).revision
    assert models.locate(model).revision == first
    assert sorted(hashed) == sorted(model_files(folder))
    hashed.clear()
    config = folder / "config.json"
    before = config.stat()
    config.write_text(config.read_text().replace("silu", "gelu"))  # the same size
    os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert models.locate(model).revision != first
    assert hashed == ["config.json"]


def test_config_of_a_folder(folder):
    assert models.read_config(Model(path=str(folder)))["hidden_size"] == 128
    assert models.read_config(Model())["hidden_size"] == 128


def test_mlx_alone_does_not_import_pytorch_which_can_be_imported_afterwards():
    pytest.importorskip("torch")
    code = """
import sys
from mlx_ssd import models
from mlx_ssd.sections import Model
models.without_pytorch()
model, tokenizer = models.load(models.locate(Model()), "float32")
assert tokenizer.decode(tokenizer.encode("def solve(xs):")) == "def solve(xs):"
assert "torch" not in sys.modules
import torch
assert torch.ones(2).sum().item() == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("engine", ["mlx", "torch"])
def test_a_stage_imports_pytorch_only_where_it_draws(engine, tmp_path):
    pytest.importorskip("torch")
    few = ("problems.train.limit=2", "sample.max_tokens=4", f"sample.engine={engine}")
    settings = [part for setting in few for part in ("--set", setting)]
    environment = faults.environment() | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = faults.run("sample", str(tmp_path / "run"), *settings, env=environment)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0 and "transformers" in imported
    assert ("torch" in imported) == (engine == "torch")


def test_a_folder_s_name_is_none_of_the_hub():
    assert models.is_hub_name("owner/name")
    assert not any(map(models.is_hub_name, ("my-model/", "./name", "/a/b", "~/model", "name", "a/b/c")))
