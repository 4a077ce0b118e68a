"""Every config builds, every smoke variant runs, and what is derived follows what is overridden."""

import importlib.util
import itertools
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest
from commands import MESH
from without_weights import without_weights

from configs import chrnn, common
from hierjax.config import flatten, unpack
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.run import Run
from hierjax.training.loop import run as loop
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.schedule import RunLength, make_schedule
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import UNKNOWN

FILES = sorted(
  p for p in (Path(__file__).parents[1] / "configs").glob("*.py") if p.stem not in ("chrnn", "common", "dhnn")
)

CIFAR100_ROWS = ("cnnrnn_cifar100", "coarse_fine_cifar100", "flat_cifar100")


def module(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  found = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(found)
  return found


def variants():
  """Every combination of words; of a config that has very many, every word alone, and with `smoke`.

  Slow are those whose words all make the same changes in a config before, but for `smoke` and none.
  """
  made = set()
  for path in FILES:
    kinds = module(path).KINDS
    edits = {word: edit for kind in kinds for word, edit in kind.items()}
    found = [",".join(filter(None, words)) for words in itertools.product(*(("", *kind) for kind in kinds))]
    if len(found) > 30:
      words = [word for kind in kinds for word in kind if word != "smoke"]
      beside = [word for kind in kinds if "smoke" not in kind for word in kind]
      found = ["", "smoke", *words, *(f"{word},smoke" for word in beside)]
    for variant in found:
      again = variant not in ("", "smoke") and {edits[word] for word in variant.split(",")} <= made
      yield pytest.param(path, variant, id=f"{path.stem}:{variant}", marks=pytest.mark.slow if again else ())
    made |= set(edits.values())


SHAPES, TREES = {}, {}  # shapes and trees, by what they depend on: many variants have the same


def shapes_of(run):
  """Returns the shapes of a run's weights, from one trace of each distinct backbone, neck and head."""
  network, paths = run.method.module, jnp.full((1, 1, run.tree.depth), UNKNOWN, jnp.int32)
  features, backbone = traced(network.backbone, jnp.zeros((1, *run.example_shape)))
  neck = {}
  if network.neck is not None:
    features, neck = traced(network.neck, features)
  _, head = traced(network.head, features, paths)
  return {part: shapes for part, shapes in (("backbone", backbone), ("neck", neck), ("head", head)) if shapes}


def traced(module, *arguments):
  """Returns the shapes of a module's output and of its weights."""
  arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
  name = repr((module, arguments))
  if name not in SHAPES:
    rngs = dict.fromkeys(("params", "dropout"), jax.random.key(0))
    output, variables = jax.eval_shape(lambda given: module.init_with_output(rngs, *given), arguments)
    SHAPES[name] = output, variables.get("params", {})
  return SHAPES[name]


def run_of(config):
  config = without_weights(config)
  source = repr((config["tree"], config["data"]["name"]))
  toy = from_paths([("animal", "dog"), ("thing", "cup")]) if config["tree"]["source"] == "images" else None
  run = Run.from_config(config, TREES.get(source, toy))
  TREES[source] = run.tree
  return run


@pytest.mark.parametrize(("path", "variant"), list(variants()))
def test_every_variant_builds(path, variant):
  config = module(path).get_config(variant).to_dict()
  optim = unpack(OptimConfig, config["optim"], "optim")
  make_optimizer(optim, shapes_of(run_of(config)))  # every parameter is covered
  make_schedule(config["schedule"], 1.0, RunLength(10.0, 100))


# One of each kind of network that no other test trains: test_chrnn.py trains a C-HRNN, test_end_to_end.py a CNN-RNN,
# and inference/test_features.py a head on features. The other configs differ in data, sizes and fields, set up above.
TRAINED = ("coarse_fine_cifar100", "dhnn_cifar100", "dhnn_openimages", "merged_cifar100")
TRACED = (*TRAINED, "chrnn_cifar100", "cnnrnn_cifar100", "features")


def files(usual):
  """Returns all configs, those that are not among the usual ones slow."""
  return [pytest.param(path, id=path.stem, marks=() if path.stem in usual else pytest.mark.slow) for path in FILES]


@pytest.mark.parametrize("path", files(TRACED))
def test_the_weights_of_the_parts_are_those_of_the_whole(path):
  run = run_of(module(path).get_config("smoke").to_dict())
  whole = jax.eval_shape(lambda: run.init_variables(jax.random.key(0), run.example_shape))
  chex.assert_trees_all_equal(shapes_of(run), whole["params"])


@pytest.mark.parametrize("path", files(TRAINED))
def test_every_config_trains_on_generated_images(path, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
  config = module(path).get_config("smoke").to_dict()
  metrics = loop.train_and_evaluate(config, str(tmp_path))
  assert metrics["num_examples"] > 0
  several = "path_f1" in metrics
  assert 0 <= metrics["path_f1" if several else "path_accuracy"] <= 1
  assert ("path F1" if several else "path accuracy") in capsys.readouterr().out


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_config_opens_with_its_command(path):
  assert f"python train.py --config=configs/{path.name}" in module(path).__doc__


@pytest.mark.parametrize("network", common.CIFAR100_NETWORKS)
def test_the_rows_of_a_table_differ_in_nothing_but_head_and_tree(network):
  rows = [module(p).get_config(network).to_dict() for p in FILES if p.stem in CIFAR100_ROWS]
  for row in rows:
    del row["head"], row["tree"]
  assert len(rows) == 3 and rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize(
  ("name", "variant", "ends"),
  [
    ("flat_cifar100", "wrn", {79: 1.0, 81: 0.2, 161: 0.04, 241: 0.008}),  # READINGS G14
    ("flat_cifar100", "wider", {159: 1.0, 161: 0.1, 241: 0.01}),
    ("flat_cifar100", "cnn7", {79: 1.0, 81: 0.1, 161: 0.01}),
    ("merged_cifar100", "resnet164", {81: 1.0, 82: 0.1, 123: 0.01}),
    ("merged_cifar100", "densenet100", {149: 1.0, 151: 0.1, 226: 0.01}),
  ],
)
def test_the_rates_of_the_papers_networks_fall_as_theirs(name, variant, ends):
  path = next(p for p in FILES if p.stem == name)
  config = module(path).get_config(variant).to_dict()
  steps_per_epoch = 50_000 / config["batch_size"]
  total = round(config["epochs"] * steps_per_epoch)
  schedule, _ = make_schedule(config["schedule"], 1.0, RunLength(steps_per_epoch, total))
  for epoch, rate in ends.items():
    assert float(schedule(round(epoch * steps_per_epoch))) == pytest.approx(rate)


def test_the_plain_vgg16_of_open_images_has_its_fully_connected_layers():
  path = next(p for p in FILES if p.stem == "dhnn_openimages")
  config = module(path).get_config("vgg16,cnn").to_dict()
  run = Run.from_config(config)
  params = jax.eval_shape(lambda: run.init_variables(jax.random.key(0), run.example_shape))["params"]
  assert params["head"]["output"]["kernel"].shape == (4096, 30)
  assert "top" not in module(path).get_config("vgg16").to_dict()["backbone"]


def test_the_features_of_imagenet_are_of_whole_images():
  path = next(p for p in FILES if p.stem == "cnnrnn_imagenet")
  data = module(path).get_config("images").to_dict()["data"]
  assert (data["resize"], data["crop"], data["fit"], data["mirror"]) == (224, 224, "stretch", False)


def test_a_network_of_photographs_from_scratch_has_neither_dropout_nor_label_smoothing():
  build = module(next(p for p in FILES if p.stem == "photos")).get_config
  path_rnn, flat = build("from_scratch").head, build("from_scratch,flat").head
  assert (path_rnn.dropout, path_rnn.label_smoothing) == (0.0, 0.0)
  assert (flat.dropout, flat.criterion) == (0.0, "cross_entropy")
  assert build("flat").head.criterion == build("finetune,flat").head.criterion == "label_smoothing"


def test_unknown_and_clashing_variants_are_refused():
  kinds = ({"a": lambda c: None, "b": lambda c: None}, {"x": lambda c: None})
  with pytest.raises(UserError, match="unknown variant 'c'; choose from: a, b, x"):
    common.apply(common.base(), "a,c", kinds)
  with pytest.raises(UserError, match="a and b exclude each other"):
    common.apply(common.base(), "a,b", kinds)


def test_a_stray_or_missing_key_is_named():
  config = common.base().to_dict()
  config["data"]["colour"] = "red"
  config["tree"]["source"] = "shapes"
  with pytest.raises(UserError, match=r"config\.data\.colour: there is no such key"):
    Run.from_config(config)
  with pytest.raises(UserError, match=r"^config\.head is missing"):
    Run.from_config({k: v for k, v in common.base().to_dict().items() if k != "head"})


def test_every_key_of_the_base_is_known_to_what_reads_it():
  run = Run.from_config(common.base().to_dict() | {"tree": {"source": "shapes"}})
  optim = unpack(OptimConfig, run.config.optim, "optim")
  assert flatten(common.base().to_dict())["optim.lr"] == optim.lr


def test_the_learning_rate_follows_the_batch_size_where_it_is_meant_for_one():
  assert OptimConfig(lr=0.1, lr_batch=128).peak_lr(128) == 0.1
  assert OptimConfig(lr=0.1, lr_batch=128).peak_lr(64) == 0.05
  assert OptimConfig(lr=0.1, lr_batch=0).peak_lr(64) == 0.1


def documented(text):
  """Returns the words of each line of a docstring's list of variants: `WORD (...) | WORD: ... | ...`."""
  lines = re.split(r"^Variants.*at most one of each line:\n", text, flags=re.M)[1].split("\n\n")[0]
  entries = re.sub(r"\n {4,}", " ", lines).strip().splitlines()
  return {frozenset(re.match(r"\w+", word.strip())[0] for word in entry.split(" | ")) for entry in entries}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_each_documented_word_is_a_variant_and_the_reverse(path):
  found = module(path)
  own = documented(found.__doc__) if "at most one of each line:\n" in found.__doc__ else set()
  shared = documented(chrnn.__doc__) if "see configs/chrnn.py" in found.__doc__ else set()
  assert own | shared == {frozenset(kind) for kind in found.KINDS}


def test_the_partitions_of_sun397_are_its_own_ten():
  build = module(next(p for p in FILES if p.stem == "chrnn_sun397")).get_config
  names = [build(word).data.name for word in ("", *(f"hlstm,part{number}" for number in range(1, 11)))]
  assert names == [f"sun397/standard-part{number}-120k" for number in (1, *range(1, 11))]


def test_figure_8_of_guo_et_al_has_its_nine_pairs_on_both_sets():
  pairs = [(fine, coarse) for fine in (10, 20, 50) for coarse in (10, 20, 50)]
  for name in ("coarse_labels_cifar100", "cnnrnn_imagenet2010"):
    build = module(next(p for p in FILES if p.stem == name)).get_config
    data = [build(f"f{fine}c{coarse},pseudo").data for fine, coarse in pairs]
    assert [(d.fine, d.coarse, d.partial_labels) for d in data] == [(f / 100, c / 100, "pseudo") for f, c in pairs]
