"""The records of zip files (torch's .pth, numpy's .npz), within the budget of the file."""

import io
import zipfile
import zlib

from retinanet_jax.weights.tensors import Budget
from retinanet_jax.weights.weights_error import WeightsError, shown


def open_zip(file: io.BufferedReader) -> zipfile.ZipFile:
    """The zip file; raises WeightsError for a damaged directory and for names that occur twice."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise WeightsError(
            f"the zip file is damaged or cut off ({error}); download it again"
        ) from error
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise WeightsError("the zip file has two records with the same name: refused")
    return archive


def read_record(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """The record's bytes, unpacked; raises WeightsError unless size and checksum are right."""
    info = archive.getinfo(name)
    budget.charge(info.file_size, f"record {shown(name)}")
    if getattr(info, "CRC", None) == 0:
        del info.CRC  # torch can be set to write 0 for "not computed"
    try:
        with archive.open(info) as record:
            # With a size, zipfile never unpacks more than that.
            content = record.read(info.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        # RuntimeError: encrypted; NotImplementedError, a RuntimeError: another compression
        raise WeightsError(
            f"record {shown(name)} of the zip file is damaged or encrypted ({shown(error)}); get "
            "the file again"
        ) from error
    if len(content) != info.file_size:
        raise WeightsError(
            f"record {shown(name)} has {len(content)} bytes instead of {info.file_size}: the file "
            "is damaged; download it again"
        )
    return content
