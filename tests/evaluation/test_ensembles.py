"""`evaluate` of ensembles and adapted levels, against numpy in float64: a tree of two levels, several heads."""

import csv
import dataclasses
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH, evaluate
from PIL import Image

from hierjax.cli.evaluate import command
from hierjax.data.source import ArraySource
from hierjax.errors import UserError
from hierjax.evaluation.answers import Rows, fold
from hierjax.evaluation.several_runs.ensembles import (
  Errors,
  all_metrics,
  errors_of,
  member_errors,
  metrics_of,
  subset_errors,
  subsets,
)
from hierjax.functional.metrics import BATCH_METRICS
from hierjax.inference.members import answers_of, open_ensemble, open_images
from hierjax.inference.pipeline import Stages, answer
from hierjax.inference.predictor import Predictor, find_images
from hierjax.report.plots.consistency import find_node
from hierjax.runs.choices import keep_choice, read_choices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.tree.label_tree import LabelTree

TOP, ALL = 4, 15  # nodes of the two levels
IMAGES = 16  # to test on, and to validate on


@pytest.fixture(scope="module")
def runs(make_run, small_config):
  """Runs by name, their weights drawn: two that learn both levels, one for each level, and one by the chain rule.

  Two see images, and the others vectors with the same labels: noise, both.
  """

  def run(name, seed, **changes):
    return make_run(config_of(small_config, **changes), seed=seed, name=name, sharpness=4.0)

  images = dict(data=dict(resize=8, crop=8, width=0), backbone=dict(name="small_resnet", widths=(4,), blocks=1))
  return {
    "both": run("both", 0, **images),
    "other": run("other", 1, head=dict(name="coarse_fine", strategy="coarse_to_fine"), data=dict(mirror=False)),
    "coarse": run("coarse", 2, tree=dict(levels=1), batch_size=24),
    "fine": run("fine", 3, merged=dict(shared=0, levels=(2,)), **images),
    "chain": run("chain", 4, head=dict(name="flat")),
  }


def config_of(small_config, **changes):
  base = {
    "head": dict(name="coarse_fine"),
    "neck": dict(name="none"),
    "backbone": dict(name="features", width=24),
    "tree": dict(levels=2) | changes.pop("tree", {}),
    "data": dict(name="noise", width=24) | changes.pop("data", {}),
  }
  return small_config(**(base | changes))


@pytest.fixture(scope="module")
def level_prob(runs):
  """Probabilities by run and split, `f64[n 4+15]`, nan where a run has none of its own; and the labels."""
  found, labels = {}, {}
  for name, folder in runs.items():
    run = Run.from_folder(folder)
    _, variables = run.restored_variables(folder, MESH)
    look = jax.jit(lambda variables, inputs, run=run: run.method.predict(variables, inputs, None, run.options))
    for split in ("validation", "test"):
      source = run.source(split)
      inputs = source.read(np.arange(IMAGES)).astype(np.float32)
      inputs = inputs if inputs.ndim == 2 else (inputs / 255 - 0.5) / 0.25
      answer = look(variables, jnp.asarray(inputs))
      prob = np.full((IMAGES, TOP + ALL), np.nan)
      levels = np.asarray(answer.node_prob if answer.level_prob is None else answer.level_prob, np.float64)
      prob[:, : levels.shape[1]] = levels
      if name == "fine":
        prob[:, :TOP] = np.nan
      found[name, split] = prob
      if name == "both":
        labels[split] = run.tree.encode(source.nodes[:, 0])
  return found, labels


def adapted(members, parent, alpha):
  """Returns the mean over runs, where they have their own, adapted as READINGS D2 has it: coarse, and fine."""
  mean = np.nanmean(members, axis=0)
  coarse, fine = mean[:, :TOP], mean[:, TOP:]
  sums = np.stack([fine[:, parent == i].sum(axis=1) for i in range(TOP)], axis=1)
  factor = 1 - alpha / 2 + alpha / 2 * coarse / sums
  return (1 - alpha / 2) * coarse + alpha / 2 * sums, fine * factor[:, parent]


def wrong(coarse, fine, parent, labels):
  """Returns bool[n 3]: the best coarse node, the best fine one, and the best path by their product (READINGS A4)."""
  leaf = (coarse[:, parent] * fine).argmax(axis=1)
  found = [coarse.argmax(axis=1) != labels[:, 0], TOP + fine.argmax(axis=1) != labels[:, 1], TOP + leaf != labels[:, 1]]
  return np.stack(found, axis=1)


@pytest.fixture(scope="module")
def oracle(runs, level_prob):
  """Returns bool[n 3], what an ensemble of runs has wrong, with an alpha."""
  parent = Run.from_folder(runs["both"]).tree.parent[TOP:]
  found, labels = level_prob

  def judge(names, alpha, split="test"):
    coarse, fine = adapted(np.stack([found[name, split] for name in names]), parent, alpha)
    if tuple(names) == ("chain",) and alpha == 0:  # its own decoding has the path to the most probable leaf alone
      coarse = np.eye(TOP)[parent[fine.argmax(axis=1)]]
    return wrong(coarse, fine, parent, labels[split])

  return judge


def evaluate_by_name(runs, *names, **flags):
  """Evaluates runs by name; `a+b` is one member."""
  evaluate(*(path(runs, name) for name in names), **flags)


def path(runs, name):
  return "+".join(str(runs[part].path) for part in name.split("+"))


def table(file):
  return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


MEMBERS = ("both", "other", "coarse+fine", "chain")


def leaf_top1(level_prob, names, alpha, runs):
  """Returns how often the label is the leaf with the largest node probability, by the chain rule."""
  found, labels = level_prob
  parent = runs["both"].tree().parent[TOP:]
  coarse, fine = adapted(np.stack([found[name, "test"] for name in names]), parent, alpha)
  sums = np.stack([fine[:, parent == i].sum(axis=1) for i in range(TOP)], axis=1)
  return (TOP + (coarse[:, parent] * fine / sums[:, parent]).argmax(axis=1) == labels["test"][:, 1]).mean()


def test_members_are_averaged_and_then_adapted(runs, level_prob, oracle, tmp_path, capsys):
  evaluate_by_name(runs, *MEMBERS, alpha="1.3", out=str(tmp_path / "out"))
  printed = capsys.readouterr().out
  for alpha, file in ((0.0, "test"), (1.3, "test-alpha1.3")):
    saved = json.loads((tmp_path / "out" / "eval" / f"{file}.json").read_text())
    names = [part for member in MEMBERS for part in member.split("+")]
    errors = oracle(names, alpha).mean(axis=0)
    np.testing.assert_allclose(saved["raw_level_accuracy"], 1 - errors[:2], rtol=1e-6)
    np.testing.assert_allclose(saved["path_accuracy"], 1 - errors[2], rtol=1e-6)
    np.testing.assert_allclose(saved["leaf_top1"], leaf_top1(level_prob, names, alpha, runs), rtol=1e-6)
    assert saved["num_examples"] == IMAGES and saved["alpha"] == alpha
    with (tmp_path / "out" / "eval" / f"{file}-classes.csv").open(newline="") as table:
      top = [row for row in csv.DictReader(table) if row["level"] == "level 1"]
    right = sum(int(row["right"]) for row in top) / sum(int(row["images"]) for row in top)
    np.testing.assert_allclose(saved["level_accuracy"][0], right, rtol=1e-6)
    assert [len(member["runs"]) for member in saved["members"]] == [1, 1, 2, 1]
    for row, size in zip(saved["ensembles"], (1, 2, 3, 4), strict=True):
      each = [
        oracle([part for member in subset for part in member.split("+")], alpha).mean(axis=0)
        for subset in itertools.combinations(MEMBERS, size)
      ]
      assert row["size"] == size and row["subsets"] == len(each)
      np.testing.assert_allclose([*row["raw_level_error"], row["path_error"]], np.mean(each, axis=0), atol=1e-9)
      if size < 4:
        spread = [*row["raw_level_error_deviation"], row["path_error_deviation"]]
        np.testing.assert_allclose(spread, np.std(each, axis=0, ddof=1), atol=1e-9)
      text = f"{100 * np.mean(each, axis=0)[0]:.2f}%"
      assert any(line.startswith(f"ensemble-{size} ") and text in line for line in printed.splitlines())
  assert oracle(MEMBERS[:2], 1.3).any() and (oracle(MEMBERS[:2], 1.3) != oracle(MEMBERS[:2], 0.0)).any()


def test_a_chain_rule_head_says_that_nothing_changes(runs, oracle, capsys, monkeypatch):
  evaluate_by_name(runs, "chain", alpha="1")
  assert "follows the chain rule, so that its levels agree by construction" in capsys.readouterr().out
  saved = json.loads((runs["chain"].path / "eval" / "test.json").read_text())
  np.testing.assert_allclose(saved["path_accuracy"], 1 - oracle(["chain"], 0.0)[:, 2].mean(), rtol=1e-6)
  assert sorted(file.name for file in (runs["chain"].path / "eval").iterdir()) == ["test-classes.csv", "test.json"]

  for alpha, message in (("x", "give a number"), ("nan", "alpha"), ("3", "alpha")):
    with pytest.raises(UserError, match=message):
      evaluate_by_name(runs, "chain", alpha=alpha)
    with pytest.raises(UserError, match=message):
      Predictor(runs["both"].path, alpha=alpha)

  plain = []
  monkeypatch.setattr(command, "_plain", lambda args, mesh: plain.append(args.workdir) or {})
  evaluate_by_name(runs, "chain", alpha="sweep")
  evaluate_by_name(runs, "fine", alpha="1")
  assert "upper levels are sums of the last" in capsys.readouterr().out and len(plain) == 2
  assert not (runs["chain"].path / "choices.json").exists()


@pytest.mark.parametrize("flags", [{}, {"alpha": 1}, {"threshold": 0.5}])
def test_what_cannot_be_written_is_printed_all_the_same(runs, flags, capsys, monkeypatch):
  def refuse(path, content):
    raise OSError(30, "Read-only file system", str(path))

  monkeypatch.setattr("hierjax.runs.folder.write_whole", refuse)
  with pytest.raises(UserError, match=r"test.*\.json could not be written \(.*Read-only"):
    evaluate_by_name(runs, "both", **flags)
  assert f"{IMAGES} images of test" in capsys.readouterr().out


@pytest.fixture(scope="module")
def swept(runs, tmp_path_factory):
  """The folder of a run after a sweep."""
  folder = tmp_path_factory.mktemp("swept") / "both"
  shutil.copytree(runs["both"].path, folder, ignore=shutil.ignore_patterns("eval"))
  evaluate(folder, alpha="sweep", node="polygon")
  return folder


def test_a_sweep_is_the_errors_with_each_alpha(swept, oracle):
  rows = table(swept / "pictures" / "adaptation.csv")
  assert len(rows) == 2 * 21 * 3
  for row in rows:
    i = ("raw level 1", "raw level 2", "path").index(row["what"])
    found = oracle(["both"], float(row["alpha"]), row["split"])[:, i].mean()
    np.testing.assert_allclose(float(row["error"]), found, atol=1e-6, err_msg=str(row))
    assert row["deviation"] == "" and row["ensemble"] == row["subsets"] == "1"
  with Image.open(swept / "pictures" / "adaptation.png") as picture:
    assert picture.width > 1000


def test_alpha_is_chosen_on_validation_and_kept(swept, oracle, runs, capsys):
  alphas = [round(0.1 * i, 1) for i in range(21)]
  means = {
    split: [oracle(["both"], alpha, split)[:, :2].mean() for alpha in alphas] for split in ("validation", "test")
  }
  ranked = [
    (round(mean, 6), round(abs(alpha - 1), 1), alpha) for mean, alpha in zip(means["validation"], alphas, strict=True)
  ]
  folder = RunFolder(swept)
  (choice,) = read_choices(folder)
  assert (choice.kind, choice.value) == ("alpha", min(ranked)[2])
  np.testing.assert_allclose(choice.about["error"], min(ranked)[0], atol=1e-6)
  assert means["validation"] != means["test"]
  assert choice.about["images"] == IMAGES and choice.about["split"] == "validation"
  chosen = swept / "eval" / f"test-alpha{choice.value:g}.json"
  before = json.loads(chosen.read_text())
  chosen.unlink()
  evaluate(swept, alpha="chosen")
  assert json.loads(chosen.read_text()) == before

  whole = (swept / "choices.json").read_text()
  (swept / "choices.json").unlink()
  keep_choice(folder, dataclasses.replace(choice, made_for={"members": [{"run": ".", "step": 7}]}))
  with pytest.raises(UserError, match=r"choices\.json has a choice for other runs, weights, views or alpha"):
    evaluate(swept, alpha="chosen")
  (swept / "choices.json").write_text(whole)


def test_consistency_is_the_probability_of_a_node_and_its_children(swept, level_prob, runs):
  tree = Run.from_folder(runs["both"]).tree
  node, parent = tree.find(["polygon"]), tree.parent[TOP:]
  rows = table(swept / "pictures" / "consistency.csv")
  assert len(rows) == IMAGES
  for alpha in (0, 1):
    coarse, fine = adapted(level_prob[0]["both", "test"][None], parent, alpha)
    expected = np.stack([coarse[:, node], fine[:, parent == node].sum(axis=1)], axis=1)
    found = [[float(row[f"{what}_at_{alpha}"]) for what in ("node", "children")] for row in rows]
    np.testing.assert_allclose(found, expected, atol=2e-5)
  inside = [int(row["in_node"]) for row in rows]
  np.testing.assert_array_equal(inside, level_prob[1]["test"][:, 0] == node)
  assert 0 < sum(inside) < IMAGES and (swept / "pictures" / "consistency.png").exists()


def test_an_image_without_a_name_is_not_the_folder_one_is_in():
  with pytest.raises(UserError, match="has an empty name"):
    find_images(["x.png", ""])


def test_predict_adapts_as_evaluate_does(runs, level_prob, tmp_path):
  run = Run.from_folder(runs["both"])
  files = [tmp_path / f"{i}.png" for i in range(3)]
  for file, pixels in zip(files, run.source("test").read(np.arange(3)), strict=True):
    Image.fromarray(pixels).save(file)
  parent = run.tree.parent[TOP:]
  coarse, fine = adapted(level_prob[0]["both", "test"][None, :3], parent, 1.0)
  rows = Predictor(runs["both"].path, alpha="1")(files)
  best = TOP + (coarse[:, parent] * fine).argmax(axis=1)
  assert [row.path for row in rows] == [run.tree.path_text(int(node)) for node in best]
  np.testing.assert_allclose([row.probability for row in rows], fine[np.arange(3), best - TOP], rtol=1e-4)
  np.testing.assert_allclose(
    [row.node_probabilities[0] for row in rows], coarse[np.arange(3), parent[best - TOP]], rtol=1e-4
  )


def test_two_sets_of_runs_are_compared_pair_by_pair(runs, oracle, tmp_path, capsys):
  against = [path(runs, "coarse+fine"), path(runs, "both")]
  evaluate_by_name(runs, "both", "other", alpha="1", against=against, against_alpha="0.5", out=str(tmp_path))
  first = np.stack([oracle([name], 1.0) for name in ("both", "other")])
  second = np.stack([oracle(names, 0.5) for names in (["coarse", "fine"], ["both"])])
  for i, row in enumerate(table(tmp_path / "significance.csv")):
    found = [float(row[name]) for name in ("first", "second", "difference")]
    means = first[..., i].mean(), second[..., i].mean()
    np.testing.assert_allclose(found, [*means, means[0] - means[1]], atol=1e-9)
    assert row["runs"] == "2" and row["images"] == str(IMAGES)
  assert "paired Student t-test over 2 pairs" in capsys.readouterr().out


def test_without_validation_no_alpha_is_chosen(runs, tmp_path, capsys):
  shutil.copytree(runs["both"].path, tmp_path / "run", ignore=shutil.ignore_patterns("choices.json"))
  config = runs["both"].config()
  config["data"]["validation"] = 0.0
  (tmp_path / "run" / "config.json").write_text(json.dumps(config))
  evaluate(tmp_path / "run", alpha="sweep")
  assert "has no validation split: no alpha is chosen" in capsys.readouterr().out
  assert (
    not (tmp_path / "run" / "choices.json").exists() and (tmp_path / "run" / "pictures" / "adaptation.png").exists()
  )


def test_probabilities_that_do_not_sum_to_1_are_refused(runs):
  ensemble = open_ensemble([str(runs[name].path) for name in ("both", "other")], MESH)
  part = ensemble.parts[1]
  broken = jax.tree.map(lambda x: x * np.nan, part.variables)
  ensemble = dataclasses.replace(ensemble, parts=(ensemble.parts[0], dataclasses.replace(part, variables=broken)))
  with pytest.raises(UserError, match="other: its probabilities of level 1 sum to nan for noise example 0, not to 1"):
    list(answers_of(ensemble, open_images(ensemble, "")))


@pytest.mark.parametrize(
  ("names", "flags", "message"),
  [
    (("both", "coarse"), {}, r"coarse has levels that do not cover the tree, 1 of 2: join it by \+ to a run"),
    (("both", "renamed"), {}, r"both \(tree [0-9a-f]{12}\) and \S*renamed \(tree [0-9a-f]{12}\) have different label"),
    (("both", "both"), {}, "both is named twice"),
    (("both", "more"), {}, "both and .*more have not the same images in their split 'test'"),
    (("both", "other"), dict(alpha="sweep"), "--alpha sweep of several runs needs a folder"),
    (("both",), dict(alpha="2.5"), r"--alpha = 2\.5: on a tree of 2 levels it must be from 0 to 2"),
    (("both",), dict(alpha="much"), "--alpha much: give a number"),
    (("other",), dict(alpha="chosen"), r"--alpha chosen: \S*choices\.json has none"),
    (("both",), dict(alpha="sweep", node="disc"), "--node disc: it is a leaf"),
    (("both",), dict(alpha="1", node="round"), "--node belongs to the picture of --alpha sweep"),
    (("both",), dict(alpha="1", known_levels=1), "--known-levels is for a single run"),
    (("both",), dict(against=["x"], alpha="sweep"), "--against compares at one alpha"),
    (("both",), dict(against_alpha="1"), "--against-alpha is the alpha of the runs of --against"),
  ],
)
def test_flags_that_do_not_go_together_are_refused(runs, tmp_path, names, flags, message):
  tree = runs["other"].tree()
  renamed = LabelTree.from_children([name.upper() for name in tree.names], np.diff(tree.child_offsets))
  others = {}
  for name, own_tree, examples in (("renamed", renamed, 96), ("more", tree, 120)):
    folder = tmp_path / name
    shutil.copytree(runs["other"].path, folder)
    config = runs["other"].config()
    config["data"]["examples"] = examples
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tree.json").write_text(own_tree.to_json())
    others[name] = RunFolder(folder)
  with pytest.raises(UserError, match=message):
    evaluate_by_name(runs | others, *names, **flags)


def test_an_ensembles_folder_is_no_runs(runs):
  with pytest.raises(UserError, match="both is the folder of a run"):
    evaluate_by_name(runs, "both", "other", out=str(runs["both"].path))
  with pytest.raises(UserError, match="both is the folder of a run"):
    evaluate_by_name(
      runs, "both", "other", against=[path(runs, n) for n in ("fine", "chain")], out=str(runs["both"].path)
    )


def test_a_node_is_found_by_its_name_or_path(toy_tree):
  assert toy_tree.names[find_node(toy_tree, "")] == "animal"
  assert find_node(toy_tree, "dog") == find_node(toy_tree, "animal/dog") == toy_tree.names.index("dog")
  with pytest.raises(UserError, match="--node horse: 0 nodes are called that; name one by its path, such as animal"):
    find_node(toy_tree, "horse")
  twice = LabelTree.from_children(["a", "b", "x", "x", "y", "z"], [2, 1, 1, 1, 1, 0, 0])
  with pytest.raises(UserError, match=r"--node x: 2 nodes are called that; .* a/x, b/x"):
    find_node(twice, "x")


def test_all_subsets_of_up_to_four_members_are_measured_and_all_members():
  assert len(subsets(4)) == 15 and subsets(1) == ((0,),)
  sizes = [len(subset) for subset in subsets(6)]
  assert [sizes.count(n) for n in range(1, 7)] == [6, 15, 20, 15, 0, 1]


def test_what_no_image_counts_for_has_no_error():
  errors = Errors((0.0, 1.0), ((0,), (1,), (0, 1)), np.array([[[1, 0]] * 2] * 3), np.array([4, 0]), ("level 1",))
  assert errors.sizes == (1, 2) and errors.at([1.0]).wrong.shape == (3, 1, 2)
  np.testing.assert_array_equal(errors.mean(1), [[0.25, np.nan]] * 2)
  assert np.isnan(errors.deviation(2)).all() and errors.deviation(1)[0, 0] == 0


@pytest.fixture
def with_gaps(runs, monkeypatch, tmp_path):
  """Copies of two runs whose test images have gaps: labels that end early or are missing, images that cannot be read.

  Returns the folders, the labels `i32[n 2]` of all images, and the images that each run cannot read.
  """
  tree, bad = runs["both"].tree(), {"both": [3, 15], "other": [8]}
  nodes = Run.from_folder(runs["both"]).source("test").nodes.copy()
  nodes[[2, 5, 11], 0] = tree.parent[nodes[[2, 5, 11], 0]]
  nodes[[7], 0] = -1
  folders = []
  for name in bad:
    config = runs[name].config()
    config["data"]["on_bad_image"] = "skip"
    shutil.copytree(runs[name].path, tmp_path / name, ignore=shutil.ignore_patterns("eval", "pictures"))
    (tmp_path / name / "config.json").write_text(json.dumps(config))
    folders.append(RunFolder(tmp_path / name))
  open_split = Run.source

  def source(run, split):
    images = open_split(run, split).read(np.arange(IMAGES))
    own = "both" if images.ndim == 4 else "other"
    return ArraySource(images, nodes, bad=dict.fromkeys(bad[own], "bad"))

  monkeypatch.setattr(Run, "source", source)
  return folders, tree.encode(nodes[:, 0]), bad


def test_what_no_label_tells_and_what_a_member_cannot_read_is_not_counted(with_gaps, level_prob, runs):
  folders, labels, bad = with_gaps
  ensemble = open_ensemble([str(folder.path) for folder in folders], MESH)
  images, alphas, stages = open_images(ensemble, "test"), (0.0, 1.0), Stages(ensemble.whole.run.options)
  sums, rows = subset_errors(ensemble, alphas, stages), member_errors(ensemble, 1.0, stages)
  metrics = all_metrics(ensemble, alphas, stages)
  fold(ensemble, images, sums, rows, metrics)
  errors, found = errors_of(sums, ensemble, alphas), metrics_of(metrics)

  read = np.isin(np.arange(IMAGES), [*bad["both"], *bad["other"]], invert=True)
  known = np.stack([labels[:, 0] >= 0, labels[:, 1] >= 0, labels[:, 0] >= 0], axis=1) & read[:, None]
  np.testing.assert_array_equal(errors.counted, known.sum(axis=0))
  assert errors.counted.tolist() == [12, 9, 12]
  parent = runs["both"].tree().parent[TOP:]
  said = {name: level_prob[0][name, "test"] for name in ("both", "other")}

  def expected(names, alpha):
    coarse, fine = adapted(np.stack([said[name] for name in names]), parent, alpha)
    leaf = (coarse[:, parent] * fine).argmax(axis=1)
    path = (parent[leaf] != labels[:, 0]) | ((TOP + leaf != labels[:, 1]) & (labels[:, 1] >= 0))
    levels = [coarse.argmax(axis=1) != labels[:, 0], TOP + fine.argmax(axis=1) != labels[:, 1]]
    return np.stack([*levels, path], axis=1) & known

  for s, subset in enumerate(errors.subsets):
    for a, alpha in enumerate(alphas):
      names = [("both", "other")[member] for member in subset]
      np.testing.assert_array_equal(errors.wrong[s, a], expected(names, alpha).sum(axis=0))
  for alpha, values in zip(alphas, found, strict=True):
    share = expected(["both", "other"], alpha).sum(axis=0) / known.sum(axis=0)
    np.testing.assert_allclose([*values["raw_level_accuracy"], values["path_accuracy"]], 1 - share, rtol=1e-6)
    assert values["num_examples"] == read.sum()
  wrong, counted = rows.values(IMAGES)
  np.testing.assert_array_equal(counted, known)
  for member, name in enumerate(said):
    np.testing.assert_array_equal(wrong[:, member], expected([name], 1.0))


def test_alpha_0_is_the_evaluation_of_the_run_itself(runs, tmp_path):
  shutil.copytree(runs["other"].path, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
  evaluate(tmp_path / "run")
  evaluate(tmp_path / "run", alpha=0)
  plain, adapted_by_0 = (
    json.loads((tmp_path / "run" / "eval" / f"{n}.json").read_text()) for n in ("test", "test-alpha0")
  )
  measured = {name: value for name, value in plain.items() if name in BATCH_METRICS or name == "num_examples"}
  assert {name: adapted_by_0[name] for name in measured} == measured and len(measured) == len(BATCH_METRICS) + 1
  assert adapted_by_0.keys() - plain.keys() == {"alpha", "members"}
  assert plain.keys() - adapted_by_0.keys() == {"loss", "step", "views", "examples", "temperature"}


def test_a_run_alone_in_a_larger_ensemble_has_the_errors_of_its_own_decoding(runs, make_run, small_config, tmp_path):
  config = config_of(small_config, head=dict(name="path_rnn", width=4), decode=dict(beam=1))
  every = runs | {"greedy": make_run(config, seed=6, name="greedy", sharpness=12.0)}
  names = ("greedy", "both", "chain")
  ensemble = open_ensemble([path(every, name) for name in names], MESH)
  images, stages = open_images(ensemble, "test"), Stages(ensemble.parts[0].run.options)
  tree = ensemble.whole.run.method.tree
  exact = Rows(jax.jit(lambda answered: answer(answered.distributions[:1], stages, tree).paths[:, 0]))
  own = Rows(lambda answered: answered.own[0].paths[:, 0])
  sums = subset_errors(ensemble, (0.0, 1.0), stages)
  fold(ensemble, images, exact, own, sums)
  assert (exact.values(IMAGES) != own.values(IMAGES)).any(), "a greedy search misses some of the best paths"

  errors = errors_of(sums, ensemble, (0.0, 1.0))
  for member, name in enumerate(names):
    evaluate_by_name(every, name)
    found = json.loads((every[name].path / "eval" / "test.json").read_text())
    expected = [*(1 - np.array(found["raw_level_accuracy"])), 1 - found["path_accuracy"]]
    assert errors.subsets[member] == (member,)
    np.testing.assert_allclose(errors.wrong[member, 0] / errors.counted, expected, atol=1e-7)
