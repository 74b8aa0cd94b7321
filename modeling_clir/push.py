"""
Uploads a finished checkpoint or export, or a corpus with --dataset, to the Hub.

    python -m modeling_clir.push FOLDER REPO [--private] [--revision BRANCH] [--dataset]

REPO is OWNER/NAME, or NAME for an account's own. The folder is checked first. Everything is one commit: the repository
has all files of the folder or none, and the files in the folder stay as they are. What was broken off is done again by
the same command. Checkpoints, folds, optimizer states and settings (which hold local paths) are left out. Examples in
the uploaded card name the repository, and a tag of its files as their `revision`.
"""

import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from .data.files import list_files, read_json, read_text
from .data.languages import card_languages, languages_of
from .licenses import LICENSES
from .names import missing_path
from .program import Parser, run_program


# Files and folders of an output folder that are not part of the model or hold more than others should see:
# training_args.bin is a pickle with the token and local paths, emissions.csv has the place of the machine.
LEFT_OUT = (
    *("checkpoint-*", "epoch-*", "fold-*", "final", "transfer", "runs", "*.damaged", "*.unfinished"),
    *("training_args.bin", "optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "settings.json", "manifest.json"),
    "emissions.csv",
)
# Files of an earlier commit that would mix with the new ones: they go in the same commit if the folder lacks them.
REPLACED = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.onnx", "*.onnx.data"),
    *("openvino_model.xml", "*.py", "*.parquet", "*.run"),
)
GENERATED = ("last-checkpoint/*", "onnx/*", "openvino/*")  # not written by the runners: stay
WEIGHTS, GRAPH = "model.safetensors", "model.onnx"


# ---------------------------------------------------------------------------------------------------------------------
# The folder
# ---------------------------------------------------------------------------------------------------------------------


def files_to_push(folder: Path) -> dict[str, Path]:
    """Lists the files to upload: path in the repository to file. Results in `.eval_results` are among them."""
    paths = [*list_files(folder), *folder.glob(".eval_results/*.yaml")]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: path
        for name, path in names.items()
        if not any(fnmatch(part, pattern) for part in name.split("/") for pattern in LEFT_OUT)
    }


def check_folder(folder: Path, dataset: bool):
    """
    Checks that a folder is a finished checkpoint or export or, with `dataset`, a corpus, with a card. Reads no weights,
    but an export's graph.

    Raises `FileNotFoundError` without the folder. Raises `ValueError` for a missing or cut file, a folder of the other
    kind, and a card that the Hub would refuse. Raises `ImportError` for an export without the package onnx.
    """
    if not folder.is_dir():
        raise FileNotFoundError(missing_path(folder))
    is_corpus = (folder / "sections").is_dir()
    if is_corpus != dataset and (is_corpus or (folder / "config.json").is_file()):
        advice = "add --dataset" if is_corpus else "leave out --dataset"
        raise ValueError(f"{folder} is a {'corpus' if is_corpus else 'checkpoint'}: {advice}")
    (check_corpus if dataset else check_model)(folder)
    check_card(folder / "README.md")


def check_model(folder: Path):
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no checkpoint, it has no config.json{unfinished(folder)}")
    index, weights = folder / f"{WEIGHTS}.index.json", [WEIGHTS]
    if index.is_file():
        weights = sorted(set(read_json(index)["weight_map"].values()))
    elif is_export([path.name for path in folder.iterdir()]):
        check_graphs(folder)
        weights = []
    for name in weights:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no weights, {name}{unfinished(folder)}")
        check_tensors(folder / name)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")):
        raise ValueError(f"{folder} has no tokenizer: save the model's own there")
    auto_map = (read_json(folder / "config.json").get("auto_map") or {}).values()
    modules = {target.split(".")[0] for target in auto_map if "--" not in target}
    for path in folder.glob("*.py"):
        modules |= set(re.findall(r"^from \.(\w+) import", read_text(path), re.MULTILINE))
    if missing := sorted(name for name in modules if not (folder / f"{name}.py").is_file()):
        raise ValueError(f"{folder} has no {missing[0]}.py, which its code needs: save the model again")


def unfinished(folder: Path) -> str:
    """Says what to do about a folder in which a training has not ended, or has left no single model."""
    if list(folder.glob("fold-*")):
        return ": it has a model of each fold; train one on all queries with run_clir.py --final_model"
    if list(folder.glob("checkpoint-*")):
        return ": its training is not finished, give the same command again"
    return ""


def is_export(files: Collection[str]) -> bool:
    """Tells by the names of a folder's files whether it holds a graph in place of weights."""
    return GRAPH in files and not any(name.startswith(("model.safetensors", "pytorch_model.bin")) for name in files)


def check_graphs(folder: Path):
    """Raises `ValueError` for a damaged ONNX graph, and if a file of its weights or of OpenVINO's is missing."""
    from .export import require

    require("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    try:
        onnx.checker.check_model(folder / GRAPH)
    except (DecodeError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise ValueError(f"{folder / GRAPH} is damaged ({reason}): export it again") from None
    openvino = folder / "openvino_model.xml"
    if openvino.is_file() and not openvino.with_suffix(".bin").is_file():
        raise ValueError(f"{folder} has no openvino_model.bin: export it again")


def check_tensors(path: Path):
    """Raises `ValueError` for a file of safetensors that is shorter or longer than its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length <= size else None
        except ValueError:
            header = None
    if header is not None:
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    if header is None or 8 + length + max(ends, default=0) != size:
        raise ValueError(f"{path} is damaged, its {size} bytes are not what its header says: save the model again")


def check_corpus(folder: Path):
    for kind in ("sections", "pairs"):
        if not list((folder / kind).rglob("*.parquet")):
            raise ValueError(f"{folder} is no corpus, it has no {kind}: build it with scripts/build_corpus.py")
    for path in list_files(folder):
        if path.suffix == ".parquet":
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 4))
                if file.read() != b"PAR1":
                    raise ValueError(f"{path} is cut: build the corpus again")


def card_metadata(path: Path) -> dict:
    """Reads the metadata of a card. Raises `ValueError` if there is none or if it is no mapping in YAML."""
    import yaml

    if not path.is_file():
        raise ValueError(f"{path.parent} has no card, README.md: run its program to the end, or write one")
    found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", read_text(path), re.DOTALL)
    if found is None:
        raise ValueError(f"{path} is no card: it must begin with metadata between two lines of ---")
    try:
        metadata = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: its metadata is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: its metadata must be lines of the form 'name: value'")
    return metadata


def check_card(path: Path):
    metadata = card_metadata(path)
    languages = languages_of(metadata.get("language"))
    if refused := [code for code in languages if code not in card_languages(languages)]:
        raise ValueError(f"{path}: the Hub does not accept the language {', '.join(refused)}: write codes of ISO 639")
    licenses = metadata.get("license") or []
    licenses = licenses if isinstance(licenses, list) else [licenses]
    if unknown := [license for license in map(str, licenses) if license not in LICENSES]:
        raise ValueError(f"{path}: the Hub does not know the license {unknown[0]!r}: see --license of the runners")


def pin_snippets(card: str, name: str, repo: str, tag: str) -> str:
    """Makes the Python examples of a card name the repository and the tag in place of the local `name`."""

    pinned = f'"{repo}", revision="{tag}"'

    def pin(block: re.Match) -> str:  # pipeline("task", model="name"): a name may be that of the task
        return re.sub(rf'"{re.escape(name)}"(?!, (revision|model)=)', lambda _: pinned, block[0])

    return re.sub(r"^```python\n.*?^```$", pin, card, flags=re.DOTALL | re.MULTILINE)


# ---------------------------------------------------------------------------------------------------------------------
# The Hub
# ---------------------------------------------------------------------------------------------------------------------


def check_access(repo: str, token: str | None = None) -> str:
    """
    Asks the Hub whether the token may write to `repo`, before hours of training. Returns `owner/name`.

    Raises `ValueError` for a name that cannot be, without a token, and for a token that the Hub does not accept, that
    only reads, or that belongs to others.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is no name of a repository, which is OWNER/NAME: {error}") from None
    token = token or get_token()
    if not token:
        raise ValueError("there is no token of the Hub: set HF_TOKEN to one that may write, or run hf auth login")
    with explained(repo):
        user = HfApi().whoami(token)
    owners = {user["name"], *(one["name"] for one in user.get("orgs", []))}
    access = user.get("auth", {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise ValueError(f"the Hub's token of {user['name']} only reads: make one that may write")
    owner, _, name = repo.rpartition("/")
    if owner and owner not in owners:
        raise ValueError(
            f"{repo}: the token is that of {user['name']}, who does not belong to {owner}: name a repository of "
            f"{', '.join(sorted(owners))}"
        )
    return f"{owner or user['name']}/{name}"


def push(
    folder: Path,
    repo: str,
    private: bool = False,
    revision: str | None = None,
    dataset: bool = False,
    token: str | None = None,
) -> str:
    """
    Uploads a checkpoint or corpus in one commit, see the top of this file.

    Args:
        folder (`Path`): a finished checkpoint or corpus, with its card.
        repo (`str`): `owner/name`, or `name`.
        private (`bool`, defaults to `False`): create a private repository.
        revision (`str`, *optional*): branch; made from the main branch if there is none.
        dataset (`bool`, defaults to `False`): the folder is a corpus.
        token (`str`, *optional*): defaults to `HF_TOKEN` or that of `hf auth login`.

    Returns the address of the commit. Raises `ValueError` if the folder is not whole, if the token may not write, if
    `repo` holds something else, and for what the Hub refuses; nothing is committed then.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_folder(folder, dataset)
    repo, kind = check_access(repo, token), "dataset" if dataset else "model"
    files = files_to_push(folder)
    api = HfApi(token=token)
    with explained(repo):
        api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True)
        info = api.repo_info(repo, repo_type=kind)
    if private and not info.private:
        raise ValueError(
            f"{repo} is there already and public: make it private in its settings, or leave out --private"
        )
    with explained(repo):
        if revision:
            api.create_branch(repo, branch=revision, repo_type=kind, exist_ok=True)
            info = api.repo_info(repo, repo_type=kind, revision=revision)
    there = {sibling.rfilename for sibling in info.siblings or []}
    check_same_kind(api, repo, info.sha, there, folder, dataset)

    additions = [CommitOperationAdd(name, path) for name, path in sorted(files.items()) if name != "README.md"]
    digests = "".join(f"{one.path_in_repo} {one.upload_info.sha256.hex()}\n" for one in additions)
    tag = f"files-{hashlib.sha256(digests.encode()).hexdigest()[:12]}"
    card = read_text(folder / "README.md")
    title = re.search(r"^# (.+)$", card, re.MULTILINE)
    card = pin_snippets(card, title[1].strip() if title else folder.resolve().name, repo, tag)
    old = [
        CommitOperationDelete(name)
        for name in sorted(there - files.keys())
        if any(fnmatch(name, pattern) for pattern in REPLACED) and not any(fnmatch(name, own) for own in GENERATED)
    ]
    with explained(repo, bars=True):
        commit = api.create_commit(
            repo,
            [CommitOperationAdd("README.md", card.encode()), *additions, *old],
            commit_message=f"Upload {folder.resolve().name} with modeling_clir",
            repo_type=kind,
            revision=revision,
            parent_commit=info.sha,
        )
    with explained(repo, committed=commit.oid):
        api.create_tag(repo, tag=tag, revision=commit.oid, repo_type=kind, exist_ok=True)
    return commit.commit_url


def check_same_kind(api, repo: str, commit: str, there: set[str], folder: Path, dataset: bool):
    """Raises `ValueError` if a repository holds files, but not an earlier version of this model or corpus."""
    if there <= {".gitattributes", "README.md"}:
        return
    if dataset:
        if not any(name.startswith("sections/") for name in there):
            raise ValueError(f"{repo} is taken: it holds another data set. Choose another name")
        return
    if "config.json" not in there:
        raise ValueError(f"{repo} is taken: it holds files that are no checkpoint. Choose another name")
    with explained(repo):
        path = api.hf_hub_download(repo, "config.json", revision=commit)
    here = [path.name for path in folder.iterdir()]
    kinds = [
        " ".join([str(config.get("model_type")), *(config.get("architectures") or []), *["ONNX"] * is_export(files)])
        for config, files in ((read_json(Path(path)), there), (read_json(folder / "config.json"), here))
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{repo} is taken: it holds another model ({kinds[0]}), {folder} is a {kinds[1]}. Choose another name"
        )


@contextmanager
def explained(repo: str, committed: str | None = None, bars: bool = False) -> Iterator[None]:
    """
    Turns what huggingface_hub raises into a `ValueError` that says in one line what failed and what to do. With `bars`
    the line goes below the progress bars of the upload.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    state = f"the files are committed ({committed[:8]}), their tag is not" if committed else "nothing was committed"
    try:
        yield
    except OfflineModeIsEnabled:
        raise ValueError("HF_HUB_OFFLINE is set: nothing can be uploaded") from None
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        reason = " ".join((str(cause) or type(cause).__name__).split())
        if bars:
            print("\n", file=sys.stderr)
        if isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError):  # of the card, or of an argument
            raise ValueError(f"{repo}: {reason}") from error
        if not isinstance(cause, HfHubHTTPError):
            if not isinstance(cause, OSError) and "httpx" not in type(cause).__module__:
                raise
            raise ValueError(
                f"the connection to the Hub broke ({reason}): {state}; give the same command again"
            ) from error
        raise ValueError(f"{advice(cause, repo, reason)}; {state}") from error


def advice(error, repo: str, reason: str) -> str:
    """Says what a status of the Hub means."""
    status, server = error.response.status_code, getattr(error, "server_message", None)
    said = f" ({' '.join(server.split())})" if server else ""
    if status == 401:
        return f"the Hub does not accept the token{said}: set HF_TOKEN to one that may write, or run hf auth login"
    if status == 403:
        return f"the token may not write to {repo}{said}: use one that may, or another name"
    if status == 412:
        return f"{repo} has changed during the upload: give the same command again"
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return f"the Hub has had too many requests: give the same command again in {wait or 'some'} seconds"
    if status >= 500:
        return f"the Hub failed with status {status}{said}: give the same command again"
    return f"{repo}: the Hub answers {reason}"


def main():
    parser = Parser(prog="python -m modeling_clir.push", description=__doc__)
    parser.add_argument("folder", type=Path, help="finished checkpoint or corpus, with its card")
    parser.add_argument("repo", help="OWNER/NAME, or NAME for an account's own")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", metavar="BRANCH", help="branch (default: main); made if there is none")
    parser.add_argument("--dataset", action="store_true", help="the folder is a corpus")
    args = parser.parse_args()
    print(push(args.folder, args.repo, args.private, args.revision, args.dataset))


__all__ = ["check_access", "check_folder", "files_to_push", "pin_snippets", "push"]


if __name__ == "__main__":
    run_program(main)
