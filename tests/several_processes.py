"""Several processes for tests of what they compute together, not of how they start: copies of one that has imported torch."""

import multiprocessing
import os
import socket
import traceback

from osdtw_lib.backend import distributed
from osdtw_lib.errors import UserError
from osdtw_lib.report.kernels import IMPORTED
from osdtw_lib.stages import side_by_side

FORKED = multiprocessing.get_context("forkserver")


def forked():
    """The context of processes that have imported what notebooks' kernels need: there is one such list, the first."""
    FORKED.set_forkserver_preload(list(IMPORTED))
    return FORKED


def serve(parent, *work):
    """side_by_side's, in a process that is a copy: whose parent, the one it is copied from, is not who started it."""
    side_by_side.end_with = lambda parent: None
    side_by_side._serve(parent, *work)


def together(function, arguments, processes):
    """function(*arguments) in so many processes of one group. Raises what one of them raised, a UserError as it was said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    said = [FORKED.Pipe(duplex=False) for _ in range(processes)]
    members = [
        forked().Process(target=_member, args=(said[rank][1], place | {"RANK": rank, "LOCAL_RANK": rank}, function, arguments))
        for rank in range(processes)
    ]
    for member, (_, sends) in zip(members, said):
        member.start()
        sends.close()
    answers = [_answer(hears) for hears, _ in said]
    for member in members:
        member.join()
    failed = [answer for answer in answers if answer is not None]
    refused = [text for is_refusal, text in failed if is_refusal]
    if refused:
        raise UserError(refused[0])
    assert not failed, "\n".join(text for _, text in failed)


def _answer(pipe):
    try:
        return pipe.recv()
    except EOFError:
        return False, "a process died without a word"


def _member(sends, place, function, arguments):
    multiprocessing.set_start_method(None, force=True)  # its own readers of images start as anywhere else
    os.environ |= {name: str(value) for name, value in place.items()}
    answer = None
    try:
        with distributed.group("cpu"):
            function(*arguments)
    except SystemExit as leaving:  # one that ends with the first, which says why
        answer = None if leaving.code in (0, 2) else (False, f"left with {leaving.code}")
    except UserError as error:
        answer = True, str(error)
    except BaseException:
        answer = False, traceback.format_exc()
    sends.send(answer)
