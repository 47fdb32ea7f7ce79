"""Launchers' environments, and objects over TCP."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import numpy as np
import pytest

import gpumlp
import gpumlp.distributed
from gpumlp.distributed import Alone, Launched, launched
from gpumlp.distributed.tcp import TCPCommunicator

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Launched()),
        ({**TORCHRUN, "MASTER_ADDR": "localhost"}, Launched("torchrun", 3, 8, 1, 2)),
        (TORCHRUN, Launched()),  # other programs use these names as well
        (
            {
                "OMPI_COMM_WORLD_RANK": "5",
                "OMPI_COMM_WORLD_SIZE": "8",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
            },
            Launched("Open MPI", 5, 8, 1, 4),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, Launched("MPICH", 1, 2, 1, 1)),
        (
            {"SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1"},
            Launched("Slurm", 9, 16, 1),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_LOCALID": "0"}, Launched()),  # a batch script
        ({"PMI_RANK": "x", "PMI_SIZE": "2"}, Launched()),
    ],
)
def test_launchers(environment: dict[str, str], expected: Launched) -> None:
    assert launched(environment) == expected


def test_a_process_on_its_own() -> None:
    assert (gpumlp.distributed.rank(), gpumlp.distributed.size()) == (0, 1)
    alone = gpumlp.distributed.get_communicator("auto")
    assert isinstance(alone, Alone) and alone.gather({"a": 1}) == [{"a": 1}]
    with pytest.raises(ValueError, match="communicator='mpl'"):
        gpumlp.distributed.get_communicator("mpl")


def test_sharded_rows_need_a_communicator() -> None:
    trainer = gpumlp.Trainer(gpumlp.MLP([2, 1], device="cpu"), loss="squared_error", optimizer="sgd")
    for rows, expected in (("sharded", "needs a trainer with a communicator"), ("split", "rows='split'")):
        with pytest.raises(ValueError, match=expected):
            trainer.fit(np.zeros((4, 2)), np.zeros(4), epochs=1, rows=rows)


def test_more_ranks_than_shards() -> None:
    class Nine(Alone):
        size = 9

    model = gpumlp.MLP([2, 1], device="cpu")
    with pytest.raises(ValueError, match=r"9 ranks: .* at most 8; give reproducible=False"):
        gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", communicator=Nine())


def test_objects_over_tcp() -> None:
    """All ranks get all values, whatever their kind; a stranger at the port does no harm."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    values = [
        {"text": "ä", 3: [1, 2.5, None, True], "nan": float("nan")},
        np.arange(6, dtype=np.float32).reshape(2, 3),
        [b"\x00\xff", np.array(7, np.int64), {}],
    ]
    made: dict[int, TCPCommunicator] = {}
    answers: dict[int, list[Any]] = {}

    def rank(number: int) -> None:
        communicator = made[number] = TCPCommunicator(number, 3, number, "127.0.0.1", port, timeout=60)
        answers[number] = [communicator.gather(values[number]), communicator.gather(number)]

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(3)]
    threads[0].start()
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                stranger.sendall(os.urandom(64))
            break
        except ConnectionRefusedError:
            continue
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [0, 1, 2]
    for told, numbers in answers.values():
        assert numbers == [0, 1, 2]
        np.testing.assert_equal(told, values)
        assert told[1].dtype == np.float32
    with pytest.raises(gpumlp.DeviceError, match="mpiexec -n 4"):
        made[1].on(gpumlp.get_backend("cpu"))
