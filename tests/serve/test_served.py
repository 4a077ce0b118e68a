"""Runs, exports and names as the server answers with them, and its page in a browser."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from browser import PROGRAM, browser
from commands import run_command
from PIL import Image
from serving import ask, connect, form, model_of, picture, read, serving

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.inference.exported import open_export
from hierjax.inference.predictor import Predictor
from hierjax.inference.trained_model import AnswerSettings
from hierjax.serve.models import open_exported, open_run
from hierjax.tree.builders import from_paths

ROOT = Path(__file__).parents[2]
FLAT = dict(head=dict(name="flat"), neck=dict(name="none"))


@pytest.fixture(scope="module")
def folder(make_run, small_config):
  return make_run(small_config(**FLAT), sharpness=9.0).path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  rng, where = np.random.default_rng(0), tmp_path_factory.mktemp("images")
  files = [where / f"{i}.png" for i in range(7)]
  for file in files:
    Image.fromarray(rng.integers(0, 256, (30, 25, 3), dtype=np.uint8)).save(file)
  files[3].write_bytes(b"no image")
  return files


@pytest.mark.parametrize("kind", ["run", "export"])
def test_answers_are_those_of_predict(kind, folder, files, tmp_path):
  settings = AnswerSettings(top=2, threshold="0.3")
  if kind == "export":
    run_command("export", folder, tmp_path / "out", batch=4, top=2, threshold=0.3)
    model = open_exported(tmp_path / "out")
    assert model.tree == open_run(folder, settings).tree
  else:
    model = open_run(folder, settings, most=6)
    assert model.sizes == (1, 4, 6)
  wanted = Predictor(folder, top=2, threshold="0.3")(files)
  body, content = form([(str(file), file.read_bytes()) for file in files])
  with serving(model) as server:
    status, found = ask(server, "POST", "/predict", body, Content_Type=content)
  assert status == 200 and len(found["answers"]) == len(wanted) > 7
  for row, ours in zip(wanted, found["answers"], strict=True):
    assert (row.image, row.path, row.rank, row.error) == tuple(
      ours[name] for name in ("image", "path", "rank", "error")
    )
    if row.path:
      np.testing.assert_allclose(ours["node_probabilities"], row.node_probabilities, rtol=1e-4)
      assert ours["why"]["nodes"].keys() == row.why["nodes"].keys() and ours["why"]["rule"] == row.why["rule"]


def test_an_export_that_was_changed_is_refused(folder, tmp_path):
  run_command("export", folder, tmp_path / "out")
  about = tmp_path / "out" / "model.json"
  about.write_text(about.read_text().replace('"step": 1', '"step": 2'))
  with pytest.raises(UserError, match=r"model\.json: it is not as `export` wrote it"):
    open_export(tmp_path / "out")
  about.write_text(about.read_text().replace('"step": 2', '"step": 1'))
  weights = tmp_path / "out" / "weights.safetensors"
  weights.write_bytes(weights.read_bytes()[:-1] + b"x")
  with pytest.raises(UserError, match="weights"):
    open_export(tmp_path / "out")
  weights.unlink()
  with pytest.raises(UserError, match=r"no weights\.safetensors"):
    open_export(tmp_path / "out")


WITHOUT_FLAX = """
import sys
from hierjax.cli.common import Parser
from hierjax.cli.main import COMMANDS
from hierjax.cli.serve import _opened
from serving import ask, serving
args = Parser("serve", COMMANDS["serve"]).parse([sys.argv[1]])
with serving(_opened(args)) as server:
  status, found = ask(server, "POST", "/predict", open(sys.argv[2], "rb").read(), Content_Type="image/png")
assert status == 200, found
print(found["answers"][0]["path"], *sorted({"flax", "optax", "orbax"} & set(sys.modules)))
"""


def test_an_export_is_served_without_flax(folder, files, tmp_path):
  run_command("export", folder, tmp_path / "out")
  environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
  command = [sys.executable, "-c", WITHOUT_FLAX, tmp_path / "out", files[0]]
  found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
  assert found.returncode == 0, found.stderr
  assert found.stdout.splitlines()[-1] == Predictor(folder)(files[0])[0].path


def test_sigterm_answers_what_has_come_and_ends_with_0(folder, files):
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": ""}
  command = [sys.executable, "-m", "hierjax", "serve", folder, "--port", "0", "--batch", "2"]
  process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
  lines = iter(process.stdout.readline, "")
  address = next(line for line in lines if line.startswith("ready: ")).split()[1]
  server = type("Address", (), {"address": address})
  image, found = files[0].read_bytes(), []
  kept = connect(server)  # a connection that has asked for nothing does not hold the end up
  kept.connect()

  def half_and_half():
    piece = len(image) // 2
    with contextlib.closing(connect(server)) as connection:
      connection.putrequest("POST", "/predict")
      for header in (("Content-Type", "image/png"), ("Content-Length", len(image))):
        connection.putheader(*header)
      connection.endheaders(image[:piece])
      begun.release()
      ended.wait()
      connection.send(image[piece:])
      found.append(read(connection)[0])

  begun, ended = threading.Semaphore(0), threading.Event()
  threads = [threading.Thread(target=half_and_half) for _ in range(8)]
  for thread in threads:
    thread.start()
  for _ in threads:
    begun.acquire()
  time.sleep(0.3)
  process.send_signal(signal.SIGTERM)
  time.sleep(0.3)
  ended.set()
  for thread in threads:
    thread.join(60)
  assert process.wait(60) == 0 and found == [200] * 8
  process.stdout.close()
  kept.close()


def test_what_cannot_be_served_is_one_sentence(folder, tmp_path, capsys):
  run_command("export", folder, tmp_path / "out")
  for words, sentence in (
    ([tmp_path / "nothing"], "not a run folder"),
    ([tmp_path / "out", "--threshold", "0.5"], "is an export, whose settings are fixed"),
    ([folder, "--most-pixels", "100000000"], "--most-pixels 100000000: must be 1 to 89,478,485 pixels"),
    ([folder, "--port", "70000"], "--port 70000"),
    ([folder, "--host", "256.0.0.1"], "--host 256.0.0.1"),
  ):
    assert main(["serve", *map(str, words)]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.skipif(not PROGRAM, reason="chromium is not installed")
def test_the_page_lights_the_tree_up(tmp_path):
  evil = "<img src=x onerror=alert(1)>"
  tree = from_paths([("animal", evil), ("animal", "cat/dog"), ("thing", "cup")])
  names = ["0.png", "1.png", f"{evil.replace('/', '')}.png", "broken.png"]
  files = [tmp_path / name for name in names]
  for number, file in enumerate(files):
    file.write_bytes(picture(number) if number < 3 else b"no image")
  with serving(model_of(tree)) as server, browser() as page:
    page.open(server.address)
    page.wait("document.querySelector('#tree path') !== null")
    assert page.run("document.querySelectorAll('#tree .lit').length") == 0
    page.choose_files("#files", files)
    page.wait("photos.length == 4 && photos.every((photo) => photo.answers || photo.error)")
    for number in range(3):
      page.run(f"document.querySelectorAll('#photos button')[{number}].click()")
      path = tree.path_names(int(tree.leaves[number]))
      assert page.run("document.querySelector('#title').textContent") == " > ".join(path)
      lit = "[...document.querySelectorAll('#tree .answer title')].map((x) => x.textContent)"
      assert page.run(lit) == [f"{name}: 75%" for name in path]
      assert page.run("document.querySelectorAll('#nodes .on').length") == len(path)
    page.run("document.querySelectorAll('#photos button')[3].click()")
    assert "broken.png: not an image" in page.run("document.querySelector('#why').textContent")
    assert page.run("document.querySelectorAll('#tree .lit').length") == 0
    assert page.run("document.querySelectorAll('#photos img[onerror], #nodes img, #title img').length") == 0
    colours = set()
    for width in (400, 1280):
      for dark in (False, True):
        page.resize(width)
        page.theme(dark)
        assert page.run("document.documentElement.scrollWidth") == width
        colours.add(page.run("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    assert [message for message in page.messages if "422" not in message] == []
    elsewhere = [request for request in page.requests if not request.startswith((server.address, "blob:", "data:"))]
    assert not elsewhere


def test_every_text_of_the_page_goes_in_as_text():
  page = (ROOT / "hierjax" / "serve" / "page.html").read_text()
  assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\son\w+=", page)
