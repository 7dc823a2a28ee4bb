import pickle

import pytest

from finetune.utils.errors import CheckpointError, DataError, FileFault, ListError


@pytest.mark.parametrize("kind", [FileFault, DataError, ListError, CheckpointError])
def test_a_fault_comes_whole_out_of_another_process(kind: type[FileFault]) -> None:
    fault = pickle.loads(pickle.dumps(kind("a/1.png", "is empty", "Write it again", code="empty")))
    assert type(fault) is kind
    assert str(fault) == "a/1.png: is empty. Write it again."
    assert (fault.source, fault.found, fault.fix, fault.code) == ("a/1.png", "is empty", "Write it again", "empty")
    assert fault.cause == "a/1.png: is empty"


def test_the_code_is_for_programs_and_changes_no_sentence() -> None:
    plain = DataError("a", "is empty", "Write it again")
    assert plain.code == ""
    assert str(plain) == str(DataError("a", "is empty", "Write it again", code="empty"))
