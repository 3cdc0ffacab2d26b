"""What a .bin or .ckpt file would do when it is opened, without opening it: its pickle is read as text, never run.

Both are zip archives (torch.save since PyTorch 1.6) with the tensors' bytes in files of their own and the rest in `data.pkl`. Training
loads them with `weights_only=True`; what that would refuse is refused here, before gigabytes are fetched.
"""

import io
import pickletools
import zipfile
from itertools import product
from typing import TYPE_CHECKING

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.basemodel.header import TensorInfo
from charalora_trainer.finding import printable
from charalora_trainer.storage import Entry, Store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_READ = 64 * 1024 * 1024  # zip directory and pickle together; a Stable Diffusion has less than one MiB
_BLOCK = 256 * 1024
_LONGEST_NAME = 100

_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
ALLOWED_GLOBALS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "Size"),
        *product(("torch",), (f"{kind}Storage" for kind in _STORAGES)),
        *product(("torch",), _TYPES),
    }
)
"""What a pickle may name: containers and tensors. Part of what torch allows with `weights_only=True`."""

_FORBIDDEN = {
    "INST",
    "OBJ",
    "STACK_GLOBAL",
    "NEWOBJ_EX",
    "EXT1",
    "EXT2",
    "EXT4",
    "PERSID",
}  # other ways to name code, unknown to weights_only


def read_names(store: Store, entry: Entry) -> dict[str, TensorInfo]:
    """Every text in the pickle: tensor names are among them; types and shapes stay unknown.

    Raises:
        TrainingError: `BaseModelInvalid` for a file that is truncated, no zip archive, or whose pickle names code.
    """
    where = f"{store.uri}{entry.key}"
    data = _data_pkl(store, entry, where)
    names: dict[str, TensorInfo] = {}
    code: set[str] = set()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL" and tuple(str(argument).split(" ", 1)) not in ALLOWED_GLOBALS:
                code.add(str(argument).replace(" ", "."))
            elif opcode.name in _FORBIDDEN:
                code.add(opcode.name)
            elif isinstance(argument, str) and opcode.name != "GLOBAL":
                names[argument] = TensorInfo()
    except (ValueError, IndexError, OverflowError) as error:
        raise _invalid(f"{where} is damaged: its pickle cannot be read ({_short(error)})") from error
    if code:
        named = ", ".join(_short(name) for name in sorted(code)[:3])
        raise _invalid(f"{where} runs code when it is opened ({named}); convert it to safetensors where you trust it")
    return names


def _data_pkl(store: Store, entry: Entry, where: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BufferedReader(_Ranged(store, entry), _BLOCK)) as archive:
            pickles = [info for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1 or pickles[0].compress_type != zipfile.ZIP_STORED or pickles[0].file_size > MAX_READ:
                raise _invalid(f"{where} is no file that torch.save wrote (its data.pkl is missing, doubled, packed or too large)")
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise _invalid(
            f"{where} is truncated, damaged or older than PyTorch 1.6 ({_short(error)}); upload it again, or convert it to safetensors"
        ) from error


class _Ranged(io.RawIOBase):
    """An object of a store as a file that can be read and sought, up to a budget of bytes."""

    def __init__(self, store: Store, entry: Entry) -> None:
        self._store, self._entry = store, entry
        self._place = self._read = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes from the beginning."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, without reading."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._entry.size}[whence]
        self._place = max(0, origin + offset)
        return self._place

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """One ranged read."""
        view = memoryview(buffer)
        end = min(self._place + len(view), self._entry.size)
        if end <= self._place:
            return 0
        self._read += end - self._place
        if self._read > MAX_READ:
            raise zipfile.BadZipFile(f"its directory or pickle has more than {MAX_READ >> 20} MiB")
        data = self._store.read(self._entry.key, self._place, end)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)


def _short(what: object) -> str:
    """A name or a cause from inside the file, as it may stand in a message."""
    return printable(str(what))[:_LONGEST_NAME]


def _invalid(message: str) -> TrainingError:
    return TrainingError(Outcome.BASE_MODEL_INVALID, f"{message}.")
