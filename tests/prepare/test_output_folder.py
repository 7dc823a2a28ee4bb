"""Which folders may be made."""

from pathlib import Path

import pytest

from finetune.prepare.output_folder import require_output
from finetune.utils.errors import FileFault


@pytest.mark.parametrize("url", ["s3://bucket/room", "gs://bucket", "https://host/room", "memory://room"])
def test_a_url_is_no_folder(url: str) -> None:
    with pytest.raises(FileFault, match=r"is a URL\. Name a local folder as --output"):
        require_output(Path(url), overwrite=True)


def test_a_disk_and_a_name_with_a_colon_are_folders(tmp_path: Path) -> None:
    require_output(Path("C:/frames"), overwrite=False)
    require_output(tmp_path / "3:4" / "frames", overwrite=False)
