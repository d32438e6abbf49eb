"""The expressions of a bundle's configuration are data: parsed, never evaluated."""

from __future__ import annotations

import pytest

from SynthDoseLib.core import SynthDoseError
from SynthDoseLib.segmentation.bundle_folder import inside
from SynthDoseLib.segmentation.expressions import Component, ConfigurationReader, DevicePlace


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$[1.5, 1.5] if @flag else [3.0]", [1.5, 1.5]),
        ("$@root + '/models/' + @inner#name", "b/models/model.pt"),
        ("$2 * @number - 1", 7),
        ("$@number >= 4 and not @flag", False),
        ("$@list[1]", 20),
        ("$@inner::name", "model.pt"),
        ("$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')", DevicePlace()),
        ("$max(1, len(@list))", 2),
        ("plain text", "plain text"),
    ],
)
def test_harmless_expressions_have_their_value(text, value):
    configuration = {"flag": True, "root": "b", "number": 4, "list": [10, 20], "inner": {"name": "model.pt"}, "x": text}
    assert ConfigurationReader(configuration).get("x") == value


def test_components_are_data_until_they_are_built():
    reader = ConfigurationReader({"net": {"_target_": "UNet", "n": "$1 + 1"}, "moved": "$@net.to(@device)", "device": "cpu"})
    assert reader.get("net") == Component("UNet", {"n": 2})
    assert reader.get("moved") is reader.get("net")


@pytest.mark.parametrize("relative", ["../x", "/etc/passwd", "a/../../x", "C:/x", "..\\x", "", "\\\\server\\x"])
def test_paths_that_lead_out_of_a_bundle_are_refused(tmp_path, relative):
    with pytest.raises(SynthDoseError, match="outside its own folder"):
        inside(tmp_path, relative)
