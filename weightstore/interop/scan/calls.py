"""The calls that bring weights, library by library, and what each asks for."""

from __future__ import annotations

import itertools
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from weightstore.catalog.names import resolve
from weightstore.errors import InvalidInput, InvalidSource, UnknownName
from weightstore.hub import MAIN, HubFile
from weightstore.interop.scan.evaluation import ANY, ONLY_KNOWN_WHEN_IT_RUNS
from weightstore.interop.scan.urls import is_checkpoint_url, target_of
from weightstore.interop.scan.values import Const, Named, strings
from weightstore.source import is_path, is_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from weightstore.catalog.registry import Catalogs
    from weightstore.interop.scan.enums import Enums
    from weightstore.interop.scan.evaluation import Argument, Arguments

_TIMM_BUILDER = re.compile(r"timm\.models(\.[a-z]\w*)?\.[a-z][a-z0-9_]*")
_BUILDERS = ("torchvision.models.", "weightstore.torchvision.", "timm.models.")
_MOST_FILES = 256
_FROM_PRETRAINED = "from_pretrained"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks for: a ``target``; or a ``note`` that says why that cannot be told.

    ``timm_name`` is the name of a model of which only timm knows where its weights are.
    """

    target: str = ""
    note: str = ""
    asked_by: str = ""
    timm_name: str = ""


_Handler: TypeAlias = "Callable[[Arguments], Iterator[Asked]]"
# A text that an argument may be, and what else there is to say; or None, and why that is not known.
_Text: TypeAlias = "tuple[str | None, str]"


class Calls:
    """Tells what calls of imported functions ask for."""

    def __init__(self, catalogs: Catalogs, enums: Enums) -> None:
        self._catalogs = catalogs
        self._enums = enums
        self._handlers: dict[str, _Handler] = {}
        for paths, handler in (
            ("torchvision.models.get_model torchvision.models._api.get_model weightstore.get_model", self._get_model),
            ("torchvision.models.get_weight torchvision.models._api.get_weight weightstore.get_weight", self._weight),
            ("weightstore.path weightstore.open weightstore.load_state_dict", self._weight),
            ("weightstore.prefetch", self._prefetch),
            ("timm.create_model timm.models.create_model timm.models.factory.create_model", self._timm),
            ("timm.models._factory.create_model", self._timm),
            ("huggingface_hub.hf_hub_download huggingface_hub.file_download.hf_hub_download", self._hub_file),
            ("huggingface_hub.snapshot_download transformers.pipeline", self._repository),
            ("sentence_transformers.SentenceTransformer open_clip.create_model", self._repository),
            ("open_clip.create_model_and_transforms open_clip.create_model_from_pretrained", self._repository),
            ("torch.hub.load_state_dict_from_url torch.hub.download_url_to_file", self._url),
            (
                "torch.utils.model_zoo.load_url torchvision._internally_replaced_utils.load_state_dict_from_url",
                self._url,
            ),
            ("torchvision.models.utils.load_state_dict_from_url", self._url),
            ("urllib.request.urlretrieve wget.download", self._any_url),
            ("torch.hub.load", self._hub_code),
        ):
            self._handlers |= dict.fromkeys(paths.split(), handler)

    def of(self, path: str, arguments: Arguments) -> Iterator[Asked]:
        """Yield what a call of an imported function asks for; nothing where it is none that brings weights."""
        root, name = path.partition(".")[0], path.rpartition(".")[2]
        if (handler := self._handlers.get(path)) is not None:
            for asked in handler(arguments):
                yield Asked(asked.target, asked.note, asked.asked_by or root, asked.timm_name)
        elif path == "functools.partial":
            yield from self._partial(arguments)
        elif name == ANY:
            if path.startswith(_BUILDERS) and _may_be_given_weights(arguments):
                module = path.rpartition(".")[0]
                yield Asked(note=f"which function of {module} it calls is only known when it runs", asked_by=root)
        elif name == _FROM_PRETRAINED:
            for asked in self._repository(arguments):
                yield Asked(asked.target, asked.note, root)
        elif (found := self._enums.builder(path)) is not None:
            module = path.rpartition(".")[0]
            for target, note in self._enums.of_call(*found, arguments, module=module):
                yield Asked(target, note, root)
        elif _TIMM_BUILDER.fullmatch(path) and (given := arguments.get("pretrained")) is not None:
            yield from self._timm_named(((name, ""),), given, arguments)

    def _partial(self, arguments: Arguments) -> Iterator[Asked]:
        for argument in arguments.positional[:1]:
            for function in argument.values:
                if isinstance(function, Named):
                    yield from self.of(function.path, arguments.but_for_the_first())

    # -- names of catalogs ------------------------------------------------------------------------------------------

    def _get_model(self, arguments: Arguments) -> Iterator[Asked]:
        for name, why in _texts(arguments.get("name", 0) or arguments.get("model")):
            found = self._enums.named_builder(name) if name else None
            if found is None:
                has_weights = any(
                    arguments.get(one) is not None for one in ("weights", "pretrained", "weights_backbone")
                )
                if why and has_weights:
                    yield Asked(note=why)
                continue
            builder, catalog = found
            module = str(catalog.document["enums"][catalog.builders[builder]].get("module", ""))
            for target, note in self._enums.of_call(builder, catalog, arguments.but_for_the_first(), module=module):
                yield Asked(target, note)

    def _weight(self, arguments: Arguments) -> Iterator[Asked]:
        for argument in arguments.all()[:1]:
            yield from self._named(argument)

    def _prefetch(self, arguments: Arguments) -> Iterator[Asked]:
        for argument in arguments.positional:
            yield from self._named(argument)

    def _named(self, argument: Argument) -> Iterator[Asked]:
        """Yield what a name stands for, as weightstore's own functions take it."""
        for name, note in _texts(argument):
            yield from [Asked(note=note)] if name is None else self._resolved(name, note)

    def _resolved(self, name: str, note: str) -> Iterator[Asked]:
        if is_source(name):
            yield of_url(name, note)
            return
        try:
            for entry in resolve([name], self._catalogs):
                yield Asked(entry.qualified_name, note)
        except (UnknownName, InvalidInput) as error:
            yield Asked(note=str(error))

    # -- timm and the Hub -------------------------------------------------------------------------------------------

    def _timm(self, arguments: Arguments) -> Iterator[Asked]:
        pretrained = arguments.get("pretrained", 1)
        if pretrained is None:
            if arguments.may_hold_more:
                yield Asked(note="pretrained may be among the arguments that are passed on")
            return
        yield from self._timm_named(_texts(arguments.get("model_name", 0)), pretrained, arguments)

    def _timm_named(self, names: Iterable[_Text], pretrained: Argument, arguments: Arguments) -> Iterator[Asked]:
        if not pretrained.is_given:
            return
        if not any(isinstance(one, Const) and one.value for one in pretrained.values):
            yield Asked(note=f"pretrained: {pretrained.unknown or ONLY_KNOWN_WHEN_IT_RUNS}", asked_by="timm")
            return
        overlaid = [one for one in ("pretrained_cfg", "pretrained_cfg_overlay") if arguments.get(one) is not None]
        for name, note in names:
            prefix, colon, repository = (name or "").partition(":")
            if name is None:
                yield Asked(note=note, asked_by="timm")
            elif overlaid:
                yield Asked(note=f"{overlaid[0]} says where its weights are", asked_by="timm")
            elif not colon:
                yield Asked(timm_name=name, note=note, asked_by="timm")
            elif prefix.replace("_", "-") == "hf-hub":
                repo, _, revision = repository.partition("@")
                yield _on_hub(repo, "model.safetensors", revision, note, asked_by="timm")

    def _hub_file(self, arguments: Arguments) -> Iterator[Asked]:
        if _is_of_another_kind(arguments):
            return
        names = ("repo_id", 0), ("filename", 1), ("subfolder", None), ("revision", None)
        given = [arguments.get(*name) for name in names]
        if given[0] is None or given[1] is None:
            if arguments.may_hold_more:
                yield Asked(note="which file is among the arguments that are passed on")
            return
        parts: list[list[_Text]] = [[("", "")] if one is None else list(_texts(one, none="")) for one in given]
        for several in itertools.islice(itertools.product(*parts), _MOST_FILES):
            repo, file, folder, revision = (text for text, _ in several)
            note = next((note for _, note in several if note), "")
            if repo is None or file is None or folder is None or revision is None:
                yield Asked(note=note)
            else:
                yield _on_hub(repo, posixpath.join(folder, file), revision, note)

    def _repository(self, arguments: Arguments) -> Iterator[Asked]:
        """Yield a hint: which files of a repository are fetched only the library knows."""
        if _is_of_another_kind(arguments):
            return
        names = ("pretrained_model_name_or_path", "repo_id", "model", "model_name_or_path", "model_name")
        argument = next((one for name in names if (one := arguments.get(name)) is not None), arguments.get("", 0))
        for name, _ in _texts(argument):
            if name is None or not is_path(name):
                of = f"of {name} " if name is not None else ""
                yield Asked(note=f"which files {of}it fetches is only known when it runs")

    def _hub_code(self, arguments: Arguments) -> Iterator[Asked]:
        source = arguments.get("source")
        if source is not None and strings(source.values) == ["local"]:
            return
        for name, _ in _texts(arguments.get("repo_or_dir", 0)):
            if (name or "").partition(":")[0] == "pytorch/vision":
                yield from self._get_model(arguments.but_for_the_first())
            code = f"the code of {name}" if name is not None else "the code"
            yield Asked(note=f"{code} decides what it fetches")

    # -- URLs -------------------------------------------------------------------------------------------------------

    def _url(self, arguments: Arguments) -> Iterator[Asked]:
        for url, note in _texts(arguments.get("url", 0)):
            yield of_url(url, note) if url is not None else Asked(note=note)

    def _any_url(self, arguments: Arguments) -> Iterator[Asked]:
        """Yield the checkpoints among what a function fetches that fetches anything."""
        for argument in arguments.all()[:1]:
            yield from (of_url(url) for url in strings(argument.values) if is_checkpoint_url(url))


def _may_be_given_weights(arguments: Arguments) -> bool:
    given = [arguments.get("pretrained"), arguments.get("weights", 0), arguments.get("weights_backbone")]
    return any(one is not None and one.is_given for one in given)


def _is_of_another_kind(arguments: Arguments) -> bool:
    """Tell whether a repository is one of data or of an application, and not of a model."""
    kind = arguments.get("repo_type")
    return kind is not None and bool(strings(kind.values)) and "model" not in strings(kind.values)


def _texts(argument: Argument | None, *, none: str | None = None) -> Iterator[_Text]:
    """Yield each text that an argument may be, with a note where there may be others; or None, and why."""
    if argument is None:
        return
    texts = strings(argument.values)
    if none is not None and any(isinstance(one, Const) and one.value is None for one in argument.values):
        texts.append(none)
    yield from ((text, argument.others) for text in texts)
    if (why := argument.unknown_here if texts else argument.unknown) is not None:
        yield None, why


def _on_hub(repo: str, file: str, revision: str, note: str, asked_by: str = "") -> Asked:
    try:
        return Asked(str(HubFile(repo, revision or MAIN, file)), note, asked_by)
    except InvalidSource as error:
        return Asked(note=str(error), asked_by=asked_by)


def of_url(url: str, note: str = "") -> Asked:
    """Return what a URL asks for, shown without credentials."""
    target, why = target_of(url)
    return Asked(target, note if target else why)
