"""Datasets by name: what a download takes, and that the flag of a run downloads and prepares."""

import pytest
from data_settings import data_settings

from retinanet_jax.data.data_errors import DataError
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.store import prepare_release


@pytest.mark.parametrize(
    "name, gigabytes", [("coco", "20.4"), ("coco2014", "20.4"), ("voc", "2.9")]
)
def test_missing_data_name_the_download_and_the_flag(tmp_path, name, gigabytes):
    settings = data_settings(name, tmp_path, tmp_path / "cache")
    with pytest.raises(DataError) as caught:
        load_dataset(settings, "train")
    text = str(caught.value)
    assert f"add --download to download {gigabytes} GB of archives and prepare them" in text
    assert f"retinanet-jax prepare --dataset={name} --source=FOLDER --data_dir={tmp_path}" in text


def test_download_fetches_into_the_data_directory(tmp_path, monkeypatch):
    calls = []

    def prepare(year, source, data_dir, on_error, *, splits, download):
        assert source.is_dir() and download and not splits and on_error == "skip"
        calls.append((year, source, data_dir))
        return data_dir / year

    years = {"voc": (prepare, ("2007", "2012"))}
    monkeypatch.setattr(prepare_release, "_YEARS", years)
    prepare_release.download_dataset("voc", str(tmp_path))
    assert calls == [(year, tmp_path / "downloads/voc", tmp_path) for year in ("2007", "2012")]
    prepare_release.download_dataset("folder", str(tmp_path))  # has nothing to download
    assert len(calls) == 2
