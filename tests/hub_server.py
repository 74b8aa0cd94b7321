"""
A Hub on loopback: the HTTP API that huggingface_hub uses to create repositories, upload by LFS, commit and download.

    with HubServer() as hub:
        hub.users["hf_ours"] = User("someone")
        hub.fail("commit", status=500)

It keeps everything in memory, answers as huggingface.co does where the client looks, and breaks where a test asks.
"""

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


LARGE = (".safetensors", ".bin", ".parquet", ".onnx")  # what the Hub stores by LFS


@dataclass
class User:
    name: str
    writes: bool = True


@dataclass
class Repository:
    """Attributes: `branches` and `tags` name commits; `commits` are commit to path to (bytes, by LFS), oldest first."""

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)

    def __post_init__(self):
        self.commit({".gitattributes": (b"*.safetensors filter=lfs\n", False)}, "main")

    def commit(self, files: dict[str, tuple[bytes, bool]], branch: str) -> str:
        sha = hashlib.sha1(f"{time.time_ns()} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        revision = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return (
            self.branches.get(revision) or self.tags.get(revision) or (revision in self.commits and revision) or None
        )

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {path: data for path, (data, _) in self.commits[self.find(revision)].items()}


@dataclass
class Fault:
    """What a route answers instead: a status with headers, or nothing, the connection closed after half a body."""

    status: int | None
    times: int
    headers: dict[str, str]
    message: str


class HubServer:
    """
    Attributes:
        endpoint (`str`): for `HF_ENDPOINT`.
        users (`dict[str, User]`): token to user.
        repositories (`dict[tuple[str, str], Repository]`): (`"model"` or `"dataset"`, name) to repository.
        blobs (`dict[str, bytes]`): sha256 to what was uploaded by LFS.
        calls (`list[str]`): the route of each request, in order; see `ROUTES`.
    """

    def __init__(self):
        self.users = {"hf_ours": User("someone"), "hf_reads": User("someone", writes=False)}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.faults: dict[str, list[Fault]] = {}
        self.lock = threading.RLock()

    def __enter__(self) -> "HubServer":
        handler = type("HandlerOfHub", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fail(
        self, route: str, status: int | None = None, times: int = 1, message: str = "of the test", **headers: str
    ):
        """Breaks the next `times` requests of a route. Without a status the connection is closed in the middle."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.setdefault(route, []).append(Fault(status, times, headers, message))

    def take_fault(self, route: str) -> Fault | None:
        with self.lock:
            waiting = self.faults.get(route, [])
            if not waiting:
                return None
            waiting[0].times -= 1
            return waiting[0] if waiting[0].times > 0 else waiting.pop(0)

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """Returns the files of a repository at a revision; without what the Hub itself adds."""
        files = self.repositories[kind, name].files(revision)
        return {path: data for path, data in files.items() if path != ".gitattributes"}


REPO = r"(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
ROUTES = {
    "whoami": ("GET", r"/api/whoami-v2"),
    "create": ("POST", r"/api/repos/create"),
    "validate": ("POST", r"/api/validate-yaml"),
    "preupload": ("POST", rf"/api/{REPO}/preupload/(?P<revision>[^/]+)"),
    "batch": ("POST", r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    "upload": ("PUT", r"/lfs/(?P<oid>\w{64})"),
    "commit": ("POST", rf"/api/{REPO}/commit/(?P<revision>[^/]+)"),
    "branch": ("POST", rf"/api/{REPO}/branch/(?P<revision>.+)"),
    "tag": ("POST", rf"/api/{REPO}/tag/(?P<revision>[^/]+)"),
    "refs": ("GET", rf"/api/{REPO}/refs"),
    "tree": ("GET", rf"/api/{REPO}/tree/(?P<revision>[^/]+)(?P<path>/.*)?"),
    "paths": ("POST", rf"/api/{REPO}/paths-info/(?P<revision>[^/]+)"),
    "info": ("GET", rf"/api/{REPO}(/revision/(?P<revision>[^/]+))?"),
    "resolve": ("GET", r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
}


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = urlsplit(self.path).path
        self.query = parse_qs(urlsplit(self.path).query)
        method = {"HEAD": "GET"}.get(self.command, self.command)
        for route, (verb, pattern) in ROUTES.items():
            found = re.fullmatch(pattern, path) if method == verb else None
            if found:
                self.route(route, {name: unquote(value or "") for name, value in found.groupdict().items()})
                return
        self.body()
        self.error(404, f"no such route: {self.command} {path}")

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def do_PUT(self):
        self.do_GET()

    def route(self, route: str, parts: dict[str, str]):
        hub = self.hub
        hub.calls.append(route)
        if fault := hub.take_fault(route):
            if fault.status is None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
                self.close_connection = True
                self.connection.close()
                return
            self.body()
            self.error(fault.status, fault.message, **fault.headers)
            return
        data, token = self.body(), self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = hub.users.get(token)
        if token and user is None:
            self.error(401, "Invalid credentials in Authorization header")
            return
        with hub.lock:
            if "repo" not in parts:
                getattr(self, route)(user, data, **parts)
                return
            kind = "dataset" if parts.pop("kind").startswith("datasets") else "model"
            name = parts.pop("repo")
            writes = route in ("preupload", "batch", "commit", "branch", "tag")
            if writes and user is None:
                self.error(401, "Invalid username or password.", X_Error_Code="RepoNotFound")
                return
            repository, owner = hub.repositories.get((kind, name)), name.split("/")[0]
            if repository is None or (repository.private and (user is None or user.name != owner)):
                self.error(404 if user else 401, "Repository not found", X_Error_Code="RepoNotFound")
            elif writes and (user.name != owner or not user.writes):
                self.error(403, f"You don't have write access to {name}", X_Error_Code="Forbidden")
            else:
                self.repository, self.kind, self.name = repository, kind, name
                getattr(self, route)(user, data, **parts)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, value, status: int = 200, **headers: str):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, one in headers.items():
            self.send_header(name.replace("_", "-"), one)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status: int, message: str, **headers: str):
        self.answer({"error": message}, status, X_Error_Message=message, **headers)

    # -----------------------------------------------------------------------------------------------------------------
    # Routes
    # -----------------------------------------------------------------------------------------------------------------

    def whoami(self, user, data):
        if user is None:
            self.error(401, "Invalid username or password.")
            return
        role = "write" if user.writes else "read"
        token = {"type": "access_token", "accessToken": {"displayName": "t", "role": role}}
        self.answer({"type": "user", "name": user.name, "orgs": [], "auth": token})

    def create(self, user, data):
        asked = json.loads(data)
        owner = asked.get("organization") or (user and user.name)
        if user is None:
            self.error(401, "Invalid username or password.")
        elif owner != user.name or not user.writes:
            self.error(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        else:
            kind, name = asked.get("type", "model"), f"{owner}/{asked['name']}"
            url = f"{self.hub.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
            if (kind, name) in self.hub.repositories:
                self.answer({"error": f"You already created this {kind} repo", "url": url}, 409)
                return
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repositories[kind, name] = Repository(private)
            self.answer({"url": url, "name": name, "id": name})

    def validate(self, user, data):
        asked = json.loads(data)
        found = re.match(r"---\n(.*?)\n---", asked["content"], re.DOTALL)
        errors = check_card(yaml.safe_load(found[1]) if found else None)
        self.answer({"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200)

    def preupload(self, user, data, revision):
        if not self.repository.find(revision):
            self.error(404, f"Invalid rev id: {revision}", X_Error_Code="RevisionNotFound")
            return
        there = self.repository.commits[self.repository.find(revision)]
        files = []
        for file in json.loads(data)["files"]:
            mode = "lfs" if file["path"].endswith(LARGE) or file["size"] > 10_000_000 else "regular"
            old = there.get(file["path"])
            oid = blob_id(*old) if old else None
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer({"files": files})

    def batch(self, user, data):
        objects = []
        for one in json.loads(data)["objects"]:
            found = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.blobs:
                found["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}
            objects.append(found)
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, user, data, oid):
        if hashlib.sha256(data).hexdigest() != oid:
            self.error(400, "the content is not that of the oid")
            return
        self.hub.blobs[oid] = data
        self.answer(b"")

    def commit(self, user, data, revision):
        files = dict(self.repository.commits[self.repository.find(revision)])
        header = None
        for line in data.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"]), False
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    self.error(400, f"{value['path']} was not uploaded")
                    return
                files[value["path"]] = self.hub.blobs[value["oid"]], True
            elif key == "deletedFile":
                del files[value["path"]]
        if header.get("parentCommit") not in (None, self.repository.find(revision)):
            self.error(412, "A commit has happened since. Please refresh and try again.")
            return
        sha = self.repository.commit(files, revision)
        where = f"{'datasets/' if self.kind == 'dataset' else ''}{self.name}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{where}/commit/{sha}"})

    def branch(self, user, data, revision):
        if revision in self.repository.branches:
            self.error(409, f"Reference already exists: {revision}")
            return
        start = (json.loads(data or b"{}") or {}).get("startingPoint") or "main"
        self.repository.branches[revision] = self.repository.find(start)
        self.answer({})

    def tag(self, user, data, revision):
        name = json.loads(data)["tag"]
        if name in self.repository.tags:
            self.error(409, f"Tag reference exists already: {name}")
            return
        self.repository.tags[name] = self.repository.find(revision)
        self.answer({})

    def refs(self, user, data):
        kinds = {"branches": self.repository.branches, "tags": self.repository.tags}
        prefixes = {"branches": "refs/heads/", "tags": "refs/tags/"}
        self.answer(
            {
                kind: [{"name": n, "ref": prefixes[kind] + n, "targetCommit": sha} for n, sha in named.items()]
                for kind, named in kinds.items()
            }
            | {"converts": []}
        )

    def at(self, revision: str) -> tuple[str, dict[str, tuple[bytes, bool]]] | None:
        sha = self.repository.find(revision)
        if sha is None:
            self.error(404, f"Invalid rev id: {revision}", X_Error_Code="RevisionNotFound")
            return None
        return sha, self.repository.commits[sha]

    def tree(self, user, data, revision, path):
        if (found := self.at(revision)) is None:
            return
        folder = path.strip("/")
        rows, folders = [], set()
        for name, one in sorted(found[1].items()):
            if folder and not name.startswith(f"{folder}/"):
                continue
            inner = name.removeprefix(f"{folder}/").split("/")
            if len(inner) > 1 and self.query["recursive"][0].lower() != "true":
                folders.add("/".join([folder, inner[0]] if folder else [inner[0]]))
            else:
                rows.append(entry(name, *one))
        rows += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": name} for name in sorted(folders)]
        if folder and not rows:
            self.error(404, f"{folder} does not exist", X_Error_Code="EntryNotFound")
            return
        self.answer(rows)

    def paths(self, user, data, revision):
        if found := self.at(revision):
            asked = json.loads(data)["paths"] if data.startswith(b"{") else parse_qs(data.decode())["paths"]
            self.answer([entry(name, *one) for name, one in found[1].items() if name in asked])

    def info(self, user, data, revision):
        if found := self.at(revision or "main"):
            siblings = [{"rfilename": name} for name in sorted(found[1])]
            facts = {"id": self.name, "sha": found[0], "private": self.repository.private, "siblings": siblings}
            self.answer(facts | {"tags": [], "downloads": 0, "likes": 0})

    def resolve(self, user, data, revision, path):
        if (found := self.at(revision)) is None:
            return
        if path not in found[1]:
            self.error(404, f"{path} does not exist", X_Error_Code="EntryNotFound", X_Repo_Commit=found[0])
            return
        content, large = found[1][path]
        self.answer(content, ETag=f'"{blob_id(content, large)}"', X_Repo_Commit=found[0])


def blob_id(data: bytes, large: bool) -> str:
    """Names a blob as git does, or as LFS does by its sha256."""
    return hashlib.sha256(data).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(path: str, data: bytes, large: bool) -> dict:
    oid = blob_id(data, large)
    found = {"type": "file", "path": path, "size": len(data), "oid": oid}
    return found | ({"lfs": {"oid": oid, "size": len(data), "pointerSize": 134}} if large else {})


def check_card(metadata) -> list[str]:
    """Lists what huggingface.co refuses in a card: fields of another type, unknown languages and licenses."""
    if not isinstance(metadata, dict):
        return ["the metadata must be a mapping"]
    errors = []
    languages = metadata.get("language") or []
    for code in [languages] if isinstance(languages, str) else languages:
        if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", str(code)):
            errors.append(f'"language" must be a code of ISO 639, got {code}')
    if "license" in metadata and not re.fullmatch(r"[a-z0-9.+-]+", str(metadata["license"])):
        errors.append(f'"license" must be one of a list, got {metadata["license"]}')
    for name in ("base_model", "datasets"):
        for one in [metadata[name]] if isinstance(metadata.get(name), str) else metadata.get(name) or []:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+|[\w.-]+", one):
                errors.append(f'"{name}" must be names of the Hub, got {one}')
    for index in metadata.get("model-index") or []:
        for result in index["results"]:
            if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
                errors.append("a result lacks its task or data set")
    return errors


__all__ = ["HubServer", "Repository", "User", "check_card"]
