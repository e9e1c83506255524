from __future__ import annotations

from torch.utils.data import DataLoader, Dataset

from ddep.errors import UserError, one_line


class Failing(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise OSError("file: not found")
        except OSError as error:
            raise UserError("key X is 'a: b'; expected Error: c") from error


def test_one_line_of_a_plain_error():
    assert one_line(UserError("key X is 1; expected 2")) == "key X is 1; expected 2"
    assert one_line(UserError("TypeError: is quoted")) == "TypeError: is quoted"
    assert one_line(UserError("first\n  second")) == "first second"


def test_one_line_of_a_worker_process():
    try:
        list(DataLoader(Failing(), num_workers=1))
    except UserError as error:
        whole, line = str(error), one_line(error)
    assert "Traceback" in whole and line == "key X is 'a: b'; expected Error: c"
