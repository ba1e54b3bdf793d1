"""Requests to the services of a Unitree robot, as the SDK's clients and servers speak them.

A service listens on `rt/api/<service>/request` and answers on `rt/api/<service>/response`, with
the request's identity.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from motoric.hardware.unitree.dds import Dds

MOTION_SWITCHER = "motion_switcher"
CHECK_MODE, SELECT_MODE, RELEASE_MODE = 1001, 1002, 1003
SPORT = "sport"
DAMP, STAND_UP, STAND_DOWN = 1001, 1004, 1005

API_VERSION = 1  # answered by every service
TIMEOUT = 3104  # no answer; as the SDK numbers it
NOT_IMPLEMENTED = 3203
NOTHING: Any = []  # the binary part of a message


class Client:
    """Calls of one service."""

    def __init__(self, dds: Dds, service: str) -> None:
        from unitree_sdk2py.idl.unitree_api.msg.dds_ import Request_, Response_

        self._request, self._response = Request_, Response_
        self._out = dds.writer(f"rt/api/{service}/request", Request_)
        self._in = dds.reader(f"rt/api/{service}/response", Response_, 10, reliable=True)

    def call(self, api: int, parameter: dict[str, Any], timeout: float) -> tuple[int, str]:
        """The service's code (0: done) and data; TIMEOUT after `timeout` s."""
        from unitree_sdk2py.idl.unitree_api.msg.dds_ import (
            RequestHeader_,
            RequestIdentity_,
            RequestLease_,
            RequestPolicy_,
        )

        until = time.monotonic() + timeout
        while not (self._out.readers and self._in.writers):
            if time.monotonic() > until:
                return TIMEOUT, ""
            time.sleep(0.01)
        identity = time.monotonic_ns()
        header = RequestHeader_(
            RequestIdentity_(identity, api), RequestLease_(0), RequestPolicy_(0, False)
        )
        self._out.write(self._request(header, json.dumps(parameter), NOTHING).serialize())
        while time.monotonic() < until:
            for data in self._in.take():
                answer = self._response.deserialize(data)
                if answer.header.identity.id == identity:
                    return int(answer.header.status.code), str(answer.data)
            time.sleep(0.005)
        return TIMEOUT, ""


class Server:
    """Answers of one service: `answer(api, parameter)` gives code and data."""

    def __init__(
        self,
        dds: Dds,
        service: str,
        version: str,
        answer: Callable[[int, dict[str, Any]], tuple[int, str]],
    ) -> None:
        from unitree_sdk2py.idl.unitree_api.msg.dds_ import Request_, Response_

        self._version, self._answer = version, answer
        self._request, self._response = Request_, Response_
        self._in = dds.reader(f"rt/api/{service}/request", Request_, 10, reliable=True)
        self._out = dds.writer(f"rt/api/{service}/response", Response_)

    def serve(self) -> None:
        """Answer what has arrived."""
        from unitree_sdk2py.idl.unitree_api.msg.dds_ import ResponseHeader_, ResponseStatus_

        for data in self._in.take():
            request = self._request.deserialize(data)
            identity = request.header.identity
            code, text = 0, self._version
            if identity.api_id != API_VERSION:
                try:
                    code, text = self._answer(
                        identity.api_id, json.loads(request.parameter or "{}")
                    )
                except ValueError:
                    code, text = 7001, ""  # parameter error
            if not request.header.policy.noreply:
                header = ResponseHeader_(identity, ResponseStatus_(code))
                self._out.write(self._response(header, text, NOTHING).serialize())
