"""PyTorch's files give PyTorch's numbers without PyTorch, and hostile ones run nothing and get one sentence."""

import io
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.pretrained import pickles
from hierjax.nn.pretrained.files import read_weights, split_key

FOLDER = Path(__file__).with_name("torch_files")
FORMATS = ("", "_older")
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


@pytest.mark.parametrize("older", FORMATS)
@pytest.mark.parametrize("name", ["plain", "checkpoint"])
def test_tensors_are_pytorchs(name, older):
  with np.load(FOLDER / "expected.npz") as expected:
    found = read_weights(FOLDER / f"{name}{older}.pth")
    assert found.keys() == set(expected.files)
    for key, array in found.items():
      assert array.dtype == np.float32
      np.testing.assert_array_equal(array, expected[key].astype(np.float32))
  assert found["transposed"].shape == (6, 4) and found["part"].shape == (2, 3) and found["scalar"].shape == ()


@pytest.mark.parametrize("older", FORMATS)
def test_of_several_sets_of_weights_one_is_named(older):
  file = FOLDER / f"several{older}.pth"
  with pytest.raises(
    UserError, match=r"it has several sets of weights, teacher, student: name one, such as .*#teacher"
  ):
    read_weights(file)
  assert read_weights(f"{file}#teacher")["a"].tolist() == [1, 1]
  assert read_weights(f"{file}#student")["a"].tolist() == [0, 0]
  with pytest.raises(UserError, match="it has no weights by the name 'ema'; there are teacher, student"):
    read_weights(f"{file}#ema")
  with pytest.raises(UserError, match="it has no tensors by names"):
    read_weights(FOLDER / f"nothing{older}.pth")


@pytest.mark.parametrize("older", FORMATS)
def test_a_pickled_module_is_refused_by_its_name(older):
  with pytest.raises(UserError, match=r"module.*\.pth: it (names torch\.nn\.modules\.linear\.Linear|holds a whole)"):
    read_weights(FOLDER / f"module{older}.pth")


def test_a_file_whose_name_has_the_mark_is_a_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert split_key("a#b.pth") == (Path("a#b.pth"), "")
  assert split_key("a.pth#b") == (Path("a.pth"), "b")
  Path("a.pth#b").touch()
  assert split_key("a.pth#b") == (Path("a.pth#b"), "")


# Hostile files.

CALLED = []


def call(*arguments):
  """What a hostile pickle calls; it must never be."""
  CALLED.append(arguments)


class Hostile:
  def __init__(self, function, *arguments):
    self._reduced = function, arguments

  def __reduce__(self):
    return self._reduced


def written(content, older, file, storages=None, keys=None):
  """Writes a pickle as the object of a file; `storages` are the bytes by key."""
  storages = {} if storages is None else storages
  if older:
    tail = b"".join(data for data in storages.values())
    file.write_bytes(MAGIC + content + pickle.dumps(list(storages) if keys is None else keys, 2) + tail)
    return
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("a/data.pkl", content)
    for key, data in storages.items():
      archive.writestr(f"a/data/{key}", data)


def text(value):
  data = value.encode()
  return b"X" + struct.pack("<I", len(data)) + data


def number(value):
  return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(values):
  return b"(" + b"".join(map(number, values)) + b"t"


def storage(numel=4, key="0", kind="FloatStorage"):
  return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"


def tensor(shape=(4,), strides=(1,), offset=0, of=None):
  arguments = (storage() if of is None else of) + number(offset) + numbers(shape) + numbers(strides)
  return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89)tR"


def state(value, name="w"):
  return b"\x80\x02}" + text(name) + value + b"s."


ONE = {"0": np.arange(4, dtype=np.float32).tobytes()}
OLDER_ONE = {"0": struct.pack("<q", 4) + ONE["0"]}


def read(content, older, tmp_path, storages=None, **options):
  storages = (OLDER_ONE if older else ONE) if storages is None else storages
  written(content, older, tmp_path / "a.pth", storages, **options)
  return read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("older", [False, True])
def test_the_hand_made_file_is_a_good_one(older, tmp_path):
  assert read(state(tensor()), older, tmp_path)["w"].tolist() == [0, 1, 2, 3]
  assert read(state(tensor((2, 2), (1, 2))), older, tmp_path)["w"].tolist() == [[0, 2], [1, 3]]


def by_name(module, name, protocol=2):
  if protocol == 4:
    return (
      b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93"
    )
  return b"\x80\x02c" + f"{module}\n{name}\n".encode()


HERE = __name__
CODE = {
  "reduce": pickle.dumps(Hostile(call, "x"), 2),
  "os.system": by_name("os", "system") + b"(" + text("touch hacked") + b"tR.",
  "posix.system": by_name("posix", "system") + b"(" + text("touch hacked") + b"tR.",
  "getattr": by_name("builtins", "getattr") + b"(" + by_name("os", "path")[2:] + text("x") + b"tR.",
  "__builtin__.eval": by_name("__builtin__", "eval") + b"(" + text("1/0") + b"tR.",
  "stack_global": by_name("os", "system", 4) + b"(" + text("touch hacked") + b"tR.",
  "dotted": by_name("torch", "serialization.os.system") + b"(" + text("touch hacked") + b"tR.",
  "dotted_4": by_name("torch._utils", "sys.modules.clear", 4) + b")R.",
  "newobj": by_name("subprocess", "Popen") + b"(" + text("ls") + b"t\x81.",
  "newobj_ex": b"\x80\x04" + by_name("subprocess", "Popen")[2:] + b")}\x92.",
  "inst": b"\x80\x02(" + text("touch hacked") + b"ios\nsystem\n.",
  "obj": b"\x80\x02(cos\nsystem\n" + text("touch hacked") + b"o.",
  "extension": b"\x80\x02\x82\x01.",
  "persistent text": b"\x80\x02Pos.system\n.",
  "torch's others": by_name("torch.storage", "_load_from_bytes") + b"(" + text("x") + b"tR.",
  "torch.load": by_name("torch", "load") + b"(" + text("x") + b"tR.",
  "numpy": by_name("numpy.core.multiarray", "_reconstruct") + b")R.",
  "odd names": by_name("\x1b[2J", "x" * 500) + b")R.",
}  # fmt: skip


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", CODE)
def test_code_is_refused_and_not_run(name, older, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as error:
    read(CODE[name], older, tmp_path)
  message = str(error.value)
  assert "\n" not in message and "\x1b" not in message and len(message) < 600
  assert "it names " in message or "its pickle has the instruction " in message
  assert not CALLED and not (tmp_path / "hacked").exists()


def test_the_name_is_told(tmp_path):
  with pytest.raises(
    UserError, match=r"a\.pth: it names os\.system, and hierjax builds tensors and containers alone; "
  ):
    read(CODE["os.system"], False, tmp_path)
  with pytest.raises(UserError, match=r"it names builtins\.getattr, "):
    read(CODE["getattr"], True, tmp_path)


ODD = {
  "attributes": b"\x80\x02ctorch\nSize\n}" + text("__class__") + b"Nsb.",
  "a name is called twice": state(tensor()[:-1] + b"R)R"),
  "a tensor is called": state(tensor() + b")R"),
  "a storage's class is called": state(b"ctorch\nFloatStorage\n)R"),
  "arguments are a list": b"\x80\x02ctorch\nSize\n]R.",
  "a list of pairs": b"\x80\x02ccollections\nOrderedDict\n(]tR.",
  "a long key": b"\x80\x02}(" + b")" + b"\x85" * 500 + b"Nu.",
  "an unhashable key": b"\x80\x02}]Ns.",
  "an odd number": b"\x80\x02}(" + text("a") + b"u.",
  "no stack": b"\x80\x020.",
  "no mark": b"\x80\x02t.",
  "no memo": b"\x80\x02h\x07.",
  "a mark is kept": b"\x80\x02(q\x00.",
  "a set": b"\x80\x04\x8f.",
  "beyond the storage": state(tensor((5,))),
  "an offset beyond": state(tensor((4,), offset=1)),
  "a stride beyond": state(tensor((2, 2), (4, 1))),
  "a negative stride": state(tensor((4,), (-1,), 3)),
  "a negative size": state(tensor((-4,))),
  "a negative offset": state(tensor((1,), (1,), -1)),
  "repeated numbers": state(tensor((1 << 20, 1 << 20), (0, 0))),
  "huge sizes": state(tensor((2**62, 2**62, 0), (1, 1, 1))),
  "huge empty": state(tensor((2**40, 2**40, 0), (1, 1, 1))),
  "more strides than sizes": state(tensor((4,), (1, 1))),
  "a hundred sizes": state(tensor((1,) * 100, (1,) * 100)),
  "another storage": state(tensor(of=storage(key="1"))),
  "a longer storage": state(tensor(of=storage(numel=5))),
  "an endless storage": state(tensor(of=storage(numel=2**60))),
  "a storage's other kind": state(tensor(of=storage(kind="QInt8Storage"))),
  "two storages of one key": state(tensor() + b"0" + tensor((1,), of=storage(1))),
  "a path in a key": state(tensor(of=storage(key="../../../../etc/passwd"))),
  "no end": state(tensor())[:-1],
  "nothing": b"",
  "text": b"no pickle at all",
  "an endless text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
  "an endless frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.",
  "endless bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",
  "a negative length": b"\x80\x02T" + struct.pack("<i", -5) + b"a.",
  "a number that is long": b"\x80\x02I" + b"9" * 10_000 + b"\n.",
}  # fmt: skip


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_what_is_no_file_of_weights_gets_one_sentence(name, older, tmp_path):
  start = time.monotonic()
  with pytest.raises(UserError) as error:
    read(ODD[name], older, tmp_path)
  assert str(error.value).startswith(f"{tmp_path / 'a.pth'}: ") and "\n" not in str(error.value)
  assert time.monotonic() - start < 5


@pytest.mark.parametrize("older", FORMATS)
def test_every_truncated_file_gets_one_sentence(older, tmp_path):
  whole = (FOLDER / f"plain{older}.pth").read_bytes()
  file = tmp_path / "a.pth"
  for length in range(0, len(whole) - 1, 23):
    file.write_bytes(whole[:length])
    with pytest.raises(UserError):
      read_weights(file)


def test_changed_bytes_give_numbers_or_one_sentence(rng, tmp_path):
  file = tmp_path / "a.pth"
  for older in FORMATS:
    whole = np.frombuffer((FOLDER / f"plain{older}.pth").read_bytes(), np.uint8)
    for _ in range(100):
      changed = whole.copy()
      changed[rng.integers(0, len(whole), 3)] = rng.integers(0, 256, 3)
      file.write_bytes(changed.tobytes())
      try:
        read_weights(file)
      except UserError as error:
        assert "\n" not in str(error)


def test_views_cannot_multiply_a_file(tmp_path):
  views = b"".join(text(f"w{i}") + tensor() for i in range(2000))
  pickled = b"\x80\x02}(" + views + b"u."
  assert len(read(pickled, False, tmp_path)) == 2000
  large = {"0": np.zeros(1 << 18, np.float32).tobytes()}
  one = tensor((1 << 18,), of=storage(1 << 18))
  with pytest.raises(UserError, match=r"its tensors would take [\d,]+ bytes, and the file has [\d,]+"):
    read(b"\x80\x02}(" + b"".join(text(f"w{i}") + one for i in range(40)) + b"u.", False, tmp_path, large)


def test_containers_that_hold_each_other_end(tmp_path):
  doubled = b"\x80\x02]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(200)) + b"."
  with pytest.raises(UserError, match="it has no tensors by names"):
    read(doubled, False, tmp_path)
  with pytest.raises(UserError, match="it has no tensors by names"):
    read(b"\x80\x02}q\x00" + text("a") + b"h\x00s.", False, tmp_path)
  with pytest.raises(UserError, match="neither text nor a number"):  # the hash of this key would never end
    read(b"\x80\x02})" + b"q\x000h\x00h\x00\x86" * 100 + b"Ns.", False, tmp_path)


def test_many_instructions_end(tmp_path, monkeypatch):
  monkeypatch.setattr(pickles, "MOST_OPCODES", 1000)
  with pytest.raises(UserError, match="more than 1,000 instructions"):
    read(b"\x80\x02" + b"N0" * 1000 + b"N.", True, tmp_path)


def test_zips_that_pytorch_does_not_write(tmp_path):
  def refused(message, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", compression) as archive:
      for name, data in members.items():
        archive.writestr(name, data)
    with pytest.raises(UserError, match=message) as error:
      read_weights(tmp_path / "a.pth")
    assert "\n" not in str(error.value)

  good = {"a/data.pkl": state(tensor()), "a/data/0": ONE["0"]}
  refused("compressed", good, zipfile.ZIP_DEFLATED)
  refused("without the one data.pkl", {"a/data/0": ONE["0"]})
  refused("without the one data.pkl", good | {"b/data.pkl": b"."})
  refused("most significant byte first", good | {"a/byteorder": b"big"})
  refused("TorchScript", good | {"a/constants.pkl": b""})
  refused("a storage is missing", {"a/data.pkl": state(tensor())})
  refused("in place of 16", good | {"a/data/0": ONE["0"] * 2})
  refused("fewer bytes", good | {"a/data/0": ONE["0"][:-1]})
  refused("a part of its zip", good | {"a/byteorder": b"little" * 100})


def test_older_files_that_pytorch_does_not_write(tmp_path):
  def refused(message, storages=OLDER_ONE, keys=None):
    with pytest.raises(UserError, match=message):
      read(state(tensor()), True, tmp_path, storages, keys=keys)

  refused("ends before its last storage", {"0": OLDER_ONE["0"][:-1]})
  refused("another size", {"0": struct.pack("<q", 5) + ONE["0"] * 2})
  refused("not those of its tensors", keys=[])
  refused("not those of its tensors", keys=["0", "1"])
  refused("not those of its tensors", keys={"0": 1})
  buffer = io.BytesIO()
  with __import__("tarfile").open(fileobj=buffer, mode="w"):
    pass
  (tmp_path / "a.pth").write_bytes(buffer.getvalue())
  with pytest.raises(UserError, match="as neither of PyTorch's formats does"):
    read_weights(tmp_path / "a.pth")
