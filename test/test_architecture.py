"""The picture of the packages follows the imports."""

import runpy
from pathlib import Path

from PIL import Image

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "draw_architecture.py"))


def test_the_picture_shows_the_imports_of_today() -> None:
    with Image.open(SCRIPT["PICTURE"]) as picture:
        assert picture.text["Imports"] == SCRIPT["text"](SCRIPT["imports"]()), "run scripts/draw_architecture.py"


def test_every_package_is_in_the_picture_and_has_a_layer() -> None:
    packages = {path.parent.name for path in (Path(__file__).parents[1] / "vla_ros").glob("*/__init__.py")}
    assert packages == {name for layer in SCRIPT["layers"]() for name in layer}
