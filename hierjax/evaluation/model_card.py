"""MODEL_CARD.md of a run: what the model answers, how good it is, where it fails, and what it was made from."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hierjax import __version__
from hierjax.evaluation.tables import accuracy_rows, percent
from hierjax.runs.choices import read_choices
from hierjax.runs.folder import RunFolder, write_whole
from hierjax.tree.label_finder import split_path
from hierjax.tree.label_tree import LabelTree

FILE = "MODEL_CARD.md"
_SHOWN = 12  # nodes of the top level, and classes of the lowest recall


def write_model_card(folder: RunFolder) -> Path:
  """Writes MODEL_CARD.md to a run's folder and returns its path."""
  path = folder.path / FILE
  write_whole(path, model_card(folder))
  return path


def model_card(folder: RunFolder, name: str = "") -> str:
  """Returns the card of a run as Markdown, which begins with the fields that the Hugging Face Hub reads.

  All names are escaped: labels come from files of users.

  Args:
    folder: of the run.
    name: by which others load it, `hf:OWNER/NAME`; '' for the folder's own.

  Raises:
    UserError: the folder is not that of a run.
  """
  config, tree = folder.config(), folder.tree()
  metrics = next(filter(None, map(folder.evaluation, ("test", "validation"))), None)
  parts = [
    _fields(),
    f"# {_text(name.removeprefix('hf:') or folder.path.name)}",
    _what(config, tree),
    _use(name or folder.path.name),
    _results(metrics),
    _limits(config, tree, metrics),
    _tree(tree),
    _origin(folder, config, tree),
  ]
  return "\n\n".join(parts) + "\n"


def _fields() -> str:
  tags = ["hierjax", "jax", "flax", "hierarchical-classification"]
  fields = {"library_name": "hierjax", "pipeline_tag": "image-classification", "tags": tags}
  return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---"])


def _what(config: Mapping[str, Any], tree: LabelTree) -> str:
  has_several = config["head"]["name"] == "multilabel" or config["head"].get("output") == "sigmoid"
  several = "any number of label paths" if has_several else "a label path"
  return (
    f"The model gives a photograph {several}, such as {_path(tree.path_text(int(tree.leaves[0])))}, and a probability "
    f"for each of the {tree.num_nodes:,} nodes of a tree with {len(tree.leaves):,} leaves on {tree.depth} levels. With "
    "a confidence threshold, it answers with the deepest node that is probable enough."
  )


def _use(name: str) -> str:
  return f"""## Use

```python
from hierjax import load

for answer in load({name!r})(["photo.jpg"]):
  print(answer.path, answer.probability)
```

On the command line, `hierjax predict` and `hierjax serve` take the same name.
It was made with hierjax {__version__}."""


def _results(metrics: Mapping[str, Any] | None) -> str:
  if metrics is None:
    return "## Results\n\nThe model was not measured: `hierjax evaluate` does so on images with labels."
  rows = accuracy_rows({"value": metrics})
  views = f", {metrics['views']} views each" if metrics["views"] > 1 else ""
  head = f"{metrics['num_examples']:,} images of the split `{metrics['split']}`{views}, at step {metrics['step']:,}."
  about = "Intervals are of 95% over images; a second training differs by more." if len(rows[0]) > 3 else ""
  return f"## Results\n\n{head} {about}".rstrip() + f"\n\n{_table([map(_text, row) for row in rows])}"


def _limits(config: Mapping[str, Any], tree: LabelTree, metrics: Mapping[str, Any] | None) -> str:
  lines = [
    "- The model answers with labels of its tree alone, whatever is in a photograph. What is in no class of it gets "
    "one of them, often with a low probability: set a confidence threshold.",
    "- The numbers above hold for images like those of the data set. Other cameras, places and shares of the classes "
    "change them: measure the model on images of your own.",
  ]
  worst = (metrics or {}).get("lowest_recall") or []
  if worst:
    found = ", ".join(
      f"{_path(row['class'])} ({percent(row['recall'])} of {row['images']:,})" for row in worst[:_SHOWN]
    )
    lines.append(f"- The classes that it finds least often: {found}.")
  return "## Limits\n\n" + "\n".join(lines)


def _tree(tree: LabelTree) -> str:
  sizes = [stop - start for start, stop in zip(tree.level_offsets, tree.level_offsets[1:], strict=False)]
  rows = [
    ("level", "nodes"),
    *((_text(name), f"{size:,}") for name, size in zip(tree.named_levels, sizes, strict=True)),
  ]
  top = [tree.names[node] for node in range(sizes[0])]
  more = f" and {len(top) - _SHOWN:,} more" if len(top) > _SHOWN else ""
  names = ", ".join(map(_text, top[:_SHOWN]))
  return f"## Label tree\n\nAt the top: {names}{more}. `tree.json` has all of it.\n\n{_table(rows)}"


def _origin(folder: RunFolder, config: Mapping[str, Any], tree: LabelTree) -> str:
  weights = config["init"].get("weights") or ""
  started = f"`{_code(Path(weights).name if Path(weights).is_absolute() else weights)}`" if weights else "random values"
  fitted = [choice for choice in read_choices(folder) if choice.kind == "temperature"]
  parts = [("backbone", "backbone"), ("neck", "neck"), ("head", "head"), ("data set", "data")]
  rows = [
    ("", ""),
    *((title, f"`{_code(config[key]['name'])}`") for title, key in parts),
    ("begun from", started),
    ("training", f"{config['epochs']:g} epochs, batches of {config['batch_size']:,}, seed {config['seed']}"),
    ("probabilities", f"at a temperature of {fitted[-1].value:.3g}, fitted on validation" if fitted else "as trained"),
    ("label tree", f"`{tree.checksum[:16]}`"),
    ("training images", f"`{_code(folder.data_checksum()[:16] or 'not known')}`"),
  ]
  return f"## Origin\n\n{_table(rows)}\n\n`config.json` has every setting; the last two rows are checksums."


def _table(rows: Sequence[Iterable[str]]) -> str:
  """Returns rows of cells of Markdown, the header first, as a table."""
  head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
  return "\n".join([head, re.sub(r"[^|]+", "---", head.replace("\\|", "")), *body])


def _path(text: str) -> str:
  """Returns the text of a path as people read it."""
  return " &gt; ".join(map(_text, split_path(text)))


def _text(name: str) -> str:
  """Returns a name as Markdown that shows it as it is."""
  return re.sub(r"([\\`*_{}\[\]()#!~])", r"\\\1", html.escape(" ".join(name.split()), quote=False))


def _code(name: str) -> str:
  """Returns a name for a span of code."""
  return " ".join(str(name).replace("`", "'").split())
