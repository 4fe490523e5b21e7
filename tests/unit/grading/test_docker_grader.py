from __future__ import annotations

from docker import DockerClient
from docker.models.containers import Container

from swebench_trainer.grading import docker


def test_cleaning_up_without_a_daemon_is_quiet() -> None:
    client = DockerClient(base_url="tcp://127.0.0.1:9", version="1.44")
    container = Container({"Id": "gone"}, client=client)
    docker._kill(container)
    docker._remove(container)
    client.close()
