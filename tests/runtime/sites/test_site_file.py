"""site.yaml: every line of it can be wrong, and the error names that line."""

from __future__ import annotations

from pathlib import Path

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sites.config import BundleConfig, HomeAssistantConfig, Retention
from taidpt.runtime.sites.site_file import read_site

WHOLE = """\
bundle: street.taidpt
host: 0.0.0.0
port: 8080
max_fps: 5
trust_engine: yes
cameras:
  - id: yard
    source: rtsp://joe:s3cret@cam/1
    max_fps: 2.5
  - {id: door, source: "rtsp://cam/2"}
zones:
  - id: gate
    camera: yard
    points: [[0.1, 0], [0.5, 0], [0.5, 1]]
    tags: [person, 7]
rules:
  - id: night
    tag: person
    zone: gate
    without: [dog]
    for: 10
    between: 22:00-06:00
    days: [sat, sun]
retention: {days: 3, gigabytes: 0.5}
home_assistant: {mqtt: "mqtt://broker"}
"""


def test_a_whole_file_is_read_and_options_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(WHOLE)
    site = read_site(str(path), {"port": 9000, "bundle": "other.taidpt"})
    assert (site.bundle, site.port, site.host, site.max_fps) == ("other.taidpt", 9000, "0.0.0.0", 5)
    assert site.trust_engine is True
    assert [(camera.id, camera.max_fps) for camera in site.cameras] == [
        ("yard", 2.5),
        ("door", None),
    ]
    assert site.zones[0].tags == ("person", "7")
    assert site.zones[0].points[1] == (0.5, 0.0)
    rule = site.rules[0]
    assert (rule.for_, rule.hours, rule.days) == (10.0, (1320, 360), ("sat", "sun"))
    assert site.retention == Retention(3.0, 0.5)
    assert site.home_assistant == HomeAssistantConfig("mqtt://broker")


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("port: 8080", "port: high", 3, "port should be a whole number, got 'high'"),
        ("port: 8080", "prot: 8080", 3, "no key 'prot'; did you mean port?"),
        ("port: 8080", "port: 99999", 1, "port should be from 0 to 65535"),
        ("port: 8080", "host: x", 3, "'host' stands twice"),
        ("max_fps: 5", "max_fps: [5]", 4, "max_fps should be a number, got a sequence"),
        ("id: yard", "id: my yard", 7, "camera 'my yard': an id has"),
        ("    source: rtsp://joe", "    sauce: rtsp://joe", 8, "no key 'sauce'"),
        ("rtsp://joe", "gopher://joe", 7, "unknown scheme"),
        ('source: "rtsp://cam/2"', "max_fps: 1", 10, "needs the key 'source'"),
        ("id: door", "id: yard", 10, "two cameras have the id 'yard'"),
        ("    camera: yard", "    camera: garden", 12, "no camera 'garden'; there are: yard, door"),
        ("[0.5, 0]", "[0.5]", 14, "should be a list of 2, not 1"),
        ("[0.5, 1]", "[0.5, 7]", 12, "points are parts of the picture from 0 to 1"),
        ("    zone: gate", "    zone: pool", 17, "no zone 'pool'; there are: gate"),
        ("22:00-06:00", "25:00-06:00", 17, "between should be like 22:00-06:00"),
        ("[sat, sun]", "[sat, sunday]", 17, "days are mon, tue"),
        ("days: 3", "days: -3", 24, "days should be above 0"),
        ("rules:", "rules: {", 17, "not YAML"),
        ('source: "rtsp://cam/2"', 'source: "rtsp://cam/2", bundle: x', 10, "no bundle 'x'; there"),
        ("port: 8080", "bundles: [{id: x, path: y}]", 1, "are for sites of one bundle; in"),
    ],
)
def test_an_error_names_its_line(
    old: str, new: str, line: int, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "site.yaml"
    assert old in WHOLE
    path.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        read_site(str(path), {})
    text = str(error.value)
    assert text.startswith(f"{path}:{line}: ")
    assert expected in text
    assert "s3cret" not in text


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    for content, expected in (
        (b"", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"- a\n", ":1: the file should be keys and values"),
        (b"bundle: x\ncameras: []\n", "there is no camera"),
        (b"a: &a [" + b"x," * 600_000 + b"]", "larger than 1 MiB"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=expected):
            read_site(str(path), {})
    with pytest.raises(InputError, match="cannot be read"):
        read_site(str(tmp_path / "missing.yaml"), {})


SEVERAL = """\
bundles:
  - {id: street, path: street.taidpt, prompts: street.safetensors}
  - {id: dock, path: dock.taidpt, bank: dock.bank}
cameras:
  - {id: yard, source: "rtsp://cam/1", bundle: dock}
  - {id: door, source: "rtsp://cam/2", bundle: street}
  - {id: gate, source: "rtsp://cam/3", bundle: dock}
"""


def test_each_camera_names_its_bundle(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(SEVERAL)
    site = read_site(str(path), {})
    street, dock = site.models
    assert street == BundleConfig("street", "street.taidpt", None, "street.safetensors")
    assert [camera.id for camera in site.cameras_of(dock)] == ["yard", "gate"]
    assert site.banks_of(dock) == site.folder / "banks" / "dock"
    for old, new, line, expected in (
        (", bundle: street", "", 6, "camera 'door' needs a `bundle`; there are: street, dock"),
        ("bundle: street", "bundle: dock", 2, "no camera names the bundle 'street'"),
        ("id: dock", "id: street", 3, "two bundles have the id 'street'"),
        ("path: dock.taidpt, ", "", 3, "needs the key 'path'"),
        ("cameras:", "prompts: x\ncameras:", 1, "are for sites of one bundle"),
    ):
        path.write_text(SEVERAL.replace(old, new, 1))
        with pytest.raises(InputError) as error:
            read_site(str(path), {})
        assert str(error.value).startswith(f"{path}:{line}: ")
        assert expected in str(error.value)
    path.write_text(SEVERAL)
    with pytest.raises(InputError, match="are for sites of one bundle"):
        read_site(str(path), {"bundle": "other.taidpt"})  # BUNDLE on the command line
