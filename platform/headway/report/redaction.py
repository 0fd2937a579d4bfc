"""What may be sent round: a story without paths, hosts, people, environment and addresses, in its texts as well.

Names of metrics, figures and columns stay, and so do the digests: by them who has the same data knows it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from headway.core import secrecy
from headway.report.shape import Story

if TYPE_CHECKING:
    from headway.report.sweep import SweepStory

GONE = "[left out]"
SHORT = 3
"""A word of fewer letters is not looked for in texts: it would be found everywhere."""
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s\"'`<>)\]]+")
_PATH = re.compile(r"(?<![\w.~/-])(?:~|\.{1,2})?/(?:[\w.@+~-]+/)*[\w.@+~-]+/?")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\[^\s\"'`<>]+")
_ADDRESS = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b"
    r"|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){4,7}[0-9a-fA-F]{0,4}(?![\w:])|(?<![\w:])[0-9a-fA-F]{0,4}::[0-9a-fA-F]{1,4}\b"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)*"
    r"|\blocalhost(?::\d+)?\b"
    r"|\b[\w-]+(?:\.[\w-]+)*\.(?:local|internal|lan|corp|com|org|net|edu)\b"
)
_HOST = re.compile(r"(?<=started on )[\w.-]+|(?<=process )\d+ on [\w.-]+|(?<=\(node )[0-9a-f]+")
"""As our own sentences name them."""
_DIGEST = re.compile(r"(?:\w+:)?[0-9a-fA-F]*")
_COMMAND = re.compile(r"headway train [^`]+")
KEPT = ("python", "packages", "machine", "system", "cpus", "memory_bytes")
"""Of the environment: what is the same on thousands of machines. Anything else may name one."""
PLACES = (
    "uri",
    "endpoint",
    "folder",
    "train",
    "validation",
    "path",
    "env",
    "files",
    "notify",
    "prometheus",
    "task",
    "job",
)
"""Keys of the job, whose values tell where something is."""


def redacted(story: Story) -> Story:
    """The same story, with all that left out; its `redacted` is true."""
    if story.redacted:
        return story
    tree = story.model_dump(mode="json")
    words = _private(story)
    run = tree["run"]
    run |= {"by": "", "path": ""}
    tree["environment"] = {name: each for name, each in tree["environment"].items() if name in KEPT}
    for number, node in enumerate(tree["nodes"], 1):
        node["name"] = f"node {number}"
    for data in tree["data"]:
        data["place"] = ""
    for saved in tree["checkpoints"]:
        saved["path"] = ""
    git = tree["reproduce"]["git"]
    tree["reproduce"]["git"] = {name: git[name] for name in ("commit", "dirty") if name in git}
    tree["reproduce"]["commands"] = _commands(story)
    tree["words"]["again"] = _COMMAND.sub(_commands(story)[-1], story.words.again)
    tree["job"]["yaml"] = _yaml(tree["job"]["yaml"])
    tree["task"]["arguments"] = _arguments(tree["task"]["arguments"])
    pictures = [figure.pop("data") for figure in tree["figures"]]
    cleaned = _Cleaner(words).of(tree)
    for figure, picture in zip(cleaned["figures"], pictures, strict=True):
        figure["data"] = picture
    return Story.model_validate({**cleaned, "redacted": True})


def redacted_sweep(story: SweepStory) -> SweepStory:
    """The same of a sweep. Settings of trials stay: they are what it is about."""
    tree = story.model_dump(mode="json")
    tree["report"] |= {"path": "", "tracking": {}}
    tree["reproduce"]["commands"] = ["headway sweep sweep.yaml"]
    tree["words"]["again"] = "Run it again with `headway sweep sweep.yaml`." if story.words.again else ""
    tree["job"]["yaml"] = _yaml(tree["job"]["yaml"])
    cleaned = _Cleaner(set(_people(story.report.path))).of(tree)
    return type(story).model_validate({**cleaned, "redacted": True})


def _commands(story: Story) -> list[str]:
    """As somebody else would give them."""
    local = " --local" if story.run.local else ""
    commit = story.reproduce.git.get("commit")
    return [f"git checkout {commit}"] * bool(commit) + [f"headway train job.yaml{local}"]


def _private(story: Story) -> set[str]:
    """Words that must not be anywhere: of hosts, people, folders."""
    found: set[str] = set()
    found |= {str(story.environment.get(name) or "") for name in ("host", "hostname", "user")}
    found |= {str(node.get("name") or "") for node in story.nodes}
    found.add(story.run.by)
    found |= set(story.run.by.split("@"))
    for words in [mark.words for mark in story.marks] + [event.words for event in story.events]:
        found |= {host.rpartition(" ")[2] for host in _HOST.findall(words)}
    found |= {part for place in _places(story) for part in _people(place)}
    return {word for word in found if len(word) >= SHORT}


def _places(story: Story) -> Iterable[str]:
    yield story.run.path
    yield from (data.place for data in story.data)
    yield from (saved.path for saved in story.checkpoints)


def _people(place: str) -> Iterable[str]:
    """Who a folder belongs to, and which bucket it is."""
    if match := re.match(r"/(?:home|Users)/([^/]+)", place):
        yield match[1]
    if match := re.match(r"[a-z0-9]+://([^/]+)", place):
        yield match[1]


def _yaml(text: str) -> str:
    import yaml

    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return ""
    if not isinstance(tree, dict):
        return ""
    arguments = tree.pop("arguments", None)
    tree = _without(tree)
    if isinstance(arguments, dict):
        tree["arguments"] = _arguments(arguments)
    return yaml.safe_dump(tree, sort_keys=False)


def _without(tree: Any) -> Any:
    """A job's tree with values of places left out."""
    if isinstance(tree, dict):
        return {
            key: GONE if key in PLACES and not _says_nothing(each) else _without(each) for key, each in tree.items()
        }
    return [_without(each) for each in tree] if isinstance(tree, list) else tree


def _says_nothing(value: Any) -> bool:
    """Of a list of sources the weights stay: it is gone through."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict)
    return value is None or isinstance(value, bool)


def _arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of the task; texts that look like a secret or a place go."""
    return {
        name: GONE if isinstance(value, str) and secrecy.argument(name, value) else value
        for name, value in arguments.items()
    }


class _Cleaner:
    """Leaves private words, paths, addresses and secrets out of every text of a tree; keys of mappings stay."""

    def __init__(self, words: set[str]) -> None:
        ordered = [re.escape(word) for word in sorted(words, key=len, reverse=True)]
        self._words = re.compile(rf"(?<![\w.-])(?:{'|'.join(ordered)})(?![\w-])", re.IGNORECASE) if ordered else None

    def of(self, tree: Any, key: str = "") -> Any:
        if isinstance(tree, str):
            return tree if key in ("digest", "code_digest") and _DIGEST.fullmatch(tree) else self._text(tree)
        if isinstance(tree, list):
            return [self.of(each, key) for each in tree]
        if isinstance(tree, dict):
            return {name: self.of(each, name) for name, each in tree.items()}
        return tree

    def _text(self, text: str) -> str:
        for secret in secrecy.within(text):
            text = text.replace(secret, secrecy.HIDDEN)
        for pattern in (_URL, _WINDOWS, _ADDRESS, _PATH):
            text = pattern.sub(GONE, text)
        text = _HOST.sub(GONE, text)
        return self._words.sub(GONE, text) if self._words is not None else text
