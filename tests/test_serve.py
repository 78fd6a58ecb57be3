"""The server: answers and refusals over a real connection, and the page in a real browser."""

import base64
import contextlib
import html
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import uvicorn

from bench.edge.predictor import Predictor
from bench.edge.runners.ort import OnnxRuntime
from bench.serving import app
from bench.serving.app import Limits
from tests.support.tiny import tone, write_wav

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def predictors(tiny_artifact):
    return {name: Predictor(tiny_artifact, name) for name in ("fp32", "int8")}


@contextlib.contextmanager
def served(predictors, limits=Limits(), **settings):  # noqa: B008  (frozen)
    """The port of a server that runs in a thread."""
    config = uvicorn.Config(app.make(predictors, limits, **settings), log_level="warning")
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(predictors):
    with served(predictors, Limits(megabytes=0.2), hosts=("127.0.0.1",)) as port:
        yield port


def ask(port, path, content=None, headers=JSON):
    """(status, what came back) of a request; one without content is a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        if content is None:
            connection.request("GET", path)
        else:
            body = content if isinstance(content, bytes) else json.dumps(content)
            connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def picture(tiny, number: int) -> str:
    return base64.b64encode((tiny.folder / "data" / f"{number}.png").read_bytes()).decode()


def test_it_answers_as_the_predictor_does(port, predictors, tiny):
    given = {"text": "a good day", "image": picture(tiny, 1)}
    wanted = {
        name: each.predict(text="a good day", image=tiny.folder / "data" / "1.png").probabilities
        for name, each in predictors.items()
    }
    status, found = ask(port, "/predict", given)
    assert (status, found["precision"], found["probabilities"]) == (200, "fp32", wanted["fp32"])
    _, found = ask(port, "/predict", {**given, "precision": "int8", "audio": None})
    assert (found["precision"], found["probabilities"]) == ("int8", wanted["int8"])
    assert found["label"] in ("negative", "positive")
    assert list(found["milliseconds"]) == ["tokens", "image", "inference", "all"]


def test_it_tells_what_the_answer_leans_on(port, predictors, tiny):
    given = {"text": "a good day", "image": picture(tiny, 0)}
    status, found = ask(port, "/explain", given)
    assert status == 200
    assert list(found["answers"]) == ["fp32", "int8"]
    whole = found["answers"]["fp32"]["probabilities"]
    without = {name: other["probabilities"] for name, other in found["without"].items()}
    image = tiny.folder / "data" / "0.png"
    predictor = predictors["fp32"]
    assert without["image"] == predictor.predict(text="a good day").probabilities
    assert without["text"] == predictor.predict(image=image).probabilities
    changes = {name: abs(whole["positive"] - other["positive"]) for name, other in without.items()}
    for name, change in changes.items():
        assert found["without"][name]["change"] == pytest.approx(change)
    assert found["leans_on"] == max(changes, key=changes.get)
    _, found = ask(port, "/explain", {"text": "a good day"})
    assert (found["without"], found["leans_on"]) == ({}, None)


def test_it_tells_what_the_model_takes(port):
    status, found = ask(port, "/model")
    assert status == 200
    assert (found["takes"], found["may_lack"]) == (["text", "image"], ["text", "image"])
    assert found["precisions"] == ["fp32", "int8"]
    assert found["limits"] == {"megabytes": 0.2, "seconds": 30.0, "at_once": 4}


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ({"text": "a", "image": base64.b64encode(b"no picture").decode()}, 400, "cannot be used"),
        ({"text": "a", "image": "1.png"}, 400, "image is no base64"),
        ({"text": "a", "image": ["/etc/passwd"]}, 400, "image is no base64"),
        ({"text": 5}, 400, "The text is int"),
        ({"text": "." * 100_001}, 400, "has 100001 characters, more than the 100000 allowed"),
        ({"sentence": "a"}, 400, "There is no 'sentence'"),
        ({"text": "a", "precision": "int4"}, 400, "no precision 'int4', only fp32, int8"),
        ({"text": "a", "precision": []}, 400, r"no precision \[\]"),
        ({}, 400, "text or image is wanted"),
        ([1], 400, "This is a list"),
        (b"{", 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b" " * 200_001, 413, "larger than 0.2 MB"),
        (b" " * 3_000_000, 413, "larger than 0.2 MB"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_sentence(port, content, status, said):
    found, answer = ask(port, "/predict", content)
    assert found == status
    assert re.search(said, answer["error"])


def test_other_places_ways_and_names_are_refused(port):
    assert ask(port, "/nothing")[0] == 404
    assert ask(port, "/predict")[0] == 405
    status, answer = ask(port, "/predict", {"text": "a"}, headers={"Content-Type": "text/plain"})
    assert (status, answer["error"][:25]) == (415, "The content is text/plain")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/model", headers={"Host": "rebound.example"})
    assert connection.getresponse().status == 400
    connection.close()


def test_one_too_many_is_told_so_and_a_slow_answer_too(predictors, monkeypatch):
    held, begun, infer = threading.Event(), threading.Semaphore(0), OnnxRuntime._infer

    def slow(runner, feed):
        begun.release()
        held.wait(30)
        return infer(runner, feed)

    monkeypatch.setattr(OnnxRuntime, "_infer", slow)
    with served(predictors, Limits(seconds=1.0, at_once=2)) as port, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, port, "/predict", {"text": "a"}) for _ in range(2)]
        for _ in range(2):
            assert begun.acquire(timeout=30)
        status, answer = ask(port, "/predict", {"text": "a"})
        assert (status, answer["error"]) == (
            503, "2 requests are in work, the most at once: ask again."
        )  # fmt: skip
        for status, answer in (future.result() for future in waiting):
            assert (status, answer["error"]) == (503, "The answer took more than 1 s: ask again.")
        # Their threads still work: no room before they have ended.
        assert ask(port, "/predict", {"text": "a"})[0] == 503
        held.set()
        until = time.monotonic() + 30
        while ask(port, "/predict", {"text": "a"})[0] != 200:
            assert time.monotonic() < until


def test_a_request_that_does_not_come_is_given_up(predictors):
    with served(predictors, Limits(seconds=1.0, at_once=1)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: 9\r\n\r\n{"
            )
            assert b"408" in client.recv(4096).split(b"\r\n")[0]
        assert ask(port, "/predict", {"text": "a"})[0] == 200


def test_an_engine_that_fails_is_no_mistake_of_the_client(port, monkeypatch):
    def fail(runner, feed):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(OnnxRuntime, "_infer", fail)
    status, answer = ask(port, "/predict", {"text": "a"})
    assert (status, answer["error"]) == (500, "OnnxRuntime failed: out of memory")


@pytest.mark.slow
@pytest.mark.large
def test_a_minute_of_good_and_bad_requests_from_sixteen_clients(tiny_artifact, predictors, tiny):
    """Of `python -m bench.serve`, so that its memory is its own."""
    good = {"text": "a good day", "image": picture(tiny, 1)}
    wanted = predictors["fp32"].predict(text="a good day", image=tiny.folder / "data" / "1.png")
    bad = [{"text": "a", "image": "AAAA"}, {}, b"{", b" " * 1_200_000]
    counts = dict.fromkeys((200, 400, 413, 503), 0)
    lock = threading.Lock()

    def client(number: int) -> None:
        turn, until = number, time.monotonic() + 60
        while time.monotonic() < until:
            content = good if turn % 2 else bad[turn // 2 % len(bad)]
            status, answer = ask(port, "/predict", content)
            if status == 200:
                assert answer["probabilities"] == wanted.probabilities
            assert status in ((200, 503) if turn % 2 else (400, 413, 503)), answer
            with lock:
                counts[status] += 1
            turn += 1

    flags = ["--port=0", "--precisions=fp32", "--megabytes=1", "--at_once=8"]
    with started(tiny_artifact, *flags) as (process, port):
        for _ in range(20):
            ask(port, "/predict", good)
        before = resident(process.pid)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(client, range(16)))
        assert process.poll() is None
        assert ask(port, "/predict", good)[0] == 200
        # Eight requests of a megabyte, and what eight threads' allocators keep.
        assert resident(process.pid) < before + 64_000, counts
    assert all(counts.values()), counts


def resident(process: int) -> int:
    """Kilobytes of a process in memory."""
    with open(f"/proc/{process}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@contextlib.contextmanager
def started(artifact, *flags):
    """`python -m bench.serve`, and its port."""
    command = [sys.executable, "-m", "bench.serve", str(artifact), *flags]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            said = process.stdout.readline()
            assert said, process.stderr.read()
            yield process, int(re.search(r"http://127\.0\.0\.1:(\d+) ", said)[1])
        finally:
            process.send_signal(2)
            process.wait(30)


def test_the_command_says_where_to_look_and_ends_when_told(tiny_artifact):
    with started(tiny_artifact, "--port=0", "--precisions=int8") as (process, port):
        assert ask(port, "/predict", {"text": "a good day"})[0] == 200
        process.send_signal(2)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == "Stopped."


def test_what_cannot_be_served_is_a_sentence(tiny_artifact, tmp_path, capsys):
    from bench.serve import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(tiny_artifact), f"--port={port}"]) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err
    assert main([str(tmp_path), "--port=0"]) == 2
    assert "is no artifact" in capsys.readouterr().err


# --- The page -------------------------------------------------------------------------------------

# In front of the page's own script: what goes wrong.
WATCH = """<script>
const seen = {violations: [], errors: []};
addEventListener("securitypolicyviolation", e => seen.violations.push(e.blockedURI));
addEventListener("error", e => seen.errors.push(String(e.message)));
addEventListener("unhandledrejection", e => seen.errors.push(String(e.reason)));
</script>"""
# Behind it: use the page, then leave nothing but what was found.
USE = """<script>
(async () => {
  const until = async holds => { while (!holds()) await new Promise(r => setTimeout(r, 20)); };
  const text = id => document.getElementById(id).innerText;
  const rows = id => [...document.querySelectorAll(`#${id} tbody tr`)]
    .map(row => [...row.cells].map(cell => cell.textContent));
  const ask = async () => {
    document.getElementById("ask").click();
    await until(() => document.getElementById("ask").disabled);
    await until(() => !document.getElementById("ask").disabled);
  };
  await until(() => document.querySelector("#image-file"));
  seen.title = text("title");
  await ask();
  seen.nothing = text("error");
  document.querySelector("#text textarea").value = "a good day";
  const drop = content => {
    const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
    const dropped = new DataTransfer();
    dropped.items.add(new File([bytes], "dropped", {type: "image/png"}));
    const event = new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true});
    document.querySelector("#image .drop").dispatchEvent(event);
  };
  drop("AAAA");
  await ask();
  seen.broken = text("error");
  drop("PICTURE");
  await ask();
  seen.error = text("error");
  seen.label = text("label");
  seen.shares = rows("shares");
  seen.without = rows("without");
  seen.leans = text("leans");
  seen.times = rows("times");
  seen.shown = !!document.querySelector("#image img");
  document.querySelector("#image-out").click();
  await ask();
  seen.alone = rows("shares");
  seen.leaning = !document.getElementById("leaning").hidden;
  seen.requests = performance.getEntriesByType("resource").map(e => new URL(e.name).host);
  seen.host = location.host;
  seen.wide = document.documentElement.scrollWidth > innerWidth;
  const found = JSON.stringify(seen);
  document.head.remove();
  document.body.textContent = found;
})();
</script>"""


def browse(predictors, use, folder) -> dict:
    """What a script behind the page's own found."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium is installed: the page was not opened")
    page = app.PAGE.read_text().replace("<style>", f"{WATCH}<style>", 1)
    page = page.replace("</body>", f"{use}</body>")
    headless = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    asked = [f"--user-data-dir={folder}", "--virtual-time-budget=20000", "--dump-dom"]
    with served(predictors, page=page) as port:
        command = [*headless, *asked, "--window-size=500,900", f"http://127.0.0.1:{port}/"]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"<body>(.*)</body>", dom, re.DOTALL)
    assert found, dom[:300]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def seen(predictors, tiny, tmp_path_factory):
    use = USE.replace("PICTURE", picture(tiny, 0))
    return browse(predictors, use, tmp_path_factory.mktemp("browser"))


def test_the_page_shows_the_answer_at_each_precision(seen, predictors, tiny):
    image = tiny.folder / "data" / "0.png"
    answers = [each.predict(text="a good day", image=image) for each in predictors.values()]
    assert seen["title"] == "Ask inter, trained on data"
    assert (seen["error"], seen["label"]) == ("", answers[0].label)
    assert seen["shares"] == [
        [name, *(f"{100 * a.probabilities[name]:.1f} %" for a in answers)]
        for name in ("negative", "positive")
    ]
    assert [row[0] for row in seen["times"]] == ["tokens", "image", "inference", "all"]
    assert all(float(cell) > 0 for row in seen["times"] for cell in row[1:])
    assert seen["shown"]


def test_the_page_shows_what_the_answer_leans_on(seen, predictors):
    assert [row[0] for row in seen["without"]] == ["Sentence", "Picture"]
    assert seen["leans"] in ("It leans most on: Sentence.", "It leans most on: Picture.")
    alone = predictors["fp32"].predict(text="a good day").probabilities
    assert [row[1] for row in seen["alone"]] == [f"{100 * x:.1f} %" for x in alone.values()]
    assert not seen["leaning"]


def test_the_page_says_what_is_wrong(seen):
    assert seen["nothing"] == "text or image is wanted."
    assert seen["broken"].startswith("The image cannot be used: ")


def test_the_page_asks_nobody_else_and_fits_a_narrow_screen(seen):
    assert (seen["errors"], seen["violations"]) == ([], [])
    assert set(seen["requests"]) == {seen["host"]}
    assert not seen["wide"]


SOUND = """<script>
(async () => {
  const until = async holds => { while (!holds()) await new Promise(r => setTimeout(r, 20)); };
  await until(() => document.querySelector("#audio-file"));
  const bytes = Uint8Array.from(atob("RECORDING"), c => c.charCodeAt(0));
  const chosen = new DataTransfer();
  chosen.items.add(new File([bytes], "chosen.wav", {type: "audio/wav"}));
  const input = document.getElementById("audio-file");
  input.files = chosen.files;
  input.dispatchEvent(new Event("change"));
  document.getElementById("ask").click();
  await until(() => document.getElementById("ask").disabled);
  await until(() => !document.getElementById("ask").disabled);
  seen.error = document.getElementById("error").innerText;
  seen.shares = [...document.querySelectorAll("#shares tbody td:nth-child(2)")]
    .map(cell => parseFloat(cell.textContent));
  const found = JSON.stringify(seen);
  document.head.remove();
  document.body.textContent = found;
})();
</script>"""


@pytest.mark.slow
def test_the_page_makes_of_a_sound_what_the_model_takes(entries, tiny, tmp_path):
    """Of two channels at another rate the browser makes one at 16 kHz."""
    bench = tiny.beside(tmp_path)
    flags = bench.flags(run=tmp_path / "run", variant="audio", **{
        name: value for name, value in bench.with_sound().items() if name != "fusion__modalities"
    })  # fmt: skip
    done = entries.run("fusion_keras.train", *flags)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "artifact"
    done = entries.run("export", str(tmp_path / "run"), f"--out={folder}", "--precisions=")
    assert done.returncode == 0, done.stderr
    predictor = Predictor(folder)
    wanted = predictor.predict(audio=write_wav(tmp_path / "a.wav", tone(440, 0.5)))
    twice = np.stack([tone(440, 0.5, 44100)] * 2, axis=1)
    recording = write_wav(tmp_path / "b.wav", twice, 44100).read_bytes()
    use = SOUND.replace("RECORDING", base64.b64encode(recording).decode())
    found = browse({"fp32": predictor}, use, tmp_path / "browser")
    assert (found["error"], found["errors"], found["violations"]) == ("", [], [])
    shares = [100 * share for share in wanted.probabilities.values()]
    assert found["shares"] == pytest.approx(shares, abs=1)


def test_the_page_is_one_file_without_sources_elsewhere():
    text = app.PAGE.read_text()
    assert not re.search(r"https?:|//[a-z]|<link|src=\"", text)
