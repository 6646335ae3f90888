"""`psld tune`: what it measures is what is sampled with afterwards."""

import pytest

from ending import exit_code
from psld import load
from psld.cli import main
from psld.data import Digits
from psld.spectrum import SPECTRUM, Spectrum


@pytest.fixture
def elsewhere(tmp_path):
    """A network without a spectrum."""
    return load("psld-digits", spectrum=False).save(tmp_path / "elsewhere")


def test_a_network_from_elsewhere_is_told_its_data(elsewhere, tmp_path, capsys):
    assert load(elsewhere).spectrum is None
    assert main(["tune", str(elsewhere), "--images", "Digits", "--steps", "1", "2"]) == 0
    said = capsys.readouterr().out
    assert "start='gaussian'" in said and "  2 evaluations: " in said and f"Written to {elsewhere / SPECTRUM}" in said
    assert load(elsewhere).spectrum == Spectrum.measure(Digits("train"))
    assert load(elsewhere).sample(2, steps=2).nfe.tolist() == [2, 2]
    again = load(elsewhere).save(tmp_path / "copy")
    assert load(again).spectrum == load(elsewhere).spectrum


def test_what_cannot_be_tuned_is_refused(elsewhere, capsys):
    assert main(["tune", "psld-digits", "--images", "Digits"]) == 1
    assert "is part of psld" in capsys.readouterr().err
    assert exit_code(["tune", str(elsewhere), "--images", "Digits", "--steps", "0"]) == 2
    assert "--steps must be" in capsys.readouterr().err


def test_a_spectrum_of_other_images_is_refused(elsewhere):
    Spectrum.measure(Digits("train").images.repeat(1, 3, 1, 1)).save(elsewhere)
    with pytest.raises(ValueError, match=r"is of images \(3, 8, 8\), and the model makes \(1, 8, 8\)"):
        load(elsewhere)
