"""The provenance of a page's numbers: commands, commits, versions, data, label tree, minutes and dates."""

from __future__ import annotations

from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.provenance import command_line, commit, minutes, now, read_sessions, versions
from hierjax.tree.label_tree import LabelTree

_UNKNOWN = "not recorded"


def of_run(loaded: LoadedRun, split: str, checksum: str) -> list[tuple[str, str]]:
  """Returns what the numbers of a run depend on, with the checksum of the images of a split."""
  run = loaded.run
  sessions = read_sessions(loaded.folder)
  config = run.config
  parts = ", ".join(str(part["name"]) for part in (config.backbone, config.neck, config.head))
  trained = [("trained by", one["command"]) for one in sessions]
  trained += [("trained on", f"{one['devices']}, {one['started']}") for one in sessions[-1:]]
  unfinished = sum("seconds" not in one for one in sessions)
  cut = f", and {unfinished} sessions that were cut off" if unfinished else ""
  took = f"{minutes(sessions):.1f} minutes{cut}" if sessions else _UNKNOWN
  commits = sorted({one["commit"] for one in sessions if one["commit"]})
  then = sessions[-1]["versions"] if sessions else {}
  views = f", {run.options.views} views of each image" if run.options.views > 1 else ""
  return [
    *(trained or [("trained by", _UNKNOWN)]),
    ("training", took),
    ("commit of the training", ", ".join(commits) or _UNKNOWN),
    ("versions then", _text(then) or _UNKNOWN),
    ("weights", f"step {loaded.step:,}, temperature {run.method.temperature:.3f}{views}"),
    ("backbone, neck, head", parts),
    ("seed", str(config.seed)),
    ("data", f"{config.data['name']}{f', {run.data.root}' if run.data.root else ''}"),
    (f"checksums of the {split} images", checksum),
    ("label tree", tree_text(run.tree)),
    *of_page(),
  ]


def tree_text(tree: LabelTree) -> str:
  """Returns a label tree in words."""
  return f"{tree.num_nodes:,} nodes on {tree.depth} levels, {len(tree.leaves):,} leaves; sha256 {tree.checksum}"


def of_page() -> list[tuple[str, str]]:
  """Returns the provenance of the page itself."""
  return [
    ("this page by", command_line()),
    ("commit of hierjax", commit() or "not known"),
    ("versions", _text(versions())),
    ("date", now()),
  ]


def _text(programs: dict[str, str]) -> str:
  return ", ".join(f"{name} {version}" for name, version in programs.items())
