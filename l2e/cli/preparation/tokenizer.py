"""The tokenizer of the data, as its files lie on the hub."""

import fnmatch
import shutil
from pathlib import Path

from l2e.cli.preparation.manifest import Manifest
from l2e.cli.preparation.plan import Line
from l2e.data.config import BuiltinDataConfig, DataConfig, TextDataConfig
from l2e.errors import UserError
from l2e.evaluation.hub_items import hub_errors

_FILES = (
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "config.json",  # names the tokenizer's class where tokenizer_config.json does not
)


def tokenizer_folder(place: Path) -> Path:
    """Where it lies."""
    return place / "tokenizer"


def tokenizer_of(data: DataConfig) -> str | None:
    """The tokenizer's name on the hub; None if it lies in a folder or comes with the data."""
    if isinstance(data, BuiltinDataConfig | TextDataConfig) or Path(data.tokenizer).exists():
        return None
    return data.tokenizer


class TokenizerPart:
    """The files of the tokenizer in `tokenizer/`.

    Raises:
        UserError: the hub has none of that name.
    """

    def __init__(self, data: DataConfig, manifest: Manifest) -> None:
        self.manifest = manifest
        self.folder = tokenizer_folder(manifest.folder)
        self.name = tokenizer_of(data)
        self.where = "comes with the data" if isinstance(data, BuiltinDataConfig) else str(data.tokenizer)
        self.commit = ""
        self.sizes: dict[str, int] = {}
        if self.name is not None:
            self._ask(self.name)

    def plan(self) -> list[Line]:
        """One line."""
        missing = sum(size for name, size in self.sizes.items() if not self._is_here(name))
        source = self._source if self.name else self.where
        return [Line(item="tokenizer", size=sum(self.sizes.values()), missing=missing, source=source)]

    def fetch(self) -> None:
        """Fetch the files that are not here; tokenizer.json last, because it says that they are."""
        for name in sorted(self.sizes, key=lambda name: name == "tokenizer.json"):
            if not self._is_here(name):
                self._fetch(name)

    @property
    def _source(self) -> str:
        return f"{self.name}@{self.commit}"

    def _is_here(self, name: str) -> bool:
        return self.manifest.holds(self.folder / name, self._source)

    def _ask(self, name: str) -> None:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError

        try:
            info = huggingface_hub.HfApi().model_info(name, files_metadata=True)
        except HFValidationError:
            raise UserError(f"data.tokenizer: {name} is no folder that exists, and no name on the hub") from None
        except hub_errors() as error:
            raise _refused(name, error) from error
        self.commit = str(info.sha)
        for file in info.siblings or []:
            if any(fnmatch.fnmatchcase(file.rfilename, pattern) for pattern in _FILES):
                self.sizes[file.rfilename] = file.size or 0
        if "tokenizer.json" not in self.sizes:
            raise UserError(f"data.tokenizer: {name} on the hub holds no tokenizer.json; give another")

    def _fetch(self, name: str) -> None:
        import huggingface_hub

        assert self.name is not None
        try:
            cached = huggingface_hub.hf_hub_download(self.name, name, revision=self.commit)
        except hub_errors() as error:
            raise _refused(self.name, error) from error
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.tmp"
        shutil.copyfile(cached, temporary)
        temporary.replace(self.folder / name)
        self.manifest.add(self.folder / name, self._source)


def _refused(name: str, error: Exception) -> UserError:
    said = str(error).strip().splitlines()
    return UserError(
        f"data.tokenizer: {name} is no folder, and the hub did not give it ({said[0] if said else error!r}); "
        f"check the name, the network, or your rights there (hf auth login)"
    )
