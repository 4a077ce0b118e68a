"""The files of `export` give the answers of `predict`, by themselves."""

import hashlib
import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from hierjax.cli.main import main
from hierjax.inference.features import write_features
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.predictor import Predictor
from hierjax.runs.devices import data_mesh
from hierjax.runs.folder import RunFolder

NONE = dict(name="none")
HEADS = {
  "flat on a context neck, in bfloat16": (dict(head=dict(name="flat"), dtype="bfloat16"), dict(batch=5, top=3)),
  "a path's LSTM, two best paths, with a threshold": (
    dict(head=dict(name="path_rnn", width=8), neck=NONE, decode=dict(beam=3)),
    dict(batch=2, top=2, threshold="0.3"),
  ),
  "levels side by side, adapted, of ten views": (
    dict(head=dict(name="coarse_fine"), neck=NONE, decode=dict(views=10)),
    dict(batch=1, alpha="1"),
  ),
  "several paths an image": (
    dict(head=dict(name="multilabel"), neck=NONE, decode=dict(thresholds=(0.4,))),
    dict(batch=3),
  ),
}


def ask_exported(folder, images):
  """Returns the rows `(path, node_probabilities, log_probability)` of each image, by numpy, from the folder's files."""
  about = json.loads((folder / "model.json").read_text())
  weights = load_file(folder / "weights.safetensors")
  ask = jax.jit(jax.export.deserialize((folder / "model.stablehlo").read_bytes()).call)
  batch = about["images"]["shape"][0]
  for start in range(0, len(images), batch):
    some = images[start : start + batch]
    answer = ask(weights, np.concatenate([some, np.zeros((batch - len(some), *some.shape[1:]), np.uint8)]))
    assert answer["paths"].shape[1] == about["top"] and answer["node_prob"].shape == (batch, len(about["nodes"]))
    for i in range(len(some)):
      found = {}
      for path, score in zip(answer["paths"][i].tolist(), answer["log_prob"][i].tolist(), strict=True):
        nodes = [node for node in path if node >= 0]
        if nodes and np.isfinite(score):
          found.setdefault(about["nodes"][nodes[-1]], (answer["node_prob"][i, nodes[0]], score))
      yield found


def check(folder, out, tmp_path, rng, **arguments):
  """Exports a run by the command, and compares what the files answer about noise with what `predict` does."""
  flags = [word for name, value in arguments.items() for word in (f"--{name.replace('_', '-')}", str(value))]
  assert main(["export", str(folder.path), str(out), *flags]) == 0
  about = json.loads((out / "model.json").read_text())
  shape = about["images"]["shape"]
  kept = about.pop("sha256")
  files = {name: (out / name).read_bytes() for name in ("model.stablehlo", "weights.safetensors")}
  files["model.json"] = json.dumps(about, sort_keys=True).encode()
  assert kept == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
  images = rng.integers(0, 256, (5, *shape[1:]), dtype=np.uint8)
  files = [tmp_path / f"{i}.png" for i in range(len(images))]
  for file, image in zip(files, images, strict=True):
    Image.fromarray(image.squeeze(-1) if shape[-1] == 1 else image).save(file)
  wanted = {str(file): {} for file in files}
  for row in Predictor(folder.path, **{k: v for k, v in arguments.items() if k != "batch"})(files):
    if row.path:
      wanted[row.image][row.path] = (row.node_probabilities[0], row.log_probability)
  for file, found in zip(files, ask_exported(out, images), strict=True):
    assert list(found) == list(wanted[str(file)])
    for path, numbers in wanted[str(file)].items():
      np.testing.assert_allclose(found[path], numbers, rtol=1e-4, atol=1e-6)
  assert sum(map(len, wanted.values())) >= 4
  return shape


@pytest.mark.parametrize("name", HEADS)
def test_the_files_answer_as_predict_does(name, make_run, small_config, tmp_path, rng):
  changes, arguments = HEADS[name]
  folder = make_run(small_config(**changes), sharpness=5.0)
  assert check(folder, tmp_path / "out", tmp_path, rng, **arguments) == [arguments["batch"], 20, 20, 3]


def test_a_run_on_features_is_exported_with_what_makes_them(make_run, small_config, tmp_path, rng):
  maker = make_run(small_config(data=dict(mean=(0.5,), std=(0.25,), name="noise", width=0), neck=NONE), name="maker")
  about = write_features(LoadedRun.open(maker, data_mesh(), views=1), tmp_path / "features")
  data = dict(name="features", root=str(tmp_path / "features"))
  backbone = dict(name="features", width=about["width"])
  folder = make_run(small_config(backbone=backbone, neck=NONE, data=data, tree=dict(source="images")), sharpness=5.0)
  assert check(folder, tmp_path / "out", tmp_path, rng, batch=4) == [4, 20, 20, 1]
  weights = load_file(tmp_path / "out" / "weights.safetensors")
  assert {"/".join(name.split("/")[::2][:2]) for name in weights} == {"model/head", "eye/backbone"}
  model = jax.export.deserialize((tmp_path / "out" / "model.stablehlo").read_bytes())
  flat = model.call(
    {name: np.zeros_like(weight) for name, weight in weights.items()}, np.zeros((4, 20, 20, 1), np.uint8)
  )
  leaves = RunFolder(folder.path).tree().leaves
  np.testing.assert_allclose(flat["node_prob"][:, leaves], 1 / len(leaves), rtol=1e-5)  # the weights are arguments


def test_what_cannot_be_exported_leaves_nothing(context_run, tmp_path, capsys):
  (tmp_path / "full" / "of").mkdir(parents=True)
  for words, status, message in (
    ([context_run.path, "full"], 1, "full is there already: name a new folder"),
    ([context_run.path, "new", "--batch", "5000"], 1, "--batch 5000: must be 1 to 4,096 images"),
    ([context_run.path, "new", "--batch", "0"], 2, "--batch: 0: must be at least 1"),
    ([tmp_path / "nothing", "new"], 1, "nothing is not a run folder"),
  ):
    run, out, *flags = words
    assert main(["export", str(run), str(tmp_path / out), *flags]) == status
    assert message in capsys.readouterr().err
  assert [p.name for p in tmp_path.iterdir()] == ["full"]
