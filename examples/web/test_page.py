"""The page in headless Chromium: its numbers are Python's, and keyboard, mouse and screen reader find their way.

    pytest examples/web    # after build.py and npm install; needs selenium, chromium and chromedriver

A screenshot goes to the folder that `TFFLOWS_WEB_SCREENSHOTS` names, else to the test's own.
"""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

HERE = Path(__file__).resolve().parent
SCRIPTS = ["main.js", "flow.js", "panel.js", "plane.js", "images.js", "clouds.js"]
FILES = ["index.html", "style.css", "icon.svg", *SCRIPTS]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLANES = ("two_moons", "alanine_dipeptide")
TOLERANCE = 1e-4  # relative, as export.verify has it
MINUS, NO_ANSWER = "\N{MINUS SIGN}", "\N{EN DASH}"
PATIENCE = 60  # seconds, on a machine that has other things to do

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or shutil.which("chromedriver") is None, reason="needs chromium, chromedriver"),
    pytest.mark.skipif(not (HERE / "models" / "expected.json").exists(), reason="no models: run build.py"),
    pytest.mark.skipif(not (HERE / "node_modules").exists(), reason="no LiteRT.js: run npm install"),
]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def serve(folder):
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture(scope="module")
def address():
    server, address = serve(HERE)
    yield address
    server.shutdown()


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Chromium refuses its sandbox to root, which is who runs tests in containers.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,1000"):
        options.add_argument(argument)
    options.add_argument("--force-prefers-reduced-motion")  # what turns by itself is another picture each time
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, address):
    """The page, loaded anew, with everything drawn."""
    for kind in ("browser", "performance"):
        driver.get_log(kind)  # of the page before
    driver.get(address)
    WebDriverWait(driver, PATIENCE, 0.05).until(lambda d: status(d) == "Ready.")
    return driver


@pytest.fixture(scope="module")
def models():
    return json.loads((HERE / "models" / "models.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected():
    return json.loads((HERE / "models" / "expected.json").read_text(encoding="utf-8"))


def status(driver):
    return driver.find_element(By.ID, "status").text


def text(driver, identifier):
    return driver.find_element(By.ID, identifier).text.replace(MINUS, "-")


def choose(driver, name, title):
    if name == PLANES[0]:
        return  # the page starts with it
    Select(driver.find_element(By.ID, "flow")).select_by_value(name)
    WebDriverWait(driver, PATIENCE, 0.05).until(lambda d: status(d) == f"Ready: {title}.")


def run(driver, script, *arguments):
    """What an asynchronous function of the page's own parts returns."""
    return driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const given = [...arguments].slice(0, -1);
        import(new URL("main.js", location.href).href)
          .then(({ page }) => (async () => { SCRIPT })())
          .then((value) => done({ value }), (error) => done({ error: String(error) }));
        """.replace("SCRIPT", script),
        *arguments,
    )


def computed(driver, name, signature, inputs):
    found = run(
        driver,
        """
        const [name, signature, inputs] = given;
        const flow = await page.flows[name];
        return [...await flow.run(signature, inputs)];
        """,
        name,
        signature,
        {key: np.ravel(value).tolist() for key, value in inputs.items()},
    )
    assert "error" not in found, found
    return np.array(found["value"])


def difference(found, wanted):
    wanted = np.ravel(wanted)
    assert found.shape == wanted.shape
    return np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())


def wait_for(condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def press(driver, identifier, *keys):
    element = driver.find_element(By.ID, identifier)
    driver.execute_script("arguments[0].focus({ focusVisible: true })", element)
    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def arrows(right, up):
    across = [Keys.ARROW_RIGHT if right > 0 else Keys.ARROW_LEFT] * abs(right)
    return across + [Keys.ARROW_UP if up > 0 else Keys.ARROW_DOWN] * abs(up)


def click(driver, x):
    """Clicks the pixel of the data's canvas that is nearest to the point; returns the point that the page took."""
    across, down = run(driver, "return page.plane.data.toPixel(given[0]);", x)["value"]
    canvas = driver.find_element(By.ID, "data")
    driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", canvas)
    size = canvas.size
    ActionChains(driver).move_to_element_with_offset(
        canvas, round(across - size["width"] / 2), round(down - size["height"] / 2)
    ).click().perform()
    wait_for(lambda: text(driver, "log-density") != NO_ANSWER)
    return np.array(run(driver, "return page.plane.answer.x;")["value"], np.float32)


def shown(point, degrees):
    unit = 180.0 / np.pi if degrees else 1.0
    numbers = [f"{v * unit:.1f}°" if degrees else f"{v:.3f}" for v in point]
    return f"({', '.join(numbers)})"


@pytest.mark.parametrize("name", PLANES)
def test_numbers_of_the_planes_are_pythons(page, models, expected, name):
    choose(page, name, models[name]["title"])
    wanted = expected[name]
    found = {
        "log_prob": difference(computed(page, name, "log_prob", {"x": wanted["x"]}), wanted["log_prob"]),
        "encode": difference(computed(page, name, "encode", {"x": wanted["x"]}), wanted["z"]),
        "decode": difference(computed(page, name, "decode", {"z": wanted["z"]}), wanted["decoded"]),
    }
    print(name, {key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < TOLERANCE


def test_numbers_of_the_images_are_pythons(page, models, expected):
    wanted, images = expected["digits"], models["digits"]["images"]
    x = np.array([image["pixels"] for image in images])
    context = np.eye(10)[[image["label"] for image in images]]
    first, second = wanted["interpolated"]["ends"]
    ends = {"x0": x[first], "x1": x[second], "t": [wanted["interpolated"]["t"]], "context": context[first]}
    middle = models["digits"]["n_steps"] // 2
    way = run(page, "return [...page.images.way.decoded];")["value"]
    found = {
        "log_prob": difference(computed(page, "digits", "log_prob", {"x": x, "context": context}), wanted["log_prob"]),
        "encode": difference(computed(page, "digits", "encode", {"x": x[0], "context": context[0]}), wanted["z_first"]),
        "interpolate": difference(computed(page, "digits", "interpolate", ends), wanted["interpolated"]["x"]),
        "way": difference(np.reshape(way, [-1, x.shape[1]])[middle], wanted["middle"]),
    }
    print("digits", {key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < TOLERANCE


@pytest.mark.parametrize("name", PLANES)
def test_arrow_keys_move_the_latent_point_and_its_sample(page, models, expected, name):
    model, wanted = models[name], expected[name]["drag"]
    choose(page, name, model["title"])
    before = text(page, "sample")
    press(page, "latent", *arrows(wanted["right"], wanted["up"]))
    wait_for(lambda: text(page, "z") == shown(wanted["z"], model["latent"]["degrees"]))
    assert text(page, "sample") == shown(wanted["x"], model["data"]["degrees"]) != before
    x = np.array(run(page, "return page.plane.x;")["value"])
    assert difference(x, wanted["x"]) < TOLERANCE
    spoken = page.find_element(By.ID, "latent").get_attribute("aria-valuetext").replace(MINUS, "-")
    assert spoken == f"z {shown(wanted['z'], model['latent']['degrees'])}"
    wait_for(lambda: shown(wanted["x"], model["data"]["degrees"]) in said(page))


def said(driver):
    return driver.find_element(By.ID, "live").get_attribute("textContent").replace(MINUS, "-")


def test_the_mouse_drags_the_latent_point(page, models):
    canvas = page.find_element(By.ID, "latent")
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", canvas)
    before = text(page, "z"), text(page, "sample")
    ActionChains(page).move_to_element(canvas).click_and_hold().move_by_offset(-60, 45).release().perform()
    wait_for(lambda: text(page, "z") != before[0] and text(page, "sample") != before[1])
    z, x = (np.array(run(page, f"return page.plane.{key};")["value"]) for key in "zx")
    assert z.max() < 0.0  # left of the middle, and below it
    assert difference(computed(page, "two_moons", "decode", {"z": z}), x) < TOLERANCE


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("which", ["typical", "far"])
def test_a_click_gives_log_density_and_verdict(page, models, expected, name, which):
    choose(page, name, models[name]["title"])
    wanted = expected[name][which]
    x = click(page, wanted["x"])
    number = float(text(page, "log-density").removesuffix(" nats"))
    # The pixel is not quite the point.
    assert number == pytest.approx(wanted["log_prob"], abs=0.05 * max(1.0, abs(wanted["log_prob"])))
    verdict = text(page, "verdict")
    if which == "far":
        assert verdict == "outlier: rarer than 99 % of held-out data"
    else:
        assert verdict.startswith("ordinary: rarer than ")
    flow = saved(name)
    in_python = float(flow.log_prob(x[np.newaxis])[0])
    assert number == pytest.approx(in_python, abs=6e-4 + 1e-5 * abs(in_python))  # three digits are shown
    origin = run(page, "return page.plane.answer.z;")["value"]
    assert difference(np.array(origin), flow.encode(x[np.newaxis])[0]) < TOLERANCE


@functools.cache
def saved(name):
    pytest.importorskip("tfflows", reason="needs tfflows, to ask Python for the log-density of the clicked pixel")
    import keras

    return keras.saving.load_model(HERE.parents[1] / "saved_models" / name / f"{name}.keras")


@pytest.mark.parametrize("name", PLANES)
def test_arrow_keys_and_enter_ask_for_the_log_density(page, models, expected, name):
    model, wanted = models[name], expected[name]["cursor"]
    choose(page, name, model["title"])
    press(page, "data", *arrows(wanted["right"], wanted["up"]), Keys.ENTER)
    wait_for(lambda: text(page, "asked") == shown(wanted["x"], model["data"]["degrees"]))
    number = float(text(page, "log-density").removesuffix(" nats"))
    assert number == pytest.approx(wanted["log_prob"], abs=6e-4)
    wait_for(lambda: f"{number:.3f} nats" in said(page))


def test_the_slider_goes_from_one_image_to_the_other(page, models, expected):
    model = models["digits"]
    first, second = (np.array(model["images"][k]["pixels"]) for k in model["ends"])

    def drawn(kind):
        pixels = page.execute_script(
            "const c = document.getElementById(arguments[0]);"
            "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data];",
            f"image-{kind}",
        )
        return np.array(pixels[::4])

    press(page, "t", Keys.HOME)
    assert text(page, "t-shown") == "t = 0.000"
    assert np.abs(drawn("flow") - first).max() <= 1
    press(page, "t", Keys.END)
    assert text(page, "t-shown") == "t = 1.000"
    assert np.abs(drawn("flow") - second).max() <= 1
    press(page, "t", *[Keys.ARROW_LEFT] * (model["n_steps"] // 2))
    assert text(page, "t-shown") == "t = 0.500"
    middle = drawn("flow")
    assert np.abs(middle - np.clip(expected["digits"]["middle"], 0.0, 255.0)).max() <= 1
    assert min(np.abs(middle - end).max() for end in (first, second, drawn("blend"))) > 50
    assert "ordinary" in text(page, "flow-score")
    assert "outlier" in text(page, "blend-score")


def test_other_images_can_be_chosen(page, models):
    model = models["digits"]
    press(page, "t", Keys.HOME)
    before = page.find_element(By.ID, "image-first").get_attribute("aria-label")
    page.execute_script("document.querySelector('#first input').click()")
    wait_for(lambda: page.find_element(By.ID, "image-first").get_attribute("aria-label") != before)
    way = np.reshape(run(page, "return [...page.images.way.decoded];")["value"], [model["n_steps"], -1])
    assert np.abs(way[0] - model["images"][0]["pixels"]).max() <= 1
    assert np.abs(way[-1] - model["images"][model["ends"][1]]["pixels"]).max() <= 1


def test_numbers_of_the_clouds_are_pythons(page, models, expected):
    model, sample, decoded = models["point_clouds"], *(expected["point_clouds"][k] for k in ("sample", "decode"))
    context = np.eye(len(model["shapes"]))[sample["label"]]
    drawn = {"seed": [sample["seed"]], "temperature": [sample["temperature"]], "context": context}
    latent = {"latent": decoded["latent"], "seed": [model["seed"]]}
    found = {
        "sample": difference(computed(page, "point_clouds", "sample", drawn), sample["x"]),
        "decode": difference(computed(page, "point_clouds", "decode", latent), decoded["x"]),
    }
    print("point_clouds", {key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < TOLERANCE


def picture(driver, identifier):
    """The pixels of a canvas, once it is drawn."""
    pixels = driver.execute_async_script(
        "const [id, done] = arguments;"
        "requestAnimationFrame(() => requestAnimationFrame(() => {"
        "  const c = document.getElementById(id);"
        "  done([...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]);"
        "}));",
        identifier,
    )
    return np.array(pixels, np.uint8).reshape([-1, 4])


def cloud(driver, identifier):
    return np.array(run(driver, "return [...page.clouds[given[0]].points];", identifier)["value"])


@pytest.mark.parametrize("identifier", ["drawn", "between"])
def test_mouse_and_keys_turn_a_cloud(page, identifier):
    canvas = page.find_element(By.ID, identifier)
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", canvas)
    before = picture(page, identifier)
    assert 0.01 < np.mean(before[:, 3] > 0) < 0.5  # a shape, with nothing around it
    assert np.array_equal(picture(page, identifier), before)  # reduced motion
    points, told = cloud(page, identifier), canvas.get_attribute("aria-valuetext")
    ActionChains(page).move_to_element(canvas).click_and_hold().move_by_offset(80, 30).release().perform()
    wait_for(lambda: canvas.get_attribute("aria-valuetext") != told)
    dragged = picture(page, identifier)
    assert not np.array_equal(dragged, before)
    angle = int(canvas.get_attribute("aria-valuenow"))
    press(page, identifier, *arrows(3, 1))
    assert int(canvas.get_attribute("aria-valuenow")) == pytest.approx((angle + 15) % 360, abs=1)
    assert not np.array_equal(picture(page, identifier), dragged)
    press(page, identifier, *[Keys.ARROW_UP] * 40)
    assert canvas.get_attribute("aria-valuetext").endswith("seen from 90° below")
    assert np.array_equal(cloud(page, identifier), points)


def test_clouds_turn_slowly_until_somebody_takes_hold(page):
    box = page.find_element(By.ID, "turn")
    assert not box.is_selected()  # reduced motion
    press(page, "turn", Keys.SPACE)
    page.execute_script("document.getElementById('drawn').scrollIntoView({ block: 'center' })")
    first = picture(page, "drawn")
    wait_for(lambda: not np.array_equal(picture(page, "drawn"), first))
    press(page, "drawn", Keys.ARROW_LEFT)
    assert not box.is_selected()
    still = picture(page, "drawn")
    time.sleep(0.3)
    assert np.array_equal(picture(page, "drawn"), still)


def test_new_shapes_by_kind_seed_and_temperature(page, expected):
    wanted = expected["point_clouds"]["sample"]
    plane, seed = (page.find_element(By.XPATH, "//button[.='New plane']"), page.find_element(By.ID, "seed"))
    first = cloud(page, "drawn")
    plane.click()
    wait_for(lambda: text(page, "drawn-shown") == "A plane: seed 1, temperature 1.0.")
    assert not np.array_equal(cloud(page, "drawn"), first)
    page.find_element(By.XPATH, "//button[.='New chair']").click()
    wait_for(lambda: text(page, "drawn-shown") == "A chair: seed 1, temperature 1.0.")
    seed.clear()
    seed.send_keys(str(wanted["seed"]))
    press(page, "temperature", *[Keys.ARROW_LEFT] * round(10 * (1.0 - wanted["temperature"])))
    said = f"A chair: seed {wanted['seed']}, temperature {wanted['temperature']}."
    wait_for(lambda: text(page, "drawn-shown") == said)
    assert difference(cloud(page, "drawn"), wanted["x"]) < TOLERANCE


def test_the_slider_goes_from_one_cloud_to_another(page, models, expected):
    model, wanted = models["point_clouds"], expected["point_clouds"]["decode"]
    press(page, "way-t", Keys.HOME)
    assert text(page, "way-shown") == "t = 0.000"
    drawn = picture(page, "between")
    press(page, "way-t", *[Keys.ARROW_RIGHT] * wanted["step"])
    assert text(page, "way-shown") == f"t = {wanted['step'] / (len(model['ways'][0]['latents']) - 1):.3f}"
    wait_for(lambda: difference(cloud(page, "between"), wanted["x"]) < TOLERANCE)
    assert not np.array_equal(picture(page, "between"), drawn)
    before = cloud(page, "between")
    Select(page.find_element(By.ID, "way")).select_by_index(2)
    wait_for(lambda: not np.array_equal(cloud(page, "between"), before))
    spoken = page.find_element(By.ID, "way-t").get_attribute("aria-valuetext")
    assert spoken == "38 % of the way from a plane to a chair"


def test_no_request_leaves_and_the_console_is_clean(page, address, models):
    choose(page, PLANES[1], models[PLANES[1]]["title"])
    entries = page.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert any(url.endswith(".wasm") for url in sent)
    assert [url for url in entries + sent if not url.startswith((address, "data:"))] == []
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_everything_has_a_name(page):
    interactive = page.find_elements(By.CSS_SELECTOR, "input, select, button, a, [tabindex]")
    pictures = page.find_elements(By.CSS_SELECTOR, "img, canvas[role]")
    assert len(interactive) >= 30
    nameless = [e.get_attribute("outerHTML")[:80] for e in interactive + pictures if not e.accessible_name]
    assert nameless == []
    for identifier in ("latent", "data", "drawn", "between"):
        element = page.find_element(By.ID, identifier)
        assert element.aria_role == "slider"
        assert element.get_attribute("aria-valuetext")


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshot(page, models, expected, tmp_path, width, scheme):
    folder = Path(os.environ.get("TFFLOWS_WEB_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    name = PLANES[scheme == "dark"]
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    size = {"width": width, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**size, "height": 1000})
    try:
        choose(page, name, models[name]["title"])
        click(page, expected[name]["typical" if scheme == "light" else "far"]["x"])
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        height = page.execute_script("return document.documentElement.scrollHeight")
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**size, "height": height})
        time.sleep(0.5)  # until it is drawn
        picture = base64.b64decode(page.execute_cdp_cmd("Page.captureScreenshot", {})["data"])
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    (folder / f"page_{scheme}_{width}.png").write_bytes(picture)
    assert len(picture) > 50_000


@pytest.mark.parametrize(("missing", "advice"), [("models", "python build.py"), ("node_modules", "npm install")])
def test_the_page_says_what_is_missing(driver, tmp_path, missing, advice):
    for name in FILES:
        shutil.copy(HERE / name, tmp_path)
    for name in {"models", "node_modules"} - {missing}:
        (tmp_path / name).symlink_to(HERE / name)
    server, address = serve(tmp_path)
    try:
        driver.get(address)
        WebDriverWait(driver, PATIENCE, 0.05).until(lambda d: advice in status(d))
    finally:
        server.shutdown()
